"""Softmax policy gradient with the exact gradient: how fast it converges, and how long a wrong corner holds it.

Convention: one logit per arm, rewards r (K,) in [0, 1], theta <- theta + eta pi (r - pi.r); gap = r(a*) - pi.r.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from theory.laws.arguments import Floats, Values, open_unit, positive, whole

STEP = 2 / 5
"""Step size of the bounds: the objective is 5/2-smooth."""


def ascent(theta: ArrayLike, reward: ArrayLike, eta: float, steps: int) -> Floats:
    """(steps + 1, K) policies of exact gradient ascent from logits (K,) on rewards (K,); the instance of the bounds."""
    logits, r = np.array(theta, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    policies = np.empty((whole("steps", steps, 0) + 1, len(r)))
    for t in range(steps + 1):
        pi = policies[t] = softmax(logits)
        logits = logits + eta * pi * (r - pi @ r)
    return policies


def upper_bound(steps: ArrayLike, least: ArrayLike) -> Values:
    """gap_t <= 5 / (c^2 t) at eta = 2/5, where c = inf_t pi_t(a*); from even logits c = 1/K, so 5 K^2 / t.

    Arguments:
        steps: t >= 1.
        least: c; pi_0(a*) where the best arm never loses probability.
    Source: arXiv 2005.06392, theorem 2, its constants from memory; held against random instances here, which come
        no nearer than a quarter of it: the constant is loose, the exponent is exact.
    Valid when: unique best arm, eta = 2/5.
    """
    return 5 / (open_unit("least", least) ** 2 * positive("steps", steps))


def cumulative_bound(steps: ArrayLike, least: ArrayLike) -> Values:
    """sum_{t <= T} gap_t <= min( sqrt(5 T)/c, 5 log(T)/c^2 + 1 ).

    Source, Valid when: as `upper_bound`, T >= 2.
    """
    t, c = positive("steps", steps), open_unit("least", least)
    return np.minimum(np.sqrt(5 * t) / c, 5 * np.log(t) / c**2 + 1)


def lower_bound(steps: ArrayLike, distance: ArrayLike) -> Values:
    """gap_t >= Delta^2 / (6 t) for large t and eta in (0, 1], Delta = best reward minus second best.

    Source: arXiv 2005.06392, its constant from memory; held against instances here.
    Valid when: t large enough; one instance starts below it, at a policy that is nearly optimal already.
    """
    return positive("distance", distance) ** 2 / (6 * positive("steps", steps))


def late_gap(steps: ArrayLike, eta: float, wrong: int = 1) -> Values:
    """gap_t -> M / ((M + 1) eta t) with M equal wrong arms: the constant that the two bounds enclose.

        d(1 - p)/dt = -eta Delta (1 + 1/M) p^2 (1-p)^2,  gap = Delta (1 - p):  Delta drops out

    Source: derived for this project. Valid when: t -> inf, wrong arms equally good and equally likely.
    """
    return 1 / (positive("eta", eta) * (1 + 1 / whole("wrong", wrong, 1)) * positive("steps", steps))


def corner_time(
    best: ArrayLike, distance: float, eta: float, worse: ArrayLike = 0.0, deficit: float = 1.0
) -> Values:
    """Updates that a policy spends in a wrong corner before the best arm takes over.

        T = 1/(2 eta Delta pi_1) [ 1 + (delta / (3 Delta)) pi_3 / pi_1 ]

    The corner's arm 2 has nearly all the mass and reward r_2; arm 1 is better by Delta, arm 3 worse by delta. With
    y = 1/pi_1 and u = 1/pi_3:  dy/dt = -2 eta Delta + eta delta y/u,  du/dt = 2 eta delta - eta Delta u/y, whose
    solution is y = A z^2/(Delta + delta z)^3 in z = y/u. Arm 3 reinforces the corner as it is unlearned, so pi_1
    first falls: the time grows from 1/pi_1 to 1/pi_1^2, that is exp(2 x) in the logit distance x of the best arm.
    A chain of such corners squares again and again: the mechanism by which softmax policy gradient can take
    exponential time.
    Arguments:
        best: pi_1 at the start.
        distance: Delta.
        eta: step size.
        worse: pi_3 at the start; 0 without such an arm.
        deficit: delta.
    Source: derived for this project; the effect is Li et al. (Math. Prog. 2023) and arXiv 2605.11908, of which only
        abstracts were read.
    Valid when: pi_1, pi_3 << 1, mean field.
    """
    first = open_unit("best", best)
    alone = 1 / (2 * positive("eta", eta) * positive("distance", distance) * first)
    return alone * (1 + deficit / (3 * distance) * np.asarray(worse, dtype=np.float64) / first)
