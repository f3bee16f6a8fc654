"""Two classes as a diffusion: how far the seeds of one run spread, in success and in time.

Convention: q = sigmoid(x). A round adds C eta U to the log-odds x, U of mean D(q) and variance V(q)/G per round
(`theory.laws.two_class`), so to two moments of every step

    dx = C eta D(q) dt + C eta sqrt(V(q)/G) dW,    t in updates,

which in q reads dq = C eta q (1-q) D dt + C eta q (1-q) sqrt(V/G) dW, plus Ito's term: a Wright-Fisher diffusion, as
q (1-q) is the covariance of two shares. C = 1 is the single logit, C = 2 the two-arm softmax (both exact in x),
C = 1/K + 1/M K correct and M wrong even arms (exact to first order in eta). B queries that share the logit are B G
rollouts; B queries of their own are B independent diffusions, whose mean curve spreads sqrt(B) times less.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson
from scipy.linalg import expm
from scipy.special import expit, logit

from theory.laws.arguments import Floats, Values, open_unit, positive, whole
from theory.laws.finite_group import Moments
from theory.laws.two_class import moments
from theory.refusal import Refusal


class Density(NamedTuple):
    """The law of q over seeds on a grid.

    Arguments (T + 1 rounds, N cells, even in log-odds):
        success: (N,) q at the middle of each cell.
        probability: (T + 1, N) of each cell after t rounds.
    """

    success: Floats
    probability: Floats

    @property
    def mean(self) -> Floats:
        return self.probability @ self.success

    @property
    def spread(self) -> Floats:
        """(T + 1,) standard deviation over seeds."""
        return np.sqrt(np.maximum(self.probability @ self.success**2 - self.mean**2, 0))


def fokker_planck(
    signal: str,
    q0: float,
    eta: float,
    rounds: int,
    geometry: float = 1.0,
    rollouts: int = 1,
    cells: int = 400,
    reach: tuple[float, float] = (1e-4, 1 - 1e-4),
) -> Density:
    """The law of q after every round, by the Fokker-Planck equation in x on a grid.

        dP/dt = -d(C eta D P)/dx + 1/2 d^2(C^2 eta^2 V/G P)/dx^2

    Central differences, walls without flux: drift and noise are exact in every cell. Where the noise is weaker than
    |drift| h a sharp peak leaves ripples, cells that dip below zero; mean and spread do not mind.
    Arguments:
        signal: a key of `two_class.SIGNALS`.
        q0: success probability at the start; the grid is shifted, by half a cell at most, to hold it.
        eta, geometry: step size, and C.
        rounds: T.
        rollouts: G; a signal that needs a group takes at least 2.
        cells: N.
        reach: lowest and highest success probability of the grid.
    Errors: Refusal for an unknown signal or a value out of range.
    Source: the equation of arXiv 2601.04411 (its Wright-Fisher limit), for every signal and in the log-odds.
    Valid when: C eta << 1, so that one update is small; at C eta ~ 1 use `birth_chain` (raw, one correct arm).
    """
    (low, high), x0 = logit(open_unit("reach", list(reach))), float(logit(open_unit("q0", q0)))
    h = (high - low) / (whole("cells", cells, 3) - 1)
    start = round((x0 - low) / h)
    if not 0 <= start < cells:
        raise Refusal(f"q0 = {q0:g} lies outside reach = {reach}; give a wider grid")
    x = x0 + h * (np.arange(cells) - start)
    drift, noise = _coefficients(signal, expit(x), eta, geometry, rollouts)
    up, down = (noise / h + drift) / (2 * h), (noise / h - drift) / (2 * h)
    generator = np.diag(up[:-1], 1) + np.diag(down[1:], -1)
    one_round = expm(generator - np.diag(generator.sum(axis=1)))
    law = np.zeros((whole("rounds", rounds, 0) + 1, cells))
    law[0, start] = 1
    for t in range(rounds):
        law[t + 1] = law[t] @ one_round
    return Density(expit(x), law)


def time_moments(
    signal: str, q0: float, q: float, eta: float, geometry: float = 1.0, rollouts: int = 1, points: int = 2001
) -> tuple[float, float]:
    """Mean and standard deviation over seeds of the updates from q0 to q, where the noise is weak.

        E T = int dx / (C eta D),    Var T = int V / (G C eta D^3) dx,    x = logit q

    Each stretch of the path takes its own time, and their variances add: a/b^3 for drift b and noise a = b' per dx.
    Errors: Refusal for an unknown signal or a value out of range.
    Source: derived for this project. Valid when: as `fokker_planck`, relative spread << 1.
    """
    x = np.linspace(logit(open_unit("q0", q0)), logit(open_unit("q", q)), points)
    late = _clock(signal, x, eta, geometry, rollouts)
    return float(late[0][-1]), float(np.sqrt(late[1][-1]))


def success_spread(
    signal: str, q0: float, q: ArrayLike, eta: float, geometry: float = 1.0, rollouts: int = 1
) -> Values:
    """Standard deviation over seeds of q at the round in which the mean field passes q.

        sd(q_t) = C eta q (1-q) D(q) sd(T_q):  a seed that is late by sd(T) is behind by the speed times that

    Source: derived for this project (linear noise). Valid when: as `time_moments`.
    """
    reached = np.asarray(open_unit("q", q))
    x = np.linspace(logit(open_unit("q0", q0)), logit(reached.max()), 2001)
    variance = np.interp(logit(reached), x, _clock(signal, x, eta, geometry, rollouts)[1])
    drift = _coefficients(signal, reached, eta, geometry, rollouts)[0]
    return reached * (1 - reached) * drift * np.sqrt(variance)


def hard_query_spread(
    signal: str, q0: ArrayLike, eta: float, geometry: float = 1.0, rollouts: int = 1
) -> Values:
    """Relative spread sd(T)/E T over seeds of the time to any fixed level, leading order for q0 -> 0.

        raw, value baseline, leave-one-out, group mean sqrt(C eta/(2 G)),  +-1 sqrt(C eta/(4 G)),
        mean-std sqrt(C eta/(24 G sqrt(q0))),  negative-only q0 sqrt(C eta ln(1/q0)/G)

    So the seeds of a hard query differ by the same factor however hard it is, unless the rewards are divided by
    their spread (G >> 1/q0): that shortens the time more than its noise. More rollouts help by sqrt(G).
    Errors: Refusal for a signal without such a law.
    Source: derived for this project; raw with G = 1 is `birth_chain.relative_spread` for small eta.
    Valid when: as `time_moments`, q0 << level; mean-std at G q0 >> 1, else `small_group_spread`.
    """
    q, noise = open_unit("q0", q0), positive("eta", eta) * positive("geometry", geometry) / rollouts
    if signal == "group_mean_std":
        return np.sqrt(noise / (24 * np.sqrt(q)))
    if signal == "negative_only":
        return q * np.sqrt(noise * np.log(1 / q))
    if signal not in ("raw", "value_baseline", "leave_one_out", "group_mean", "plus_minus"):
        raise Refusal(f"signal {signal!r} has no such law; give raw, a baseline, plus_minus or negative_only")
    return np.sqrt(noise / (4 if signal == "plus_minus" else 2)) * np.ones_like(q)


def small_group_spread(rollouts: int, eta: ArrayLike, geometry: float = 1.0) -> Values:
    """The same of the mean-std signal where a group rarely holds a success: sqrt(C eta (G-1) / (2 G^(3/2))).

    One success decides a round there, and dividing by the group's own spread is a larger step, (G-1)/sqrt(G) times the
    raw one: it learns faster by that factor and spreads wider by its root. The difficulty drops out again.
    Source: derived for this project. Valid when: G q0 << 1, C eta (G-1)/G^(3/2) << 1.
    """
    scale = positive("eta", eta) * positive("geometry", geometry)
    return np.sqrt(scale * (whole("rollouts", rollouts, 2) - 1) / (2 * rollouts**1.5))


def _coefficients(
    signal: str, q: Floats, eta: float, geometry: float, rollouts: int
) -> tuple[Floats, Floats]:
    """Drift b and noise a of dx = b dt + sqrt(a) dW."""
    scale = float(positive("eta", eta) * positive("geometry", geometry))
    law = one_rollout(signal, q, rollouts)
    return np.asarray(scale * law.drift), np.asarray(scale**2 * law.variance / rollouts)


def one_rollout(signal: str, q: ArrayLike, rollouts: int) -> Moments:
    """`two_class.moments`, in which one rollout is allowed where the signal needs no group."""
    alone = rollouts == 1 and signal in ("raw", "value_baseline", "plus_minus", "negative_only")
    return moments(signal, q, None if alone else rollouts)


def _clock(signal: str, x: Floats, eta: float, geometry: float, rollouts: int) -> tuple[Floats, Floats]:
    """(N,) mean and (N,) variance of the time from x[0] to each x."""
    drift, noise = _coefficients(signal, expit(x), eta, geometry, rollouts)
    mean = np.asarray(cumulative_simpson(1 / drift, x=x, initial=0))
    return mean, np.asarray(cumulative_simpson(noise / drift**3, x=x, initial=0))
