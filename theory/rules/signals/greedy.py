"""ReMax: the greedy response's reward as baseline."""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace

from theory.refusal import Refusal
from theory.rules.batch import GREEDY, SAMPLED, Batch, PerRollout
from theory.rules.signals.base import Memory, SignalSpec
from theory.rules.signals.moments import at_least_one, count, gaps


class Greedy(SignalSpec):
    """Reward above that of the greedy response: A_i = r_i - r_greedy of the same query.

    Each query draws one rollout of role 2 (argmax at every token) besides those trained on.

    Errors: `check` names a group without a greedy rollout (unchecked, its rollouts get zero).
    Source: ReMax (arXiv 2310.10505). Valid when: always; one trained rollout is enough. The greedy response
    knows the policy but no sampled response, so it is unbiased.
    """

    kind: Literal["greedy"] = "greedy"

    @property
    def helpers(self) -> tuple[int, ...]:
        return (GREEDY,)

    def advantage(self, batch: Batch) -> PerRollout:
        member = batch.group_of(batch.having(GREEDY))
        total = array_namespace(batch.rewards).sum(gaps(batch.rewards, member), axis=1)
        return total / at_least_one(count(member, batch))

    def check(self, batch: Batch, memory: Memory) -> None:
        lacking = (batch.group_of(batch.having(GREEDY)).sum(1) == 0) & batch.having(SAMPLED)
        for i in range(len(lacking)):
            if lacking[i]:
                raise Refusal(
                    f"batch.groups[{i}] = {int(batch.groups[i])} holds no greedy rollout; add one of role 2 "
                    f"to every query, as rule.roles says"
                )
