"""Many arms in mean field: who wins within the classes, and how that feeds back on the success probability.

Convention: one logit per arm, as `bandit_sim.Arms`: dtheta_a/dt = eta pi_a (f_a - mean f), f = E[A | class].
With q the correct mass, y and z the shares within the correct and the wrong class, dtau = eta gap(q) q (1-q) dt,

    dy/dtau = y (y - |y|^2),   dz/dtau = -z (z - |z|^2),   d logit(q)/dtau = |y|^2 + |z|^2

gap(q) = E[A | correct] - E[A | wrong]: 1 for raw reward, 1/sqrt(q (1-q)) or kappa_G(q) for mean-std, times the Youden
index J for a noisy verifier. One arm per class gives |y|^2 + |z|^2 = 2, the two-arm softmax of `theory.laws.two_class`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.special import expit, logit, logsumexp, softmax

from theory.laws.arguments import Floats, Values, open_unit, positive, shares
from theory.refusal import Refusal


class Path(NamedTuple):
    """The mean-field path over T times: q, the clock tau, |y|^2 and |z|^2, each (T,)."""

    success: Floats
    tau: Floats
    concentration: Floats
    wrong_concentration: Floats


def winner_takes_all(start: ArrayLike, tau: ArrayLike) -> Floats:
    """(T, K) shares at tau (T,) of the class that is pushed up: dy/dtau = y (y - |y|^2), in closed form.

        y_j ~ y_j(0) / (1 - s y_j(0)),   tau = - sum_j log(1 - s y_j(0)),   s < 1/max y(0)

    The largest share goes to one, so correct responses lose their diversity. The class that is pushed down follows
    the same curve backwards, `winner_takes_all(z0, -tau)`, towards equal shares; with J < 0 the classes exchange roles.
    Arguments:
        start: (K,) shares at tau = 0, summing to 1.
        tau: the clock, any sign.
    Source: the flow is arXiv 2601.04411; its closed form is derived for this project.
    Valid when: mean field (eta -> 0), f equal within the class.
    """
    y0 = shares("start", start)
    logs = np.log(y0) - _log_denominator(y0, np.atleast_1d(np.asarray(tau, dtype=np.float64)))
    return softmax(logs, axis=1)


def logit_gain(correct: ArrayLike, wrong: ArrayLike, tau: ArrayLike) -> Floats:
    """(T,) logit q(tau) - logit q(0) = integral of |y|^2 + |z|^2, in closed form.

        log sum_j y_j(0)/(1 - s y_j(0)) - log sum_j z_j(0)/(1 + r z_j(0)),   tau = sum_j log(1 + r z_j(0))

    Arguments:
        correct, wrong: (K,), (M,) shares within the classes at tau = 0.
        tau: the clock.
    Source: derived for this project. Valid when: as `winner_takes_all`.
    """
    y0, z0 = shares("correct", correct), shares("wrong", wrong)
    clock = np.atleast_1d(np.asarray(tau, dtype=np.float64))
    up = np.asarray(logsumexp(np.log(y0) - _log_denominator(y0, clock), axis=1))
    down = np.asarray(logsumexp(np.log(z0) - _log_denominator(z0, -clock), axis=1))
    return up - down


def near_uniform_gain(correct: ArrayLike, wrong: ArrayLike, tau: ArrayLike) -> Floats:
    """(T,) the same to first order in the unevenness of the shares.

        (1/K + 1/M) tau + (K/2) zeta (e^(2 tau/K) - 1) + (M/2) xi (1 - e^(-2 tau/M)),
        zeta = |y(0)|^2 - 1/K,  xi = |z(0)|^2 - 1/M

    So K correct and M wrong even arms learn (1/K + 1/M)/2 times as fast as one of each.
    Source: arXiv 2601.04411, eq. 17, for tau >= 0; for J < 0 let tau run backwards here (a common sign in front, as our
        notes restate it, would let the wrong terms grow). Valid when: tau << K and shares near 1/K, 1/M.
    """
    y0, z0, clock = shares("correct", correct), shares("wrong", wrong), np.asarray(tau, dtype=np.float64)
    k, m = len(y0), len(z0)
    zeta, xi = np.sum(y0**2) - 1 / k, np.sum(z0**2) - 1 / m
    uneven = k / 2 * zeta * np.expm1(2 * clock / k) - m / 2 * xi * np.expm1(-2 * clock / m)
    return np.atleast_1d((1 / k + 1 / m) * clock + uneven)


def many_arms(
    q0: float,
    correct: ArrayLike,
    wrong: ArrayLike,
    eta: float,
    times: ArrayLike,
    gap: Callable[[Floats], Values] | None = None,
) -> Path:
    """The mean-field path of any number of arms, as one scalar equation dtau/dt = eta gap(q) q (1-q).

    Arguments:
        q0: correct mass at the start.
        correct, wrong: (K,), (M,) shares within the classes at the start.
        eta: step size.
        times: (T,) ascending times, in updates.
        gap: q -> E[A | correct] - E[A | wrong]; default 1, the raw reward. `two_class.advantage_gap`,
            `finite_group.kappa` and `noisy_verifier.advantage_gap` are others.
    Errors: Refusal for an argument out of range, or a gap that is not finite.
    Source: arXiv 2601.04411, reduced to one equation for this project. Valid when: as `winner_takes_all`.
    """
    y0, z0 = shares("correct", correct), shares("wrong", wrong)
    start, speed = logit(open_unit("q0", q0)), float(positive("eta", eta))
    when = np.atleast_1d(np.asarray(times, dtype=np.float64))

    def rate(_: float, tau: Floats) -> Floats:
        q = expit(start + logit_gain(y0, z0, tau))
        pull = 1.0 if gap is None else gap(q)
        if not np.all(np.isfinite(pull)):
            raise Refusal(f"gap(q) = {pull} at q = {q}; give a gap that is finite for every q in (0, 1)")
        return speed * q * (1 - q) * pull

    tau = solve_ivp(rate, (0, max(when[-1], 1e-9)), [0.0], "DOP853", when, rtol=1e-9, atol=1e-10).y[0]
    y, z = winner_takes_all(y0, tau), winner_takes_all(z0, -tau)
    q = expit(start + logit_gain(y0, z0, tau))
    return Path(q, tau, np.sum(y**2, axis=1), np.sum(z**2, axis=1))


def _log_denominator(start: Floats, tau: Floats) -> Floats:
    """(T, K) log(1 - s start_j) at the s of each tau, written as s = (1 - e^-w)/max start."""
    ratio = start / start.max()
    return np.log((1 - ratio) + ratio * np.exp(-_root(ratio, tau))[:, None])


def _root(ratio: Floats, tau: Floats) -> Floats:
    """(T,) w with tau = - sum_j log(1 - ratio_j + ratio_j e^-w), which is increasing and concave in w.

    From min(tau, tau / K), which lies below the root, Newton climbs to it without overshooting.
    """
    w = np.minimum(tau, tau / len(ratio))
    for _ in range(100):
        decayed = ratio * np.exp(-w)[:, None]
        inside = (1 - ratio) + decayed
        miss = tau + np.log(inside).sum(axis=1)
        if np.all(np.abs(miss) <= 1e-13 * (1 + np.abs(tau))):
            break
        w = w + miss / (decayed / inside).sum(axis=1)
    return w
