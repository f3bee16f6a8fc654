"""Objectives: an advantage per rollout -> a coefficient on grad log pi of each token.

Each objective is a frozen specification with one method, `coefficient(batch, advantage) -> (R, T)`: the
derivative of the per-token objective (to be ascended) with respect to the token's log-probability.
"""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.rules.batch import Batch, PerRollout, PerToken
from theory.rules.spec import Spec


class PolicyGradient(Spec):
    """Objective A_i log pi(y_it): coefficient A_i on every token.

    Source: REINFORCE (Williams 1992). Valid when: on-policy (old and current log-probabilities agree).
    """

    kind: Literal["policy_gradient"] = "policy_gradient"

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        xp = array_namespace(advantage)
        return advantage[:, None] + xp.zeros_like(batch.logprobs)


class PPOClip(Spec):
    """Objective min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho_it = pi / pi_old of the token.

    Coefficient rho A where the clip does not bind, 0 where it does.

    Arguments:
        clip_low: in (0, 1), how far the ratio may fall while it still pays.
        clip_high: > 0, how far it may rise.
    Source: PPO (arXiv 1707.06347, eq. 7); two-sided widths from DAPO (arXiv 2503.14476).
    Valid when: always; on-policy rho = 1, no clip binds and it is the policy gradient.
    """

    kind: Literal["ppo_clip"] = "ppo_clip"
    clip_low: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.2
    clip_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        xp = array_namespace(advantage)
        ratio = xp.exp(batch.logprobs - batch.old_logprobs)
        free = ratio * advantage[:, None]
        clipped = xp.clip(ratio, 1 - self.clip_low, 1 + self.clip_high) * advantage[:, None]
        return xp.where(free <= clipped, free, 0.0)


Objective = Annotated[PolicyGradient | PPOClip, Field(discriminator="kind")]
