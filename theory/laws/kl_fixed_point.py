"""Where a pull towards the reference policy stops learning: fixed points of reward against KL.

Convention: q is the correct mass and L its log-odds; geometry C as in `theory.laws.two_class` (1 single
logit, 2 two-arm softmax).
Three KL terms stop in three places: the natural-gradient pull below (our source), k3 in the loss as trainers have it,
and exact KL(pi || pi_ref), whose stationary points are those of `theory.laws.kl_recursion`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

from theory.laws.arguments import Floats, Values, open_unit, positive
from theory.laws.noisy_verifier import advantage_gap


def natural_pull(
    q: ArrayLike,
    q_ref: float,
    beta: float,
    eta: float,
    geometry: float = 1.0,
    false_negative: float = 0.0,
    false_positive: float = 0.0,
) -> Values:
    """dq/dt under the mean-std signal and a KL pull that is preconditioned (natural gradient).

        dq/dt = C eta (J/sigma) [q (1-q)]^2 - beta q (1-q) (L(q) - L(q_ref))

    Arguments:
        q, q_ref: correct mass now, and under the reference.
        beta: strength of the pull per update: eta is not in front of it.
        eta, geometry: step size, and C.
        false_negative, false_positive: the verifier's errors.
    Source: arXiv 2601.04411, eq. 18. Valid when: the KL term is preconditioned; plain gradient ascent with
        exact KL has [q (1-q)]^2 in both terms, and k3 in the loss is `k3_fixed_point`.
    """
    q = open_unit("q", q)
    learn = geometry * eta * advantage_gap(q, false_negative, false_positive) * (q * (1 - q)) ** 2
    return learn - positive("beta", beta) * q * (1 - q) * (logit(q) - logit(open_unit("q_ref", q_ref)))


def natural_fixed_points(
    q_ref: float,
    beta: float,
    eta: float,
    geometry: float = 1.0,
    false_negative: float = 0.0,
    false_positive: float = 0.0,
) -> Floats:
    """(N,) all interior q* with beta (L(q*) - L(q_ref)) = C eta (J/sigma) q* (1-q*), ascending.

    The first, third, ... are stable. With a clean verifier there is one for every q_ref if beta >= C eta / 8. Below
    that a hard query (q_ref << 1) can have three: one stuck near q_ref, one learnt, a threshold between them.
    Source: arXiv 2601.04411, eq. 19, which our notes call unique; the count is derived for this project: in
        q = sin^2(a) the right side changes by C eta sin(4a)/8 per unit of log-odds.
    Valid when: as `natural_pull`.
    """
    reference, edge = float(logit(open_unit("q_ref", q_ref))), 36.0

    def excess(x: Any) -> Any:
        return natural_pull(expit(x), q_ref, beta, eta, geometry, false_negative, false_positive)

    grid = np.unique(np.clip(np.append(np.linspace(-edge, edge, 20001), reference), -edge, edge))
    # Divided by q (1-q), so that rounding near the ends does not hide a sign.
    sign = np.sign(excess(grid) / (expit(grid) * expit(-grid)))
    crossings = np.flatnonzero(sign[:-1] * sign[1:] < 0)
    roots = [float(brentq(excess, grid[i], grid[i + 1], xtol=1e-14)) for i in crossings]  # type: ignore[arg-type]
    return np.asarray(expit(sorted([*roots, *grid[sign == 0]])))


def strong_pull(
    q_ref: ArrayLike,
    beta: ArrayLike,
    eta: float,
    geometry: float = 1.0,
    false_negative: float = 0.0,
    false_positive: float = 0.0,
) -> Values:
    """First order of that fixed point in 1/beta: q* = q_ref + (C eta / beta) (J/sigma(q_ref)) [q_ref (1-q_ref)]^2.

    Source: arXiv 2601.04411. Valid when: beta >> C eta; error O(beta^-2).
    """
    q = open_unit("q_ref", q_ref)
    gap = advantage_gap(q, false_negative, false_positive)
    return q + geometry * eta / positive("beta", beta) * gap * (q * (1 - q)) ** 2


def k3_fixed_point(q_ref: ArrayLike, beta: ArrayLike, youden: ArrayLike = 1.0) -> Values:
    """Where raw reward (or a mean baseline) and k3 in the loss balance: the root in (0, 1) of

        J q^2 + (beta - J) q - beta q_ref = 0

    Every arm keeps its share within its class. The expected k3 pull on a logit is beta (pi_ref - pi), that of the
    forward KL, so the balance depends neither on eta, nor on the number of arms, nor on the logit convention. A
    hard query (q_ref -> 0) is learnt up to 1 - beta/J, and not at all once beta > J: the size of the reward.
    Arguments:
        q_ref: correct mass of the reference policy.
        beta: coefficient of k3, in units of reward.
        youden: J of the verifier; 1 where it is clean.
    Source: derived for this project. Valid when: responses of one token, the reference fixed, expected update
        (eta -> 0), C irrelevant.
    """
    q, b, j = open_unit("q_ref", q_ref), positive("beta", beta), np.asarray(youden, dtype=np.float64)
    root = np.sqrt((b - j) ** 2 + 4 * j * b * q)
    safe = np.where(j > b, 2 * j, 1.0)
    # Two forms of one root: each avoids the other's cancellation.
    return np.where(j > b, (j - b + root) / safe, 2 * b * q / np.where(j > b, 1.0, b - j + root))
