"""KL-regularised policy iteration: success amplification as a one-dimensional recursion.

Convention: p is the success probability of the whole policy. Each round solves its regularised problem
exactly, so neither step size nor logit convention nor number of arms enters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

from theory.laws.arguments import Floats, Values, closed_unit, open_unit, positive, whole
from theory.refusal import Refusal

KINDS = ("reference", "mirror", "mean_only_reference", "mean_only_mirror")


def amplify(p: ArrayLike, p_ref: ArrayLike, beta: float, eps: float = 1e-6) -> Values:
    """h(p): success after one round of mean-std advantages at p and exact maximisation with KL to the reference.

        logit h(p) = logit p_ref + 1/(beta sqrt(p (1-p) + eps))

    The maximiser is pi(y) ~ pi_ref(y) exp(A(y)/beta), and A(correct) - A(wrong) = 1/sqrt(p (1-p) + eps).
    Arguments:
        p, p_ref: success probability of the policy that sampled, and of the reference.
        beta: strength of the KL term, in units of reward.
        eps: added to the reward variance, in squared units of reward.
    Source: arXiv 2503.06639; re-derived here from the maximisation.
    Valid when: endlessly many rollouts; the inner problem is solved to the end.
    """
    p = closed_unit("p", p)
    return expit(logit(open_unit("p_ref", p_ref)) + 1 / (positive("beta", beta) * np.sqrt(p * (1 - p) + eps)))


def slope(p: ArrayLike, p_ref: ArrayLike, beta: float, eps: float = 1e-6) -> Values:
    """h'(p) = h (1-h) (2p - 1) / (2 beta (p (1-p) + eps)^(3/2)); a fixed point is stable if |h'| < 1.

    At a fixed point, as eps -> 0, h' = -(1 - 2p*) (logit p* - logit p_ref)/2: a hard query whose odds would be lifted
    more than e^2 times overshoots, and the recursion cycles between two values or leaps over the upper threshold.
    Source: as `amplify`; the last line is derived for this project. Valid when: as `amplify`.
    """
    p, h = closed_unit("p", p), amplify(p, p_ref, beta, eps)
    return h * (1 - h) * (2 * p - 1) / (2 * beta * (p * (1 - p) + eps) ** 1.5)


def fixed_points(p_ref: float, beta: float, eps: float = 1e-6) -> Floats:
    """(N,) all p* = h(p*), ascending; every one lies above p_ref, and there is at least one.

    Their number is odd. For small eps there is one next to 1, alone if beta is small; for larger beta a lower one
    appears, which is where the recursion from p_ref ends (if `slope` is above -1 there), and a threshold between them.
    With beta sqrt(eps) large only the lower one is left. Also the stationary points of plain gradient ascent on the
    normalised reward minus beta KL(pi || pi_ref). Near 1 they may round to 1.
    Errors: Refusal for an argument out of range.
    Source: arXiv 2503.06639 (existence); the count is derived for this project. Valid when: eps > 0, as `amplify`.
    """
    start, reach = (
        logit(open_unit("p_ref", p_ref)),
        1 / (positive("beta", beta) * np.sqrt(positive("eps", eps))),
    )

    def excess(x: Any) -> Any:
        return x - start - 1 / (beta * np.sqrt(expit(x) * expit(-x) + eps))

    bend = np.linspace(-60, 60, 40001)  # beyond it the right side is constant
    grid = np.concatenate([[start], bend[(bend > start) & (bend < start + reach)], [start + reach + 1]])
    sign = excess(grid) > 0
    crossings = np.flatnonzero(sign[:-1] != sign[1:])
    return np.asarray(expit([brentq(excess, grid[i], grid[i + 1], xtol=1e-13) for i in crossings]))


def recursion(
    kind: str, p0: float, beta: float, rounds: int, p_ref: float | None = None, eps: float | None = None
) -> Floats:
    """(rounds + 1,) success probability after each round of regularised policy iteration.

        reference            logit p_n = logit p_ref + 1/(beta sigma_{n-1}),   sigma^2 = p (1-p) + eps
        mirror               logit p_n = logit p_{n-1} + 1/(beta sigma_{n-1})
        mean_only_reference  logit p_n = logit p_ref + 1/beta                  (one step, then still)
        mean_only_mirror     logit p_n = logit p_{n-1} + 1/beta                (a logistic curve in n)

    Arguments:
        kind: where the KL term points, and whether advantages are divided by their standard deviation.
        p0: success probability of the base policy.
        beta: as `amplify`.
        rounds: iterations.
        p_ref: reference of the two reference kinds; default p0.
        eps: as `amplify`, for the two kinds that divide; default 1e-6.
    Errors: Refusal for an unknown kind, or a p_ref or eps given to a kind that would ignore it.
    Source: arXiv 2503.06639; re-derived here. Valid when: as `amplify`.
    """
    if kind not in KINDS:
        raise Refusal(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if p_ref is not None and "mirror" in kind:
        raise Refusal(f"p_ref = {p_ref} is ignored by {kind}, whose reference is the last policy; drop it")
    if eps is not None and "mean_only" in kind:
        raise Refusal(f"eps = {eps} is ignored by {kind}, which divides by nothing; drop it")
    here, floor = float(logit(open_unit("p0", p0))), 1e-6 if eps is None else float(positive("eps", eps))
    anchor = here if p_ref is None else float(logit(open_unit("p_ref", p_ref)))
    path = [here]
    for _ in range(whole("rounds", rounds, 0)):
        variance = 1.0 if "mean_only" in kind else expit(here) * expit(-here) + floor
        here = (here if "mirror" in kind else anchor) + 1 / (
            float(positive("beta", beta)) * np.sqrt(variance)
        )
        path.append(here)
    return np.asarray(expit(path))
