"""Objectives: an advantage per rollout -> a coefficient on grad log pi of each token.

Each objective is a frozen specification with one method, `coefficient(batch, advantage) -> (R, T)`: the
derivative of the per-token objective (to be ascended) with respect to the token's log-probability.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from theory.rules.objectives.sequence import GMPO, GSPO, SequenceClip
from theory.rules.objectives.token import CISPO, PolicyGradient, PPOClip

__all__ = ["CISPO", "GMPO", "GSPO", "Objective", "PPOClip", "PolicyGradient", "SequenceClip"]

Objective = Annotated[
    PolicyGradient | PPOClip | CISPO | GSPO | GMPO | SequenceClip, Field(discriminator="kind")
]
