"""Reward replay: each rollout against the last rewards of its own query, its own included."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.refusal import Refusal
from theory.rules.batch import SAMPLED, Batch, PerRollout
from theory.rules.signals.base import Memory
from theory.rules.signals.memory import Remembering, positions, queries_of, zeros
from theory.rules.signals.moments import at_least_one, divided
from theory.rules.signals.scaled import Scaled


class RewardWindow(Scaled, Remembering):
    """Reward in standard deviations of the query's last rewards: A_i = (r_i - mean_W(r)) / scale_W(r).

    W holds the last `window` rewards of the query, those of this round included: they enter first, then every
    rollout is compared with the whole window. The scale is that of `GroupMeanStd`.

    Arguments:
        window: >= 2, rewards remembered per query; at least the rollouts of a round.
        ddof, eps, eps_place: as in `Scaled`.
        singleton: what the first reward of a query gets, alone in its window: "raw" itself or "zero".
    Errors: rollouts > window (rewards would be forgotten before they are read).
    Source: `asyttgrpo` of arXiv 2601.22532 (window 8, ddof 1, eps 1e-6, a single entry is the raw reward).
    Valid when: groups are query indices; one rollout is enough. Biased like the group mean, since the window
    holds the rollout's own reward. The order of a round's rollouts does not matter in that round; where `window`
    is no multiple of their number, the first rows are forgotten first.
    """

    kind: Literal["reward_window"] = "reward_window"
    window: Annotated[int, Field(ge=2)] = 8
    singleton: Literal["raw", "zero"] = "raw"

    def accept(self, rollouts: int, queries: int | None = None) -> None:
        if rollouts > self.window:
            raise Refusal(
                f"reward_window with window = {self.window} forgets part of a round of {rollouts} rollouts before "
                f"reading it; give window >= {rollouts}"
            )

    def check(self, batch: Batch, memory: Memory) -> None:
        super().check(batch, memory)
        crowded = batch.member.sum(1) > self.window
        for i in range(len(crowded)):
            if crowded[i]:
                raise Refusal(
                    f"batch.groups[{i}] = {int(batch.groups[i])} holds more rollouts than the window of "
                    f"{self.window}; give a larger window"
                )

    def init(self, xp: Any, queries: int) -> Memory:
        return (zeros(xp, (queries, self.window)), xp.zeros((queries,), dtype=xp.int32))

    def advance(self, batch: Batch, memory: Memory) -> tuple[PerRollout, Memory]:
        """The memory is (Q, window) rewards, a ring, and (Q,) rewards seen, kept below 2 windows."""
        xp, dtype = array_namespace(batch.rewards), batch.rewards.dtype
        rewards, seen = self.recall(memory)
        query, held = queries_of(batch, seen)
        slots = positions(rewards[0])
        row = positions(batch.rewards)

        # A round's rewards take the next slots in the order of their rows.
        earlier = batch.group_of(batch.having(SAMPLED)) & (row[None, :] < row[:, None])
        rank = xp.sum(xp.astype(earlier, xp.int32), axis=1, dtype=xp.int32)
        slot = (xp.take(seen, query, axis=0) + rank) % self.window
        here = held[:, :, None] & (slot[:, None] == slots[None, :])[:, None, :]
        entering = xp.sum(xp.where(here, xp.astype(batch.rewards, rewards.dtype)[:, None, None], 0.0), axis=0)
        rewards = xp.where(xp.any(here, axis=0), entering, rewards)
        seen = seen + xp.sum(xp.astype(held, xp.int32), axis=0, dtype=xp.int32)
        seen = xp.where(seen < self.window, seen, self.window + seen % self.window)

        full = xp.clip(xp.take(seen, query, axis=0), 0, self.window)
        inside = slots[None, :] < full[:, None]
        number = xp.astype(full, dtype)
        # Gaps to the rollout's own reward: equal rewards give exactly zero.
        recalled = xp.take(xp.astype(rewards, dtype), query, axis=0)
        gap = xp.where(inside, recalled - batch.rewards[:, None], 0.0)
        mean = xp.sum(gap, axis=1) / at_least_one(number)
        squares = xp.sum(xp.where(inside, (gap - mean[:, None]) ** 2, 0.0), axis=1)
        scale = self.root(squares / at_least_one(number - self.ddof))
        alone = batch.rewards if self.singleton == "raw" else xp.zeros_like(batch.rewards)
        return xp.where(number == 1, alone, divided(-mean, scale)), (rewards, seen)
