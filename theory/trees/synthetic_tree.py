"""Response trees made up rather than measured: the overlap of correct and wrong responses is a knob."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree

Floats = NDArray[np.float64]


def check_gram(name: str, kernel: NDArray[np.floating]) -> None:
    """Reject what no features have as inner products.

    Errors: Refusal naming the kernel, and its least eigenvalue where that is what is wrong.
    """
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise Refusal(f"{name} has shape {kernel.shape}; give a square matrix")
    if not np.all(np.isfinite(kernel)) or np.any(np.abs(kernel - kernel.T) > 1e-6 * np.abs(kernel).max()):
        raise Refusal(f"{name} is not finite and symmetric; give inner products of features")
    least, largest = np.linalg.eigvalsh(kernel.astype(np.float64))[[0, -1]]
    if least < -1e-6 * max(largest, 1e-300):
        raise Refusal(
            f"{name} has an eigenvalue of {least:.3g}, so that no features have these inner products; lower the "
            "overlap of correct with wrong responses (cross^2 <= within * wrong always does)"
        )


def overlap_kernel(
    right: ArrayLike,
    *,
    own: float = 1.0,
    within: float = 0.0,
    cross: float = 0.0,
    wrong: float = 0.0,
    near: int | None = None,
) -> Floats:
    """(E, E) inner products of features: own 1[e = e'] + one number for each pair of classes.

    Arguments:
        right: (E,) true where correct.
        own: of the features that an item shares with none, >= 0.
        within: of what correct items have in common.
        cross: of a correct item with a near wrong one.
        wrong: of what near wrong items have in common.
        near: how many wrong items (the first ones) share features with others; default all.
    Errors: Refusal where no features have these inner products.
    """
    good = np.asarray(right, bool)
    bad = np.cumsum(~good)
    near = int((~good).sum()) if near is None else near
    if not 0 <= near <= (~good).sum():
        raise Refusal(f"near = {near} of {(~good).sum()} wrong responses; give 0 to all of them")
    if near == 0 and (cross or wrong):
        raise Refusal(f"cross = {cross} and wrong = {wrong} change nothing with near = 0; leave them out")
    close = ~good & (bad <= near)
    kernel = within * np.outer(good, good) + wrong * np.outer(close, close)
    kernel = kernel + cross * (np.outer(good, close) + np.outer(close, good))
    kernel = kernel + own * np.eye(len(good))
    check_gram("kernel", kernel)
    return kernel


def centred(kernel: ArrayLike, node: ArrayLike, probability: ArrayLike) -> Floats:
    """(E, E) kernel of the scores g_e = phi_e - sum_v pi_v phi_v over e's node, from that of the features phi.

    With M = I - 1 pi^T in the block of every node, it is M K M^T. Softmax policies see only the centred kernel.
    """
    nodes, pi = np.asarray(node), np.asarray(probability, np.float64)
    mean = np.eye(len(pi)) - (nodes[:, None] == nodes[None, :]) * pi[None, :]
    return mean @ np.asarray(kernel, np.float64) @ mean.T


def tabular_kernel(node: ArrayLike, probability: ArrayLike) -> Floats:
    """(E, E) kernel of free logits at every node: blocks (I - 1 pi^T)(I - pi 1^T), nothing between nodes.

    The score of edge v with respect to its node's logits is g_v = 1_v - pi, so g_v.g_u = 1[v = u] - pi_u - pi_v
    + |pi|^2 with the base pi. A push c sums to zero at every node, and then K c = c - 1 (pi.c): the tabular step
    up to a shift of each node's logits, at whatever policy. So the tree kernel is exact here.
    """
    return centred(np.eye(len(np.asarray(node))), node, probability)


def synthetic_tree(
    p0: float,
    *,
    correct: int = 1,
    wrong: int,
    depth: int = 1,
    own: float = 1.0,
    within: float = 0.0,
    cross: float = 0.0,
    wrong_overlap: float = 0.0,
    near: int | None = None,
) -> ResponseTree:
    """A tree in which every token can go wrong: at each of `depth` prefixes some edges leave for a wrong response.

    Correct responses go on at every prefix with chance p0^(1/depth) and part at the last token; wrong response
    j strays at token j mod depth and ends there. With depth 1 a response is one edge. Edges have features with
    the overlaps given, and the kernel is that of the scores, centred at every node.

    Arguments:
        p0: success probability of the base policy.
        correct, wrong: how many responses; wrong >= depth.
        depth: tokens of a correct response.
        own: square of the features that an edge shares with none, in nats per unit of eta times weight.
        within: overlap of edges of correct responses.
        cross: overlap of such an edge with one that goes wrong.
        wrong_overlap: overlap of edges that go wrong.
        near: how many wrong responses (the first) overlap with others at all; default all.
    Errors: Refusal naming the field; where no features have these overlaps, the least eigenvalue.
    Source: design of this project, section 2 (kcc and kcw of measured trees).
    Valid when: as `ResponseTree`.
    """
    if not 0 < p0 < 1:
        raise Refusal(f"p0 = {p0}; give a success probability strictly between 0 and 1")
    if correct < 1 or depth < 1 or wrong < depth:
        raise Refusal(
            f"correct = {correct}, wrong = {wrong}, depth = {depth}; give at least one correct response and one "
            "wrong response per token"
        )
    strays = np.arange(wrong) % depth
    node = np.concatenate([np.arange(depth - 1), np.full(correct, depth - 1), strays])
    right = np.arange(len(node)) < depth - 1 + correct
    stay = p0 ** (1 / depth)
    leaves_at = np.bincount(strays, minlength=depth)
    probability = np.concatenate(
        [np.full(depth - 1, stay), np.full(correct, stay / correct), (1 - stay) / leaves_at[strays]]
    )
    path = np.zeros((correct + wrong, len(node)), np.int8)
    path[np.arange(correct + wrong), np.arange(depth - 1, len(node))] = 1
    passed = np.concatenate([np.full(correct, depth - 1), strays])
    path[:, : depth - 1] = np.arange(depth - 1) < passed[:, None]
    kernel = overlap_kernel(right, own=own, within=within, cross=cross, wrong=wrong_overlap, near=near)
    return ResponseTree(
        node=node,
        probability=probability,
        path=path,
        reward=np.concatenate([np.ones(correct), np.zeros(wrong)]),
        depth=node.copy(),
        length=passed + 1.0,
        kernel=centred(kernel, node, probability),
    )
