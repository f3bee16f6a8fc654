"""The leaves of a response tree, whose edges share parameters by a kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import NDArray

from bandit_sim.arms.checks import Array, check_flip, check_reward, concrete
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree


@register_dataclass
@dataclass(frozen=True)
class TreeArms:
    """The leaves of a response tree, pulled edge by edge; see `theory.trees.response_tree.ResponseTree`.

    Arguments (E edges, L leaves, T tokens of the longest response):
        probability: (E,) base probability of the edge at its node.
        node: (E,) node index from 0, ascending.
        depth: (E,) token position of the edge's first token.
        path: (L, E) 1 where the edge lies on the leaf's path; None where leaf i is edge i and no other.
        start: (L, T) depth of the edges that carry token t of the leaf.
        span: (L, T) how many tokens of the leaf they carry; 0 beyond the response's end.
        reward: (L,) reward of the leaf.
        kernel: (E, E) inner products of the edges' scores; or its diagonal (E,), where no two share anything.
        flip: (L,) chance that noisy pay misjudges the leaf; None is 0 for all.
        query: (L,) the query that the leaf answers, of a forest with a tree for each, training queries first;
            None is one query.
        training: queries trained on; the others are held out.
        batch: queries per round, drawn without replacement.
    Errors: Refusal naming the leaf or the batch.
    Valid when: a tail's tokens are alike: each has an equal share of its log-probability, and the tail moves
        with their mean weight.
    """

    probability: Array
    node: Array
    depth: Array
    path: Array | None
    start: Array
    span: Array
    reward: Array
    kernel: Array
    flip: Array | None = None
    query: Array | None = None
    training: int = field(default=1, metadata={"static": True})
    batch: int = field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if concrete(self.reward):
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            if not 1 <= self.batch <= self.training:
                raise Refusal(
                    f"batch = {self.batch} of {self.training} training queries; give 1 to all of them"
                )

    @classmethod
    def from_tree(cls, tree: ResponseTree, tokens: int | None = None) -> TreeArms:
        """Lay a tree out by tokens, in the kernel's dtype; lengths are rounded to whole tokens.

        `tokens` fixes T (default: the longest response), so that trees of equal shape share one compilation.
        """
        order = tree.by_node
        _, node = np.unique(tree.node[order], return_inverse=True)
        path, depth = np.asarray(tree.path)[:, order] > 0, tree.depth[order]
        if np.any(~path.any(axis=1)):
            raise Refusal(f"leaf {np.argmin(path.any(axis=1))} has no edge on its path")
        first_of_last = np.where(path, depth, -1).max(axis=1)
        length = np.maximum(np.rint(tree.length).astype(np.int64), first_of_last + 1)
        tokens = int(length.max()) if tokens is None else tokens
        if tokens < length.max():
            raise Refusal(f"tokens = {tokens}, but a response has {length.max()}; give at least that many")
        start = np.zeros((len(path), tokens), dtype=np.int32)
        span = np.zeros((len(path), tokens), dtype=np.int32)
        for leaf, on_path in enumerate(path):
            starts = np.unique(
                depth[on_path]
            )  # edges of one depth (a rest, then its class) carry the same tokens
            if starts[0] != 0:
                raise Refusal(f"leaf {leaf}: its first edge has depth {starts[0]}, expected 0")
            counts = np.diff(np.append(starts, length[leaf]))
            start[leaf, : length[leaf]] = np.repeat(starts, counts)
            span[leaf, : length[leaf]] = np.repeat(counts, counts)
        dtype = tree.kernel.dtype
        return cls(
            probability=np.asarray(tree.probability[order], dtype),
            node=node.astype(np.int32),
            depth=depth.astype(np.int32),
            path=None if tree.kernel.ndim == 1 and is_identity(path) else path.astype(dtype),
            start=start,
            span=span,
            reward=np.asarray(tree.reward, dtype),
            kernel=ordered(tree.kernel, order),
        )


def ordered(kernel: NDArray[np.floating], order: NDArray[np.integer]) -> NDArray[np.floating]:
    """A kernel (E, E), or its diagonal (E,), with its edges in another order."""
    return kernel[order] if kernel.ndim == 1 else kernel[np.ix_(order, order)]


def is_identity(path: NDArray[Any]) -> bool:
    """Whether leaf i is edge i and no other: a path that need not be held."""
    return path.shape[0] == path.shape[1] and bool(np.array_equal(path, np.eye(len(path))))
