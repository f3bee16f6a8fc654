"""The tree kernel in mean field, and by how much the sequence kernel overshoots it.

Convention: one softmax per node, a response is a path of edges, f lives on edges and moves by eta K c with the tree's
kernel K, as `bandit_sim.TreeArms` has it. Over all rollouts of a round c_e = s_e - pi_e (sum of s over e's node), with
s_e the sum of pi(y) r(y) over the responses y through e: c = dp/df, so dp/dt = eta gap(p) c.K c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expi, softmax

from theory.laws.arguments import Floats, Values, open_unit, positive, whole
from theory.laws.kernel_flow import Gap, integrate
from theory.trees.response_tree import ResponseTree


def tree_flow(tree: ResponseTree, eta: float, times: ArrayLike, gap: Gap | None = None) -> Floats:
    """(T,) success at the ascending times (T,) of the tree's mean field: df/dt = eta gap(p) K c.

    Arguments:
        tree: probed, or `theory.trees.synthetic_tree`.
        eta: step size of rewards summed over a response's tokens (no length normalisation).
        times: in updates.
        gap: p -> E[A | correct] - E[A | wrong]; default 1, raw reward with or without a baseline.
    Source: design of this project. Valid when: eta -> 0, the network in its linear regime.
    """
    path, step = np.asarray(tree.path, dtype=np.float64), float(positive("eta", eta))
    _, slot = np.unique(tree.node, return_inverse=True)

    def push(_: float, f: Floats) -> Floats:
        pi = tree.leaf_probability(f)
        passed = (pi * tree.reward) @ path
        c = passed - np.exp(tree.edge_log_probability(f)) * np.bincount(slot, weights=passed)[slot]
        return step * (1.0 if gap is None else float(gap(pi @ tree.reward))) * (tree.kernel @ c)

    return np.array([tree.success(f) for f in integrate(push, len(tree.node), times)])


def chain_rate(p: ArrayLike, eta: float, coupling: float, depth: int | None) -> Values:
    """dp/dt = eta k p^2 (1 - p^(1/d))^2 of d alike tokens in a row that all must be right.

    Each token is right with probability s = p^(1/d), and its score shrinks like 1 - s: that is all that the rate
    knows of depth. d = 1 is the tabular p^2 (1-p)^2; d -> inf gives p^2 ln(p)^2 / d^2.
    Arguments:
        p: success probability.
        eta: step size.
        coupling: k, the sum over all pairs of tokens of the inner product of (feature of the right edge minus mean
            feature of the wrong ones); of the order d for unrelated tokens, d^2 for tokens that share features.
            With `depth` None, k/d^2.
        depth: d, or None for endlessly many tokens.
    Source: derived for this project. Valid when: tokens alike, wrong edges of a node even, mean field, raw reward.
    """
    q = open_unit("p", p)
    return positive("eta", eta) * coupling * q**2 * _missing(q, depth) ** 2


def chain_time(p: float, p0: float, eta: float, coupling: float, depth: int | None) -> float:
    """Updates from p0 to p on that chain: quadrature, or for endless depth [Ei(y) - e^y / y] at y = -ln p.

    Source, Valid when: as `chain_rate`.
    """
    speed = float(positive("eta", eta) * positive("coupling", coupling))
    if depth is None:
        start, end = -np.log(open_unit("p0", p0)), -np.log(open_unit("p", p))
        clock = lambda y: expi(y) - np.exp(y) / y  # noqa: E731
        return float(clock(start) - clock(end)) / speed
    return float(quad(lambda q: 1 / chain_rate(q, speed, 1.0, depth), p0, p, epsrel=1e-9)[0])


def overshoot(p: ArrayLike, p0: float, depth: int) -> Values:
    """Speed of the sequence kernel over that of the tree kernel at the same p, on a chain; 1 at p0.

        [ (d(1-s0) - E_pi n) / (d (1 - p^(1/d))) ]^2,   n(y) = m (1-s0) - s0 for a response that strays at token m,
        d (1-s0) for the right one,   pi ~ pi0 exp(n z),  z such that pi(right) = p

    A tilt of whole responses keeps pushing at tokens that are certain by now, with the scores 1-s0 of the base model;
    in the tree each token's score is 1-s. It depends on depth and on how far p has come, not on the kernel.
    From p0 = .05 to p = 1/2: 1 for one token, 1.40 for two, 2.43 for eight.
    Arguments:
        p: (N,) success probability, above p0.
        p0: at the start.
        depth: d.
    Source: derived for this project. Valid when: as `chain_rate`, tokens sharing their features (for unrelated
        tokens the early ones of a tilt run ahead).
    """
    s0, z_of = open_unit("p0", p0) ** (1 / whole("depth", depth, 1)), np.atleast_1d(open_unit("p", p))
    strays = np.arange(depth)
    score = np.append(strays * (1 - s0) - s0, depth * (1 - s0))
    base = np.append(strays * np.log(s0) + np.log1p(-s0), depth * np.log(s0))
    z = np.array([brentq(lambda z, q=q: softmax(base + score * z)[-1] - q, -1, 200) for q in z_of])
    tilted = score[-1] - softmax(base + score * z[:, None], axis=1) @ score
    ratio = (tilted / (depth * _missing(z_of, depth))) ** 2
    return ratio if np.ndim(p) else ratio[0]


def _missing(p: Values, depth: int | None) -> Values:
    """1 - p^(1/d), or -ln p for endless depth: the limit of d times that."""
    return -np.log(p) if depth is None else -np.expm1(np.log(p) / whole("depth", depth, 1))
