"""Forests: queries whose responses are trees, with an overlap between queries to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from bandit_sim.arms.arms import TreeArms
from bandit_sim.arms.checks import floats
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


def forest(
    trees: Sequence[ResponseTree],
    kernel: ArrayLike,
    *,
    training: int,
    batch: int = 1,
    tokens: int | None = None,
) -> TreeArms:
    """Trees of several queries as arms of one bandit, with a kernel over all their edges.

    Arguments:
        trees: one per query, the training queries first.
        kernel: (E, E) inner products of the scores of all edges, tree by tree, each tree's in its own order; in
            its dtype everything is simulated.
        training: how many of the trees are trained on; the others are held out.
        batch: queries per round, drawn without replacement.
        tokens: tokens of the longest response; default that of these trees.
    Errors: Refusal where the kernel does not fit the trees.
    Source: design of this project, section 2. Valid when: see `theory.trees.response_tree.ResponseTree`.
    """
    whole = np.asarray(kernel)
    edges = sum(len(tree.node) for tree in trees)
    if whole.shape != (edges, edges):
        raise Refusal(
            f"kernel has shape {whole.shape}, the trees have {edges} edges; give ({edges}, {edges})"
        )
    longest = max(int(np.rint(tree.length.max())) for tree in trees) if tokens is None else tokens
    each = [TreeArms.from_tree(tree, longest) for tree in trees]
    starts = np.cumsum([0, *(len(tree.node) for tree in trees)])
    nodes = np.cumsum([0, *(int(arms.node.max()) + 1 for arms in each)])
    order = np.concatenate([start + tree.by_node for start, tree in zip(starts, trees, strict=False)])
    joined = {
        name: np.concatenate([getattr(arms, name) for arms in each])
        for name in ("probability", "depth", "start", "span", "reward")
    }
    return replace(
        each[0],
        **joined,
        node=np.concatenate([arms.node + nodes[q] for q, arms in enumerate(each)]).astype(np.int32),
        path=block_diag(*(arms.path for arms in each)),
        kernel=whole[np.ix_(order, order)],
        query=np.repeat(np.arange(len(each), dtype=np.int32), [len(arms.reward) for arms in each]),
        training=training,
        batch=batch,
    )
