"""An exponential moving average of each query's rewards as baseline."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.rules.batch import Batch, PerRollout
from theory.rules.signals.base import Memory
from theory.rules.signals.memory import Remembering, queries_of, zeros
from theory.rules.signals.moments import at_least_one


class MovingAverage(Remembering):
    """Reward above the query's running mean: A_i = r_i - b_q, then b_q <- d^n b_q + (1 - d^n) mean_q(r).

    b starts at 0. A round's n rollouts of a query are all compared with the b of the round before, and then enter
    it with their mean, so their order does not matter; for n = 1 this is the published update.

    Arguments:
        decay: d in [0, 1), per rollout; 0 remembers the last visit only.
    Source: prime-rl `rae` (decay 0.95), after SPIRAL (arXiv 2506.24119). Valid when: groups are query indices;
    one rollout is enough. b knows the past alone, so it is unbiased.
    """

    kind: Literal["moving_average"] = "moving_average"
    decay: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.95

    def init(self, xp: Any, queries: int) -> Memory:
        return (zeros(xp, (queries,)),)

    def advance(self, batch: Batch, memory: Memory) -> tuple[PerRollout, Memory]:
        xp, dtype = array_namespace(batch.rewards), batch.rewards.dtype
        (remembered,) = self.recall(memory)
        baseline = xp.astype(remembered, dtype)
        query, held = queries_of(batch, baseline)
        number = xp.sum(xp.astype(held, dtype), axis=0)
        mean = xp.sum(xp.where(held, batch.rewards[:, None], 0.0), axis=0) / at_least_one(number)
        kept = self.decay**number
        after = xp.where(number > 0, kept * baseline + (1 - kept) * mean, baseline)
        advantage = batch.rewards - xp.take(baseline, query, axis=0)
        return advantage, (xp.astype(after, remembered.dtype),)
