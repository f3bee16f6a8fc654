"""What signals with memory share: one row of memory per query, group ids as query indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_jax_namespace
from jaxtyping import Bool, Int, Shaped

from theory.refusal import Refusal
from theory.rules.batch import SAMPLED, Array, Batch, Groups
from theory.rules.signals.base import Memory, SignalSpec

Row = Shaped[Array, "N"]
Index = Int[Array, "N"]
Held = Bool[Array, "R Q"]


class Remembering(SignalSpec):
    """A signal with memory per query: `batch.groups` are query indices 0..Q-1, Q = `queries` of `rule.init`."""

    def recall(self, memory: Memory) -> Memory:
        """The memory, or an error for a caller that gave none."""
        if not memory:
            raise Refusal(f"{self.name} has memory; pass the state that rule.init gave, and keep the new one")
        return memory

    def check(self, batch: Batch, memory: Memory) -> None:
        queries = self.recall(memory)[0].shape[0]
        groups = np.asarray(batch.groups.tolist())
        for i in np.flatnonzero((groups < 0) | (groups >= queries)):
            raise Refusal(
                f"batch.groups[{i}] = {groups[i]}; {self.name} remembers queries 0 to {queries - 1}: give query "
                f"indices as groups, and their number to rule.init"
            )


def zeros(xp: Any, shape: tuple[int, ...]) -> Array:
    """Zeros in float64, or in JAX's default float (a 32-bit run of JAX has no other)."""
    return xp.zeros(shape, dtype=None if is_jax_namespace(xp) else xp.float64)


def positions(like: Row) -> Index:
    """0, 1, 2, ... on the device of `like`; array-API `arange` would choose its own."""
    xp = array_namespace(like)
    return xp.cumulative_sum(xp.ones_like(like, dtype=xp.int32), dtype=xp.int32) - 1


def queries_of(batch: Batch, like: Row) -> tuple[Groups, Held]:
    """(R,) query index of each rollout, for `take`; (R, Q) whether rollout i is trained on and of query q."""
    xp = array_namespace(batch.rewards)
    index = xp.astype(batch.groups, xp.int32)
    held = (index[:, None] == positions(like)[None, :]) & batch.having(SAMPLED)[:, None]
    return xp.clip(index, 0, like.shape[0] - 1), held
