"""Learning-rate schedules: the factor on eta at each optimiser step.

Each schedule is a frozen specification with one method, `factor(step) -> ()`: step counts the optimiser's
steps from 0, so a round of several epochs takes several. With warmup > 0 the factor climbs linearly from 0,
and the very first step moves nothing, as in the trainers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from jaxtyping import Float, Shaped
from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.batch import Array
from theory.rules.spec import Spec

Step = Shaped[Array, ""]
Factor = Float[Array, ""]
Warmup = Annotated[int, Field(ge=0)]


class ConstantRate(Spec):
    """Factor min(1, step / warmup).

    Arguments:
        warmup: >= 0, steps until eta is reached; 0 starts there.
    Source: constant with warm-up in transformers and verl. Valid when: always.
    """

    kind: Literal["constant"] = "constant"
    warmup: Warmup = 0

    @property
    def changes(self) -> bool:
        """Whether the factor is ever other than 1."""
        return self.warmup > 0

    def factor(self, step: Step) -> Factor:
        return _ramp(step, self.warmup)


class _Decay(Spec):
    """The fields common to the decays: from eta after the warm-up to final * eta after `steps` steps.

    Arguments:
        steps: > warmup, optimiser steps (rounds times epochs) until the last factor, which then stays.
        warmup: >= 0, the steps among them that climb from 0.
        final: in [0, 1), the last factor.
    Errors: Refusal where the warm-up leaves no step to decay in.
    """

    steps: Annotated[int, Field(ge=1)]
    warmup: Warmup = 0
    final: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _there_is_time_to_decay(self) -> _Decay:
        if self.warmup >= self.steps:
            raise Refusal(
                f"warmup = {self.warmup} of steps = {self.steps} leaves none to decay in; "
                "give warmup < steps, or use the constant schedule"
            )
        return self

    @property
    def changes(self) -> bool:
        """Whether the factor is ever other than 1."""
        return True

    def _progress(self, step: Step) -> Factor:
        """() in [0, 1]: the share of the decay that is done."""
        xp = array_namespace(step)
        return xp.clip((_float(step) - self.warmup) / (self.steps - self.warmup), 0.0, 1.0)


class LinearDecay(_Decay):
    """Factor ramp * (1 - (1 - final) progress). Arguments: those of every decay.

    Source: linear with warm-up in transformers. Valid when: the number of steps is known beforehand.
    """

    kind: Literal["linear"] = "linear"

    def factor(self, step: Step) -> Factor:
        return _ramp(step, self.warmup) * (1 - (1 - self.final) * self._progress(step))


class CosineDecay(_Decay):
    """Factor ramp * (final + (1 - final) (1 + cos(pi progress)) / 2). Arguments: those of every decay.

    Source: arXiv 1608.03983 without restarts. Valid when: the number of steps is known beforehand.
    """

    kind: Literal["cosine"] = "cosine"

    def factor(self, step: Step) -> Factor:
        xp = array_namespace(step)
        wave = (1 + xp.cos(xp.pi * self._progress(step))) / 2
        return _ramp(step, self.warmup) * (self.final + (1 - self.final) * wave)


Schedule = Annotated[ConstantRate | LinearDecay | CosineDecay, Field(discriminator="kind")]


def _float(step: Step) -> Factor:
    """The step in the back end's own default floating dtype."""
    xp = array_namespace(step)
    return xp.astype(step, xp.asarray(1.0).dtype)


def _ramp(step: Step, warmup: int) -> Factor:
    """() the warm-up's factor: 0 at the first step, 1 from step `warmup` on."""
    xp = array_namespace(step)
    return xp.clip(_float(step) / warmup, None, 1.0) if warmup else xp.ones_like(_float(step))
