"""Objectives whose ratio is a token's own: rho_it = pi(y_it) / pi_old(y_it)."""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.rules.batch import Batch, PerRollout, PerToken
from theory.rules.spec import Spec

Below = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PolicyGradient(Spec):
    """Objective A_i log pi(y_it): coefficient A_i on every token.

    Source: REINFORCE (Williams 1992). Valid when: on-policy (old and current log-probabilities agree).
    """

    kind: Literal["policy_gradient"] = "policy_gradient"

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        xp = array_namespace(advantage)
        return advantage[:, None] + xp.zeros_like(batch.logprobs)


class PPOClip(Spec):
    """Objective min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), and with dual_clip its max with
    dual_clip A where A < 0.

    Coefficient rho A where no clip binds, 0 where one does.

    Arguments:
        clip_low: in (0, 1), how far the ratio may fall while it still pays.
        clip_high: > 0, how far it may rise; "clip-higher" is clip_high > clip_low.
        dual_clip: > 1, the ratio beyond which a negative advantage stops pushing; None never stops it.
    Source: PPO (arXiv 1707.06347, eq. 7); two-sided widths from DAPO (arXiv 2503.14476); dual clip with 3
    from arXiv 1912.09729.
    Valid when: always. With one epoch on-policy rho = 1, no clip binds and it is the policy gradient: the
    widths are then a trainer's defaults that wait for `epochs` >= 2.
    """

    kind: Literal["ppo_clip"] = "ppo_clip"
    clip_low: Below = 0.2
    clip_high: Above = 0.2
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        xp = array_namespace(advantage)
        ratio = xp.exp(batch.logprobs - batch.old_logprobs)
        free = ratio * advantage[:, None]
        clipped = xp.clip(ratio, 1 - self.clip_low, 1 + self.clip_high) * advantage[:, None]
        pays = free <= clipped
        if self.dual_clip is not None:
            pays = pays & ((advantage[:, None] >= 0) | (ratio <= self.dual_clip))
        return xp.where(pays, free, 0.0)


class CISPO(Spec):
    """Objective sg[clip(rho, 1 - clip_low, 1 + clip_high)] A log pi, sg = held constant.

    Coefficient clip(rho, ...) A: a clipped token keeps its push, at a bounded size.

    Arguments:
        clip_low: in (0, 1]; 1, its paper's setting, is no lower bound.
        clip_high: > 0; its paper tunes it and prints no value, trainers run from 0.2 to 5.
    Source: MiniMax-M1 (arXiv 2506.13585). Valid when: always; on-policy it is the policy gradient.
    """

    kind: Literal["cispo"] = "cispo"
    clip_low: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    clip_high: Above

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        xp = array_namespace(advantage)
        ratio = xp.exp(batch.logprobs - batch.old_logprobs)
        return xp.clip(ratio, 1 - self.clip_low, 1 + self.clip_high) * advantage[:, None]
