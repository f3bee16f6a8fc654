"""Responses that share parameters, in mean field: the two-number law, its next order, the flow of whole responses.

Convention: pi ~ mass exp f over responses, and a weight w on response a moves f by eta w (K[:, a] - K pi), as
`bandit_sim.ParticleArms` has it; K holds inner products of the responses' scores. With c = pi (r - p),

    df/dt = eta gap(p) K c,    dp/dt = eta gap(p) c.K c = eta gap(p) p^2 (1-p)^2 kappa,
    kappa = kcc - 2 kcw + kww

in which kcc, kcw, kww are means of K over pairs of responses, each drawn from its class by the policy (a response may
meet itself). gap is the advantage gap of the signal, 1 for raw reward with or without a baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.special import logit, softmax

from theory.laws.arguments import Floats, Values, open_unit, positive
from theory.refusal import Refusal

Gap = Callable[[Floats], Values]


class Coupling(NamedTuple):
    """Mean kernel of two correct responses, of a correct and a wrong one, of two wrong ones, under one policy."""

    correct: float
    cross: float
    wrong: float

    @property
    def contrast(self) -> float:
        """kappa = kcc - 2 kcw + kww: squared distance of the mean scores of the classes. Never negative."""
        return self.correct - 2 * self.cross + self.wrong


def coupling(mass: ArrayLike, reward: ArrayLike, kernel: ArrayLike) -> Coupling:
    """kcc, kcw, kww of responses with masses (L,), rewards (L,) in {0, 1} and kernel (L, L).

    At the base policy sum pi g = 0 ties them: kcw = -p/(1-p) kcc, kww = (p/(1-p))^2 kcc, and kappa = kcc/(1-p)^2.
    Errors: Refusal where a class is empty.
    Source: design of this project, whose kcc counts distinct responses alone: the same where no single one dominates.
    """
    pi, right = np.asarray(mass, dtype=np.float64), np.asarray(reward) > 0
    if right.all() or not right.any():
        raise Refusal(f"{right.sum()} of {len(right)} responses are correct; both classes are needed")
    u, w = (np.where(side, pi, 0) / pi[side].sum() for side in (right, ~right))
    gram = np.asarray(kernel, dtype=np.float64)
    return Coupling(float(u @ gram @ u), float(u @ gram @ w), float(w @ gram @ w))


def two_number_rate(p: ArrayLike, eta: float, correct: float, cross: float) -> Values:
    """dp/dt = eta (kcc - kcw) p^2 (1-p): every success moves log-odds by what it did on the base model.

    Exact at p0. Later the scores are no longer centred on the policy, which `recentred_time` mends.
    Source: design of this project. Valid when: early, raw reward (any baseline), eta -> 0.
    """
    q = open_unit("p", p)
    return positive("eta", eta) * (correct - cross) * q**2 * (1 - q)


def two_number_time(p: ArrayLike, p0: ArrayLike, eta: float, correct: float, cross: float) -> Values:
    """Updates from p0 to p by the two-number law: [ln(p/(1-p)) - 1/p] / (eta (kcc - kcw)), between p0 and p.

    Source: derived for this project. Valid when: as `two_number_rate`.
    """
    end, start = open_unit("p", p), open_unit("p0", p0)
    elapsed = (logit(end) - 1 / end) - (logit(start) - 1 / start)
    return elapsed / (positive("eta", eta) * positive("kcc - kcw", correct - cross))


def recentred_time(p: ArrayLike, p0: ArrayLike, eta: float, correct: float, cross: float) -> Values:
    """The next order: the kernel's mean over the policy of the day is taken off, one more factor (1-p)/(1-p0).

        dp/dt = eta (kcc - kcw)/(1-p0) p^2 (1-p)^2

    The tabular clock of `theory.laws.clocks` with the geometry kappa = (kcc - kcw)/(1-p0). Deep trees learn more
    slowly still, see `theory.laws.tree_flow`.
    Source: derived for this project. Valid when: whole responses (or responses of one token), the shares within the
        classes staying what they were (even arms, class-wise overlaps: then exact).
    """
    end, start = open_unit("p", p), open_unit("p0", p0)
    clock = (2 * end - 1) / (end * (1 - end)) + 2 * logit(end)
    begun = (2 * start - 1) / (start * (1 - start)) + 2 * logit(start)
    return (clock - begun) * (1 - start) / (positive("eta", eta) * positive("kcc - kcw", correct - cross))


def sequence_flow(
    mass: ArrayLike,
    reward: ArrayLike,
    kernel: ArrayLike,
    eta: float,
    times: ArrayLike,
    gap: Gap | None = None,
) -> Floats:
    """(T, L) policies over whole responses at the ascending times (T,): df/dt = eta gap(p) K pi (r - p).

    Arguments:
        mass, reward, kernel: as `coupling`.
        eta: step size.
        times: in updates.
        gap: p -> E[A | correct] - E[A | wrong]; default 1.
    Source: design of this project (sequence kernel). Valid when: eta -> 0. Success never falls: with K positive
        semidefinite, dp/dt >= 0 for every signal with a positive gap, so that a policy collapses by noise alone
        (`theory.laws.negative_reward`).
    """
    log_mass, r = np.log(positive("mass", mass)), np.asarray(reward, dtype=np.float64)
    gram, step = np.asarray(kernel, dtype=np.float64), float(positive("eta", eta))

    def push(_: float, f: Floats) -> Floats:
        pi = softmax(log_mass + f)
        p = pi @ r
        return step * (1.0 if gap is None else gap(p)) * (gram @ (pi * (r - p)))

    return softmax(log_mass + integrate(push, len(r), times), axis=1)


def integrate(push: Callable[[float, Floats], Floats], size: int, times: ArrayLike) -> Floats:
    """(T, size) the path of df/dt = push(t, f) from f = 0 at the ascending times (T,)."""
    when = np.atleast_1d(np.asarray(times, dtype=np.float64))
    path = solve_ivp(push, (0, max(when[-1], 1e-9)), np.zeros(size), "DOP853", when, rtol=1e-8, atol=1e-10)
    return path.y.T
