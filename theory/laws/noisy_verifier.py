"""A verifier that errs: the Youden index decides between learning and unlearning, and sets the tails.

Convention: q is the correct mass, rho the probability of being paid; the single logit q = sigmoid(x) has
geometry C = 1, the two-arm softmax C = 2 (`theory.laws.two_class`). Our source writes p = 1 - q.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.laws.arguments import Values, closed_unit, open_unit, positive
from theory.laws.finite_group import kappa
from theory.refusal import Refusal


def youden(false_negative: ArrayLike, false_positive: ArrayLike) -> Values:
    """J = 1 - delta_FN - delta_FP = true-positive minus false-positive rate: > 0 learns, 0 drifts, < 0 unlearns."""
    return 1 - closed_unit("false_negative", false_negative) - closed_unit("false_positive", false_positive)


def paid(q: ArrayLike, false_negative: ArrayLike, false_positive: ArrayLike) -> Values:
    """Probability that a rollout is paid: rho = delta_FP + J q."""
    return closed_unit("false_positive", false_positive) + youden(
        false_negative, false_positive
    ) * closed_unit("q", q)


def advantage_gap(
    q: ArrayLike,
    false_negative: ArrayLike = 0.0,
    false_positive: ArrayLike = 0.0,
    normalised: bool = True,
    rollouts: int | None = None,
) -> Values:
    """E[A | correct] - E[A | wrong] under verifier noise.

        raw, mean baselines J;  mean-std J/sqrt(rho (1-rho)), with groups of G: J kappa_G(rho)

    The drift of the logit of success is D = q (1-q) times this; the sign is that of J at every q.
    Arguments:
        q: correct mass.
        false_negative, false_positive: probabilities that a correct, a wrong response is misjudged.
        normalised: the mean-std signal; False: raw reward or a mean baseline.
        rollouts: group size of the mean-std signal, ddof 1; None for endlessly many.
    Source: arXiv 2601.04411, eqs. 5 and 6; finite groups derived for this project.
    Valid when: errors independent of the response within its class, and of each other.
    """
    q = open_unit("q", q)
    index, rho = youden(false_negative, false_positive), paid(q, false_negative, false_positive)
    if not normalised:
        return index + 0 * q
    return index * (1 / np.sqrt(rho * (1 - rho)) if rollouts is None else kappa(rho, rollouts))


def tail(
    times: ArrayLike,
    eta: float,
    false_negative: float = 0.0,
    false_positive: float = 0.0,
    geometry: float = 1.0,
) -> Values:
    """Leading order, for t -> inf, of the mass that is still to go under the mean-std signal.

        J > 0: 1 - q ~ s/(C eta J t),   s^2 = delta_FN (1 - delta_FN);  4/((C eta)^2 J t^2)   if delta_FN = 0
        J < 0:     q ~ s/(C eta |J| t), s^2 = delta_FP (1 - delta_FP);  4/((C eta)^2 |J| t^2) if delta_FP = 1

    So false negatives, however rare, change the exponent: the advantage no longer grows as failures get rare.
    Errors: Refusal at J = 0, where nothing moves.
    Source: arXiv 2601.04411 (delta_FP = 1 added). Valid when: mean field, endlessly many rollouts, constant C.
    """
    index = float(youden(false_negative, false_positive))
    if index == 0:
        raise Refusal("false_negative + false_positive = 1 makes J = 0: nothing moves; change one of them")
    rate = false_negative if index > 0 else false_positive
    sigma = np.sqrt(rate * (1 - rate))
    reach = positive("geometry", geometry) * positive("eta", eta) * positive("times", times)
    return sigma / (abs(index) * reach) if sigma > 0 else 4 / (abs(index) * reach**2)
