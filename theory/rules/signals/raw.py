"""Signals that read one reward at a time: no comparison, so one rollout is enough."""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.batch import Batch, PerRollout
from theory.rules.signals.base import SignalSpec

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Raw(SignalSpec):
    """The reward itself: A_i = r_i.

    Source: REINFORCE without baseline (Williams 1992). Valid when: always; one rollout is enough. Unbiased.
    """

    kind: Literal["raw"] = "raw"

    def advantage(self, batch: Batch) -> PerRollout:
        return batch.rewards


class Sign(SignalSpec):
    """The side of a fixed reference: A_i = positive if r_i > reference, -negative if r_i < reference, else 0.

    Arguments:
        reference: in units of reward; 1/2 tells 0 from 1, 0 tells -1 from 1.
        positive: >= 0, weight of a success; 0 learns from failures only.
        negative: >= 0, weight of a failure; 0 learns from successes only.
    Errors: both weights zero.
    Source: sign advantage (arXiv 2605.07689: 1, 1); positive and negative sample reinforcement PSR, NSR and
    W-REINFORCE (arXiv 2506.01347: (1, 0), (0, 1) and (0.1, 1)).
    Valid when: the reward is 0/1 or -1/1; one rollout is enough. Its expectation is (positive + negative) times
    the gradient of P(r > reference), if no reward equals the reference.
    """

    kind: Literal["sign"] = "sign"
    reference: Annotated[float, Field(allow_inf_nan=False)] = 0.5
    positive: Factor = 1.0
    negative: Factor = 1.0

    @model_validator(mode="after")
    def _learns_from_something(self) -> Sign:
        if self.positive == 0 and self.negative == 0:
            raise Refusal("sign with positive = 0 and negative = 0 never learns; give at least one above 0")
        return self

    def advantage(self, batch: Batch) -> PerRollout:
        xp = array_namespace(batch.rewards)
        up = xp.astype(batch.rewards > self.reference, batch.rewards.dtype)
        down = xp.astype(batch.rewards < self.reference, batch.rewards.dtype)
        return self.positive * up - self.negative * down
