"""Forests: queries whose responses are trees, with an overlap between queries to choose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import block_diag

from bandit_sim.arms.checks import Array, floats
from bandit_sim.arms.scored_tree import ScoredTree
from bandit_sim.arms.tree import TreeArms, is_identity, ordered
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree
from theory.trees.synthetic_tree import centred, overlap_kernel, synthetic_tree


def synthetic_forest(
    p0: ArrayLike,
    *,
    held_out: ArrayLike | None = None,
    batch: int = 1,
    overlap: float = 0.0,
    correct: int = 1,
    wrong: int,
    depth: int = 1,
    own: float = 1.0,
    within: float = 0.0,
    cross: float = 0.0,
    wrong_overlap: float = 0.0,
) -> TreeArms:
    """One `theory.trees.synthetic_tree.synthetic_tree` a query, all of one shape; edge e of every query is of one kind.

        phi_qe . phi_q'e' = [(1 - overlap) 1[q = q'] + overlap] kinds_ee',

    the kernel of features that have a part of the query's own and a part that all queries share, as in
    `bandit_sim.arms.contexts.Contexts`; scores are centred at every node. With depth 1 it is that bandit.

    Arguments:
        p0: (Q,) success probability of each training query.
        held_out: (H,) the same of the queries never trained on; none by default.
        batch: queries per round, drawn without replacement.
        overlap: share of features that all queries have in common, in [0, 1].
        correct, wrong, depth, own, within, cross, wrong_overlap: of every tree; they make `kinds`.
    Errors: Refusal naming the field; where no features have these overlaps, the least eigenvalue.
    Source: Contexts (arXiv 2601.22532) on trees, design of this project, section 2 (held-out queries).
    Valid when: queries are alike in their coupling; one overlap for every pair.
    """
    training, other = (np.atleast_1d(np.zeros(0) if x is None else floats(x)) for x in (p0, held_out))
    if not 0 <= overlap <= 1:
        raise Refusal(f"overlap = {overlap}; give a share in [0, 1]")
    trees = [
        synthetic_tree(p, correct=correct, wrong=wrong, depth=depth)
        for p in np.concatenate([training, other]).tolist()
    ]
    if not len(training):
        raise Refusal("p0 is empty; give a success probability for each training query")
    if overlap and len(trees) == 1:
        raise Refusal(
            f"overlap = {overlap} with one query changes nothing; leave it at 0, or give more queries"
        )
    tree = trees[0]
    right = np.arange(len(tree.node)) < depth - 1 + correct
    kinds = overlap_kernel(right, own=own, within=within, cross=cross, wrong=wrong_overlap)
    shared = (1 - overlap) * np.eye(len(trees)) + overlap
    node = np.concatenate([tree.node + (tree.node.max() + 1) * q for q, tree in enumerate(trees)])
    probability = np.concatenate([tree.probability for tree in trees])
    kernel = centred(np.kron(shared, kinds), node, probability)
    return forest(trees, kernel, training=len(training), batch=batch)


@overload
def forest(
    trees: Sequence[ResponseTree],
    kernel: ArrayLike | None = None,
    *,
    scores: None = None,
    share: float = 1.0,
    training: int,
    batch: int = 1,
    tokens: int | None = None,
) -> TreeArms: ...
@overload
def forest(
    trees: Sequence[ResponseTree],
    kernel: None = None,
    *,
    scores: ArrayLike,
    share: float = 1.0,
    training: int,
    batch: int = 1,
    tokens: int | None = None,
) -> ScoredTree: ...
def forest(
    trees: Sequence[ResponseTree],
    kernel: ArrayLike | None = None,
    *,
    scores: ArrayLike | None = None,
    share: float = 1.0,
    training: int,
    batch: int = 1,
    tokens: int | None = None,
) -> TreeArms | ScoredTree:
    """Trees of several queries as arms of one bandit, with a kernel over all their edges, or with their scores.

    A single training tree, and no other, gives what `TreeArms.from_tree` or `ScoredTree.from_tree` does of it.

    Arguments:
        trees: one per query, the training queries first.
        kernel: (E, E) inner products of the scores of all edges, tree by tree, each tree's in its own order, or the
            diagonal (E,); in its dtype everything is simulated. None: the trees' own, and nothing between them.
        scores: (E, P) in place of a kernel: the scores themselves, in the same order, for any optimiser.
        share: of all parameters, how many have scores.
        training: how many of the trees are trained on; the others are held out.
        batch: queries per round, drawn without replacement.
        tokens: tokens of the longest response; default that of these trees.
    Errors: Refusal where kernel or scores do not fit the trees.
    Source: design of this project, section 2. Valid when: see `theory.trees.response_tree.ResponseTree`.
    """
    if not 1 <= training <= len(trees):
        raise Refusal(f"training = {training} of {len(trees)} trees; give 1 to all of them")
    if scores is not None:
        if kernel is not None:
            raise Refusal("scores beside a kernel, which would not be read; give one of them")
        own, dtype = np.asarray(scores), trees[0].kernel.dtype
        bare = _joined(trees, np.zeros(sum(len(tree.node) for tree in trees), dtype), training, batch, tokens)
        if own.ndim != 2 or len(own) != len(bare.node):
            raise Refusal(
                f"scores has shape {own.shape}, the trees have {len(bare.node)} edges; give a row each"
            )
        return ScoredTree.of(bare, own[edge_order(trees)], share)
    if share != 1:
        raise Refusal(f"share = {share} without scores changes nothing; leave it out")
    return _joined(
        trees, _own_kernels(trees) if kernel is None else np.asarray(kernel), training, batch, tokens
    )


def edge_order(trees: Sequence[ResponseTree]) -> NDArray[np.integer]:
    """(E,) where each edge of a forest's arms stands in the trees' own order, tree by tree.

    `x[..., np.argsort(edge_order(trees))]` brings what is in the arms' order, as `displacement`, back to the trees'.
    """
    starts = np.cumsum([0, *(len(tree.node) for tree in trees)])
    return np.concatenate([start + tree.by_node for start, tree in zip(starts, trees, strict=False)])


def _own_kernels(trees: Sequence[ResponseTree]) -> NDArray[np.floating]:
    if all(tree.kernel.ndim == 1 for tree in trees):
        return np.concatenate([tree.kernel for tree in trees])
    return _blocks(np.diag(tree.kernel) if tree.kernel.ndim == 1 else tree.kernel for tree in trees)


def _joined(
    trees: Sequence[ResponseTree],
    kernel: NDArray[np.floating],
    training: int,
    batch: int,
    tokens: int | None,
) -> TreeArms:
    edges = sum(len(tree.node) for tree in trees)
    if kernel.shape not in ((edges, edges), (edges,)):
        raise Refusal(
            f"kernel has shape {kernel.shape}, the trees have {edges} edges; give ({edges}, {edges}) or ({edges},)"
        )
    longest = max(int(np.rint(tree.length.max())) for tree in trees) if tokens is None else tokens
    kernel = ordered(kernel, edge_order(trees))
    each = [TreeArms.from_tree(tree, longest) for tree in trees]
    if len(each) == 1:
        return replace(each[0], kernel=kernel, training=training, batch=batch)
    # A dense identity would cost memory and time; with a dense kernel it costs no more than that.
    bare = kernel.ndim == 1 and all(arms.path is None or is_identity(arms.path) for arms in each)
    nodes = np.cumsum([0, *(int(arms.node.max()) + 1 for arms in each)])
    joined = {
        name: np.concatenate([getattr(arms, name) for arms in each])
        for name in ("probability", "depth", "start", "span", "reward")
    }
    return replace(
        each[0],
        **joined,
        node=np.concatenate([arms.node + nodes[q] for q, arms in enumerate(each)]).astype(np.int32),
        path=None if bare else _paths(each),
        kernel=kernel,
        query=np.repeat(np.arange(len(each), dtype=np.int32), [len(arms.reward) for arms in each]),
        training=training,
        batch=batch,
    )


def _paths(each: Sequence[TreeArms]) -> NDArray[np.floating]:
    """(L, E) paths in the forest."""
    return _blocks(
        np.eye(len(arms.node), dtype=arms.kernel.dtype) if arms.path is None else arms.path for arms in each
    )


def _blocks(matrices: Iterable[Array]) -> NDArray[np.floating]:
    return np.asarray(block_diag(*matrices))
