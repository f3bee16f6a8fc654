"""What every learning signal offers; the rule knows signals through this class alone."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.refusal import Refusal
from theory.rules.batch import EXTRA, SAMPLED, Array, Batch, Member, PerRollout
from theory.rules.spec import Spec

Memory = tuple[Any, ...]
Singleton = Literal["error", "raw", "zero"]


class SignalSpec(Spec):
    """A signal: rewards of a round -> one number per rollout.

    A signal without memory defines `advantage`; one with memory (`signals/memory.py`) defines `init` and
    `advance` instead. Valid when: the batch arrives `cleaned`; numbers of rollouts that are not trained on
    are never read.
    """

    reads_logprobs: ClassVar[bool] = False
    """Whether the advantage depends on log-probabilities; a signal that reads them says so."""

    @property
    def name(self) -> str:
        """The signal's kind, for messages."""
        return type(self).model_fields["kind"].default

    @property
    def helpers(self) -> tuple[int, ...]:
        """Roles of the rollouts a query draws besides those trained on."""
        return ()

    def accept(self, rollouts: int, queries: int | None = None) -> None:
        """Reject a number of rollouts per query, or of queries per round, that leaves nothing to compare."""

    def init(self, xp: Any, queries: int) -> Memory:
        """The memory before the first round."""
        return ()

    def advance(self, batch: Batch, memory: Memory) -> tuple[PerRollout, Memory]:
        """(A, memory): the advantage of each rollout, and the memory for the next round."""
        return self.advantage(batch), memory

    def advantage(self, batch: Batch) -> PerRollout:
        """(R,) advantage of each rollout."""
        raise NotImplementedError(f"{self.name} has memory; call advance")

    def check(self, batch: Batch, memory: Memory) -> None:
        """Reject a batch that holds too little for this signal; for NumPy and torch callers."""


class Grouped(SignalSpec):
    """A signal that compares the rollouts of one query.

    Arguments:
        extra: rollouts of each query drawn besides those trained on, which only feed the comparison.
        singleton: what a rollout with nothing to compare gets: "raw" its reward, "zero" nothing; "error" is
            rejected when rollouts + extra is 1 (a rollout that masking leaves alone then gets zero).
    """

    extra: Annotated[int, Field(ge=0)] = 0
    singleton: Singleton = "error"

    @property
    def helpers(self) -> tuple[int, ...]:
        return (EXTRA,) * self.extra

    def accept(self, rollouts: int, queries: int | None = None) -> None:
        if rollouts + self.extra == 1 and self.singleton == "error":
            raise Refusal(
                f"{self.name} needs rollouts >= 2; for one rollout use raw, say what a group of one gets "
                f'(singleton "raw" or "zero"), or draw extra rollouts for the comparison'
            )

    def member(self, batch: Batch) -> Member:
        """(R, R) boolean: rollout j is what rollout i is compared with, itself included."""
        return batch.group_of(batch.having(SAMPLED, EXTRA) if self.extra else batch.having(SAMPLED))

    def settle(self, advantage: PerRollout, count: Array, batch: Batch) -> PerRollout:
        """The advantage, where nothing is there to compare (count 1) as `singleton` says."""
        return settle(advantage, count, batch, self.singleton)

    def check(self, batch: Batch, memory: Memory) -> None:
        if self.singleton == "error":
            lonely = (self.member(batch).sum(1) == 1) & batch.having(SAMPLED)
            for i in range(len(lonely)):
                if lonely[i]:
                    raise Refusal(
                        f"batch.groups[{i}] = {int(batch.groups[i])} holds one rollout, {self.name} "
                        f"needs at least 2 present; sample more, or use a signal that settles singletons"
                    )


def settle(advantage: PerRollout, count: Array, batch: Batch, policy: Singleton) -> PerRollout:
    """The declared value where the count is 1; "error" was rejected at construction, so here it means zero."""
    xp = array_namespace(advantage)
    alone = batch.rewards if policy == "raw" else xp.zeros_like(advantage)
    return xp.where(count == 1, alone, advantage)
