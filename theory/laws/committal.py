"""Commitment: the chance that a policy pulls one arm for ever, and what a baseline does to it.

Convention: p is the probability of the arm that is pulled, x = logit p against the other arms taken together; pulls
are all of that arm, so p after m of them is a fixed sequence, and the chance that the streak lasts is the product of
its p. A streak survives for ever only if sum (1 - p_m) converges: 1 - p must fall faster than 1/m.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from theory.laws.arguments import Floats, Values, open_unit, positive, whole

Gradient = Literal["softmax", "natural"]


def streak(
    p0: float,
    eta: float,
    pulls: int,
    advantage: float,
    *,
    value: bool = False,
    gradient: Gradient = "natural",
    geometry: float = 1.0,
) -> Floats:
    """(pulls + 1,) probability of the arm after 0, 1, ... pulls of it and of nothing else.

        natural: x += eta A / p        softmax: x += C eta A (1 - p)

    A is the advantage that the arm is given, times (1 - p) under a value baseline: r - V = (1 - p)(r - mean of the
    others), which vanishes as the policy commits.
    Arguments:
        p0: probability at the start.
        eta: step size.
        pulls: length of the streak.
        advantage: r - b for a fixed baseline b; r minus the mean of the others with `value`. A reward without
            baseline is a fixed one of 0.
        value: whether the baseline is the policy's value.
        gradient: natural divides by the probability (theta_a += eta A/pi_a), softmax is theta += eta A (e_a - pi).
        geometry: C of softmax, 1 + 1/(other arms).
    Errors: Refusal for a value out of range.
    Source: recursions of arXiv 2301.06276 and 2008.13773, in one logit.
    Valid when: the other arms keep their proportions (even arms); one pull a round, no noise in the reward.
    """
    x, path = float(logit(open_unit("p0", p0))), np.empty(whole("pulls", pulls, 0) + 1)
    step = float(positive("eta", eta)) * advantage
    for m in range(pulls + 1):
        p, rest = expit(x), expit(-x)
        path[m] = p
        x += step * (rest if value else 1.0) * (1 / p if gradient == "natural" else geometry * rest)
    return path


def survival(path: ArrayLike) -> Floats:
    """(M,) probability that the first 1, 2, ... pulls are all of the arm: the running product of its probabilities.

    Source: elementary. Valid when: `path` is the probability before each pull, as `streak` gives it.
    """
    return np.exp(np.cumsum(np.log(positive("path", path))))


def commits_for_ever(p0: float, eta: float, advantage: float) -> float:
    """Probability that natural gradient with a fixed baseline b < r pulls one arm for ever, from the first round on.

        prod_m p_m,  x_{m+1} = x_m + eta (r - b)/p_m:  1 - p falls like exp(-eta (r - b) m), so the product is positive

    So a suboptimal arm is taken for good with positive probability at any step size ("committal" for a low baseline);
    with b > r the arm is left again. With a value baseline, and for softmax policy gradient, the product is zero.
    Source: arXiv 2008.13773 and 2301.06276; this product derived for this project.
    Valid when: as `streak`; r > b. It is a lower bound of the probability to commit at any later time.
    """
    pulls = int(60 / (eta * advantage)) + 60  # beyond, 1 - p is below the last digit of p
    path = streak(p0, float(positive("eta", eta)), pulls, float(positive("advantage", advantage)))
    return float(np.prod(path))


def damped_failure(pulls: ArrayLike, eta: float, advantage: float, geometry: float = 1.0) -> Values:
    """1 - p ~ 1/(C eta A m) after m pulls where the increments vanish with 1 - p: theta = O(log m).

    A value baseline under the natural gradient (C = 1), or plain softmax policy gradient: exactly the boundary, 1/m,
    between an arm that is left again with certainty and one that may not be.
    Source: arXiv 2301.06276, its orders; constant derived for this project. Valid when: m -> inf, as `streak`.
    """
    return 1 / (positive("eta", eta) * positive("advantage", advantage) * geometry * positive("pulls", pulls))


def damped_exponent(eta: float, advantage: float, geometry: float = 1.0) -> float:
    """alpha in: a damped streak survives m pulls with probability ~ m^(-alpha), alpha = 1/(C eta A).

    Slow, not impossible: at a large step a wrong arm is kept for a long time with large probability, and its mean
    duration is infinite for alpha <= 1.
    Source: derived for this project, from prod (1 - alpha/m). Valid when: as `damped_failure`.
    """
    return float(1 / (positive("eta", eta) * positive("advantage", advantage) * geometry))
