"""Groups of finite size on two classes: exact binomial sums of what a rule does to the logit of success.

Convention: q = sigmoid(x), one logit x, score 1 - q of a success and -q of a failure; an update adds eta times
sum_i w_i score_i to x. On a two-arm softmax (two logits) the log-odds move twice as far: drift x 2, variance x 4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from theory.laws.arguments import Floats, Values, closed_unit, open_unit, whole
from theory.rules.batch import Batch
from theory.rules.rule import Rule


class Moments(NamedTuple):
    """What one round does to the logit of success, per unit of eta.

    Arguments:
        drift: D(q), the mean of the update.
        variance: G times the variance of the update: per rollout, so that group sizes compare.
    """

    drift: Values
    variance: Values


def binomial(q: ArrayLike, trials: int) -> Floats:
    """(..., trials + 1) probability of k successes among `trials` rollouts at success probability q (...)."""
    q = closed_unit("q", q)
    return np.asarray(binom.pmf(np.arange(trials + 1), trials, q[..., None]), dtype=np.float64)


def round_moments(rule: Rule, q: ArrayLike, pay: tuple[float, float] = (0.0, 1.0)) -> Moments:
    """Mean and variance of one round's update under any rule, from the rule's own arithmetic.

        D = E_k g_k,  g_k = k w+_k (1 - q) - (G - k) w-_k q,  k ~ Bin(G, q)

    w+_k, w-_k: the weights that the rule gives a success and a failure in a group with k successes.
    Arguments:
        rule: its `rollouts` are G; its optimiser is not read.
        q: success probability.
        pay: reward of a failure and of a success; (-1, 1) and (-1, 0) are +-1 and negative-only.
    Source: derived for this project. Valid when: responses of one token, on-policy, one query, a rule without memory.
    """
    q, rollouts = open_unit("q", q), rule.rollouts
    successes = np.arange(rollouts)[None, :] < np.arange(rollouts + 1)[:, None]
    zero, one = np.zeros((rollouts, 1)), np.ones((rollouts, 1))
    group = np.zeros(rollouts, dtype=np.int64)
    weight = np.stack(
        [
            rule.weights(Batch(zero, zero, zero, np.where(row, pay[1], pay[0]), group, one), rule.init(np))[
                0
            ][:, 0]
            for row in successes
        ]
    )
    won, lost = (weight * successes).sum(axis=1), (weight * ~successes).sum(axis=1)
    update = won * (1 - q[..., None]) - lost * q[..., None]
    return moments_of(update, q, rollouts)


def moments_of(update: Floats, q: Floats, rollouts: int) -> Moments:
    """Moments of an update (..., G + 1) given for each number of successes, k ~ Bin(G, q)."""
    chance = binomial(q, rollouts)
    drift = (chance * update).sum(axis=-1)
    return Moments(drift, rollouts * (chance * (update - drift[..., None]) ** 2).sum(axis=-1))


def kappa(q: ArrayLike, rollouts: int, ddof: int = 1) -> Values:
    """Gap kappa_G between the expected advantages of a success and a failure under the mean-std signal.

        kappa_G = E[(1 - k/G)/s_k | k = k' + 1] + E[(k/G)/s_k | k = k'],  k' ~ Bin(G - 1, q),
        s_k^2 = k (G - k) / (G (G - ddof)),  0 where all rewards agree

    The drift of the logit is q (1 - q) kappa_G; kappa_G -> 1/sqrt(q (1 - q)) as G grows, from below.
    Arguments:
        q: success probability, in [0, 1]; with a noisy verifier the probability of being paid.
        rollouts: group size G >= 2.
        ddof: 1 sample, 0 population variance.
    Source: derived for this project; Monte Carlo and enumeration agree. Valid when: 0/1 reward, eps -> 0.
    """
    others = binomial(q, whole("rollouts", rollouts, 2) - 1)
    k = np.arange(rollouts + 1)
    deviation = np.sqrt(k * (rollouts - k) / (rollouts * (rollouts - ddof)))
    safe = np.where(deviation > 0, deviation, 1.0)
    of_success = np.where(deviation > 0, (1 - k / rollouts) / safe, 0.0)
    of_failure = np.where(deviation > 0, -(k / rollouts) / safe, 0.0)
    return others @ of_success[1:] - others @ of_failure[:-1]


def zero_signal(q: ArrayLike, rollouts: int) -> Values:
    """Probability that a group teaches nothing, all rewards being equal: q^G + (1 - q)^G.

    Source: elementary. Valid when: a signal that vanishes on equal rewards (any group baseline).
    """
    q = closed_unit("q", q)
    return q ** whole("rollouts", rollouts, 1) + (1 - q) ** rollouts


def variance_threshold(rollouts: int | None = None) -> float:
    """Success probability below which a leave-one-out baseline lowers the variance of the raw update.

        q* = 2 (G - 2) / (3 G - 5);  2/3 for a baseline that knows q

    From q (1-q) (1-2q)^2 + 2 q^2 (1-q)^2 / (G-1) = q (1-q)^3. With two rollouts it never does (q* = 0).
    Source: derived for this project. Valid when: two classes; same q, same number of rollouts on both sides.
    """
    if rollouts is None:
        return 2 / 3
    return 2 * (whole("rollouts", rollouts, 2) - 2) / (3 * rollouts - 5)
