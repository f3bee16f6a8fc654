"""Forests: queries whose responses are trees, with an overlap between queries to choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from bandit_sim._checks import floats
from bandit_sim.arms import TreeArms
from theory.synthetic_tree import centred, overlap_kernel, synthetic_tree


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
    """One `theory.synthetic_tree.synthetic_tree` a query, all of one shape; edge e of every query is of one kind.

        phi_qe . phi_q'e' = [(1 - overlap) 1[q = q'] + overlap] kinds_ee',

    the kernel of features that have a part of the query's own and a part that all queries share, as in
    `bandit_sim.contexts.Contexts`; scores are centred at every node. With depth 1 it is that bandit.

    Arguments:
        p0: (Q,) success probability of each training query.
        held_out: (H,) the same of the queries never trained on; none by default.
        batch: queries per round, drawn without replacement.
        overlap: share of features that all queries have in common, in [0, 1].
        correct, wrong, depth, own, within, cross, wrong_overlap: of every tree; they make `kinds`.
    Errors: ValueError naming the field; where no features have these overlaps, the least eigenvalue.
    Source: Contexts (arXiv 2601.22532) on trees, design of this project, section 2 (held-out queries).
    Valid when: queries are alike in their coupling; one overlap for every pair.
    """
    training, other = (np.atleast_1d(np.zeros(0) if x is None else floats(x)) for x in (p0, held_out))
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap = {overlap}; give a share in [0, 1]")
    trees = [
        synthetic_tree(p, correct=correct, wrong=wrong, depth=depth)
        for p in np.concatenate([training, other]).tolist()
    ]
    if not len(training):
        raise ValueError("p0 is empty; give a success probability for each training query")
    if overlap and len(trees) == 1:
        raise ValueError(
            f"overlap = {overlap} with one query changes nothing; leave it at 0, or give more queries"
        )
    each = [TreeArms.from_tree(tree) for tree in trees]
    order = np.argsort(trees[0].node, kind="stable")  # that of `TreeArms`, the same for every query
    right = np.arange(len(order)) < depth - 1 + correct
    kinds = overlap_kernel(right, own=own, within=within, cross=cross, wrong=wrong_overlap)[
        np.ix_(order, order)
    ]
    nodes = int(each[0].node.max()) + 1
    node = np.concatenate([tree.node + nodes * q for q, tree in enumerate(each)])
    probability = np.concatenate([tree.probability for tree in each])
    shared = (1 - overlap) * np.eye(len(each)) + overlap
    joined = {
        name: np.concatenate([getattr(tree, name) for tree in each])
        for name in ("depth", "start", "span", "reward")
    }
    return replace(
        each[0],
        **joined,
        node=node.astype(np.int32),
        probability=probability,
        path=block_diag(*(tree.path for tree in each)),
        kernel=centred(np.kron(shared, kinds), node, probability),
        query=np.repeat(np.arange(len(each), dtype=np.int32), len(each[0].reward)),
        training=len(training),
        batch=batch,
    )
