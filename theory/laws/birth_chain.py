"""The minimalist configuration, exactly: one correct arm, raw 0/1 reward, one rollout a round, SGD.

A wrong pull moves nothing, so p after m successes is a fixed sequence p_0 < p_1 < ... (the ladder), the wait on
rung m is Geometric(p_m), and the whole law of p_t follows by a forward recursion: no mean field, any step size.

Convention: p = pi(correct) of the tabular softmax with one logit per arm, as `bandit_sim.Arms` has it. The
geometry C = 1 + sum_j z_j^2 (z_j: shares of the wrong arms within the wrong mass) is 2 for two arms, 1 + 1/M for M
even wrong arms, and 1 for endlessly many, which is the single-logit policy p = sigmoid(x), x += eta (1 - p).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit, softmax
from scipy.stats import binom

from theory.laws.arguments import Floats, Values, open_unit, positive, whole
from theory.refusal import Refusal


def ladder(p0: float, eta: float, steps: int, geometry: float = 1.0) -> Floats:
    """(steps + 1,) success probability after 0, 1, ... successes, wrong arms even.

        logit p_{m+1} = logit p_m + C eta (1 - p_m)

    Arguments:
        p0: success probability of the base policy.
        eta: step size, in nats per unit of reward.
        steps: successes to follow.
        geometry: C = 1 + 1/(wrong arms); 1 for endlessly many.
    Errors: Refusal naming an argument out of range.
    Source: derived for this project from the rule of arXiv 2601.14599 (one datum, one rollout, raw reward).
    Valid when: one correct arm, wrong arms of equal mass, SGD; exact at any eta. Otherwise `uneven_ladder`.
    """
    position, rise = logit(open_unit("p0", p0)), positive("eta", eta) * positive("geometry", geometry)
    rungs = np.empty(whole("steps", steps, 0) + 1)
    for m in range(steps + 1):
        rungs[m] = expit(position)
        position = position + rise * expit(-position)
    return rungs


def uneven_ladder(masses: ArrayLike, eta: float, steps: int) -> Floats:
    """(steps + 1,) the ladder of arms of any masses (K,), of which the first is the correct one.

        theta <- theta + eta (e_1 - pi) at every success

    Errors: Refusal for a mass that is not positive.
    Source: as `ladder`. Valid when: one correct arm, SGD; exact at any eta.
    """
    theta = np.log(positive("masses", masses))
    step, rungs = float(positive("eta", eta)), np.empty(whole("steps", steps, 0) + 1)
    for m in range(steps + 1):
        pi = softmax(theta)
        rungs[m] = pi[0]
        theta = theta - step * pi
        theta[0] += step
    return rungs


def occupancy(rungs: ArrayLike, rounds: int) -> Floats:
    """(rounds + 1, M) probability of standing on each rung after t rounds.

        P_{t+1}(m) = (1 - p_m) P_t(m) + p_{m-1} P_t(m-1)

    Arguments:
        rungs: (M,) a ladder; its last rung absorbs, and reads "this rung or higher".
        rounds: rounds to follow.
    Source: as `ladder`. Valid when: the ladder is longer than `rounds`, or its end is meant to absorb.
    """
    p = np.asarray(rungs, dtype=np.float64)
    climb = np.append(p[:-1], 0.0)
    law = np.zeros((whole("rounds", rounds, 0) + 1, len(p)))
    law[0, 0] = 1
    for t in range(rounds):
        moved = climb * law[t]
        law[t + 1] = law[t] - moved
        law[t + 1, 1:] += moved[:-1]
    return law


def success_moments(rungs: ArrayLike, rounds: int) -> tuple[Floats, Floats]:
    """(rounds + 1,) mean and (rounds + 1,) standard deviation over seeds of p after t rounds; as `occupancy`."""
    p, law = np.asarray(rungs, dtype=np.float64), occupancy(rungs, rounds)
    mean = law @ p
    return mean, np.sqrt(np.einsum("tm,tm->t", law, (p - mean[:, None]) ** 2))


def success_quantiles(rungs: ArrayLike, rounds: int, probs: ArrayLike) -> Floats:
    """(len(probs), rounds + 1) smallest rung p_m with P(p_t <= p_m) >= prob; as `occupancy`."""
    p, below = np.asarray(rungs, dtype=np.float64), np.cumsum(occupancy(rungs, rounds), axis=1)
    levels = np.atleast_1d(open_unit("probs", probs))[:, None, None]
    return p[np.argmax(below >= levels - 1e-12, axis=2)]


def time_law(rungs: ArrayLike, level: float, rounds: int) -> Floats:
    """(rounds + 1,) P(T <= t), T = updates until p >= level; T = sum of Geometric(p_m) over the rungs below.

    Errors: Refusal for a ladder that ends below the level and within the rounds.
    Source, Valid when: as `ladder`.
    """
    p = np.asarray(rungs, dtype=np.float64)
    if p[-1] < level and len(p) > rounds + 1:
        return np.zeros(rounds + 1)  # out of reach: there is at most one success a round
    return occupancy(p[: _rungs_below(p, level) + 1], rounds)[:, -1]


def time_moments(rungs: ArrayLike, level: float) -> tuple[float, float]:
    """Mean and standard deviation over seeds of T, the updates until p >= level.

        E T = sum 1/p_m,  Var T = sum (1 - p_m)/p_m^2,  over the rungs below the level

    Errors: Refusal for a ladder that never reaches the level.
    Source, Valid when: as `ladder`. As eta -> 0 the mean becomes the mean-field time of `theory.laws.clocks`.
    """
    p = np.asarray(rungs, dtype=np.float64)[: _rungs_below(rungs, level)]
    return float(np.sum(1 / p)), float(np.sqrt(np.sum((1 - p) / p**2)))


def relative_spread(eta: ArrayLike, geometry: float = 1.0) -> Values:
    """Standard deviation over mean, across seeds, of the time to a fixed level, for a hard query (p0 -> 0).

        sd(T) / E T -> sqrt(tanh(C eta / 2))

    While p is small the ladder is p0 exp(C eta m); two geometric series give the ratio. It does not depend on p0:
    a harder query takes longer, with the same relative spread. One rung suffices at large eta, hence the limit 1.
    Source: derived for this project. Valid when: p0 << level, one correct arm; relative error O(p0).
    """
    return np.sqrt(np.tanh(positive("eta", eta) * positive("geometry", geometry) / 2))


def never_started(p0: ArrayLike, rounds: ArrayLike, rollouts: int = 1) -> Values:
    """Probability that a budget ends without a single success: (1 - p0)^(rounds rollouts).

    Until then nothing has moved, so the first success comes after Geometric(p0) rollouts.
    Arguments:
        p0: success probability of the base policy, all correct arms together.
        rounds, rollouts: rounds, and rollouts per round.
    Source: derived for this project. Valid when: the signal ignores failures (raw) or failures alone (any
        group signal); any number of correct arms. It fails for +-1 or negative reward, which move on failures.
    """
    tries = positive("rounds", rounds) * whole("rollouts", rollouts, 1)
    return np.exp(tries * np.log1p(-open_unit("p0", p0)))


def reached_at_most(p0: float, eta: float, level: float, rounds: int, likeliest: float) -> Floats:
    """(rounds + 1,) upper bound of P(T <= t), T = updates until p >= level, with any number of correct arms.

        P(T <= t) <= P(Bin(t, level) >= m),   m = ceil( (logit level - logit p0) / (eta (1 + w)) )

    A success lifts the log-odds by less than eta (1 + w), w the largest wrong arm, which never grows; and until the
    level is passed a round succeeds with less than its probability.
    Arguments:
        p0: success probability of the base policy, all correct arms together.
        eta: step size.
        level: success probability to reach, above p0.
        rounds: last t.
        likeliest: w, probability of the likeliest wrong arm at the start.
    Errors: Refusal for a value out of range.
    Source: derived for this project. Valid when: raw reward, one rollout, SGD, any correct and wrong arms. A bound:
        `word_chain` is the exact law, where it can be afforded.
    """
    rise = float(positive("eta", eta)) * (1 + float(open_unit("likeliest", likeliest)))
    steps = (logit(open_unit("level", level)) - logit(open_unit("p0", p0))) / rise
    t = np.arange(whole("rounds", rounds, 0) + 1)
    return np.asarray(binom.sf(np.ceil(steps - 1e-12) - 1, t, level), dtype=np.float64)


def rounds_to_start(p0: ArrayLike, risk: ArrayLike, rollouts: int = 1) -> Values:
    """Rounds after which the risk of not having started is at most `risk`: ceil(log risk / (n log(1 - p0))).

    Source, Valid when: as `never_started`.
    """
    tries = np.log(open_unit("risk", risk)) / np.log1p(-open_unit("p0", p0))
    return np.ceil(tries / whole("rollouts", rollouts, 1) - 1e-9)


def _rungs_below(rungs: ArrayLike, level: float) -> int:
    p = np.asarray(rungs, dtype=np.float64)
    if not p[-1] >= level:
        raise Refusal(f"level = {level:g}, but the ladder ends at {p[-1]:.6g}; give it more steps")
    return int(np.argmax(p >= level))
