"""Optimiser specifications; optax and torch realise them, on either side of the bridge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.schedule import ConstantRate, Schedule
from theory.rules.spec import Spec

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class SGD(Spec):
    """theta <- theta + eta * factor(step) * m, with m <- momentum * m + g, and for nesterov g + momentum * m.

    g is the update direction, scaled to norm clip_norm where it is longer.

    Arguments:
        eta: > 0, step size.
        momentum: in [0, 1); 0 is m = g.
        nesterov: look one step ahead; needs momentum > 0.
        schedule: factor on eta over the optimiser's steps.
        clip_norm: > 0, the longest Euclidean norm of the direction over all parameters of one replica; None
            never clips.
    Errors: Refusal for nesterov without momentum.
    Source: Sutskever et al. 2013 for momentum. Valid when: always. Unclipped it is linear in the directions,
    so that it may act on function values (the kernel engines) as well as on parameters.
    """

    kind: Literal["sgd"] = "sgd"
    eta: Positive
    momentum: Decay = 0.0
    nesterov: bool = False
    schedule: Schedule = ConstantRate()
    clip_norm: Positive | None = None

    @model_validator(mode="after")
    def _nesterov_looks_along_the_momentum(self) -> SGD:
        if self.nesterov and not self.momentum:
            raise Refusal("nesterov = true changes nothing at momentum 0; give momentum > 0, or leave it out")
        return self

    @property
    def linear(self) -> bool:
        """Whether the displacement is a linear function of the directions so far."""
        return self.clip_norm is None

    @property
    def remembers(self) -> bool:
        """Whether a zero direction can still move the parameters."""
        return self.momentum > 0


class Adam(Spec):
    """theta <- theta + eta * factor(step) * (m_hat / (sqrt(v_hat) + eps) - weight_decay * theta).

    m_hat, v_hat are the bias-corrected moments of g, the direction clipped as in `SGD`.

    Arguments:
        eta: > 0, step size.
        beta1, beta2: in [0, 1), decay of the first and second moments.
        eps: > 0, added to the root of the second moment.
        weight_decay: >= 0, decoupled (AdamW), multiplied by eta and the schedule's factor.
        schedule, clip_norm: as in `SGD`.
    Source: arXiv 1412.6980, 1711.05101. Valid when: note that a constant factor on all rewards is invisible
    to it, up to eps.
    """

    kind: Literal["adam"] = "adam"
    eta: Positive
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Schedule = ConstantRate()
    clip_norm: Positive | None = None

    @property
    def linear(self) -> bool:
        """Whether the displacement is a linear function of the directions so far."""
        return False

    @property
    def remembers(self) -> bool:
        """Whether a zero direction can still move the parameters."""
        return True


Optimiser = Annotated[SGD | Adam, Field(discriminator="kind")]
