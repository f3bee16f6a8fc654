"""Two classes: drift and variance of every learning signal, in closed form.

Convention: q = sigmoid(x), one logit x; a round adds eta times the update to x, so dq/dt = eta q (1-q) D(q).
With one logit per arm and shares y, z within the correct and the wrong class the log-odds move faster by the
geometry C = |y|^2 + |z|^2: 2 for a two-arm softmax, 1/K + 1/M for K correct and M wrong even arms.

Variance is G times that of the round's update on the single logit (per rollout); on a two-arm softmax 4 times that.
v = q (1 - q) throughout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theory.laws.arguments import Floats, Values, open_unit, whole
from theory.laws.finite_group import Moments, moments_of
from theory.refusal import Refusal


def raw(q: Floats, rollouts: int | None) -> Moments:
    """A = r in {0, 1}: D = v, variance q (1-q)^3."""
    return Moments(q * (1 - q), q * (1 - q) ** 3)


def value_baseline(q: Floats, rollouts: int | None) -> Moments:
    """A = r - q: D = v, variance v (1-2q)^2. A group mean of endlessly many rollouts."""
    return Moments(q * (1 - q), q * (1 - q) * (1 - 2 * q) ** 2)


def leave_one_out(q: Floats, rollouts: int | None) -> Moments:
    """A_i = r_i - mean of the others: D = v, variance v (1-2q)^2 + 2 v^2 / (G-1).

    The update is the sample variance of the group's rewards, whose variance is classical.
    """
    drift, variance = value_baseline(q, None)
    return Moments(drift, variance if rollouts is None else variance + 2 * drift**2 / (rollouts - 1))


def group_mean(q: Floats, rollouts: int | None) -> Moments:
    """A_i = r_i - group mean, itself included: (G-1)/G times leave-one-out."""
    drift, variance = leave_one_out(q, rollouts)
    shrink = np.float64(1 if rollouts is None else (rollouts - 1) / rollouts)
    return Moments(shrink * drift, shrink**2 * variance)


def group_mean_std(q: Floats, rollouts: int | None) -> Moments:
    """A_i = (r_i - mean)/std, ddof 1: update sqrt(k (G-k) (G-1) / G^3); G -> inf: D = sqrt(v), variance (1-2q)^2 / 4.

    Dividing by the group's own spread instead of sqrt(v) itself, whose variance is (1-2q)^2, cancels half the noise.
    For G q << 1 a single success decides: D -> q (G-1)/sqrt(G), linear in q again.
    """
    if rollouts is None:
        return Moments(np.sqrt(q * (1 - q)), (1 - 2 * q) ** 2 / 4)
    k = np.arange(rollouts + 1)
    return moments_of(np.sqrt(k * (rollouts - k) * (rollouts - 1) / rollouts**3), q, rollouts)


def plus_minus(q: Floats, rollouts: int | None) -> Moments:
    """A = +1 or -1: D = 2v, variance v (1-2q)^2: twice the drift of a value baseline at its variance."""
    return Moments(2 * q * (1 - q), q * (1 - q) * (1 - 2 * q) ** 2)


def negative_only(q: Floats, rollouts: int | None) -> Moments:
    """A = -1 on failures, 0 on successes: D = v, variance q^3 (1-q): raw reward with the classes exchanged."""
    return Moments(q * (1 - q), q**3 * (1 - q))


def max_rl(q: Floats, rollouts: int | None) -> Moments:
    """Mean score of the successes, zero without one (A = r / mean): D = (1-q) (1 - (1-q)^G); G -> inf: 1-q.

    The gradient of -sum_{k<=G} (1-q)^k / k, the log-likelihood cut after G terms. Two classes make all successes
    alike, so the only noise is whether there was one; endless groups have none.
    """
    if rollouts is None:
        return Moments(1 - q, np.zeros_like(q))
    k = np.arange(rollouts + 1)
    return moments_of((1 - q[..., None]) * (k > 0), q, rollouts)


def max_rl_centred(q: Floats, rollouts: int | None) -> Moments:
    """The same with its mean subtracted, zero without a success (A = (r - mean)/mean): D = (1-q) (1 - (1-q)^(G-1)).

    The subtraction has mean zero, but dropping it in the groups without a success costs one term: G rollouts follow
    the gradient of the objective that G-1 terms define. G -> inf: D = 1-q, variance v.
    """
    if rollouts is None:
        return Moments(1 - q, q * (1 - q))
    k = np.arange(rollouts + 1)
    return moments_of(np.where(k > 0, 1 - k / rollouts, 0.0), q, rollouts)


SIGNALS: dict[str, Callable[[Floats, int | None], Moments]] = {
    "raw": raw,
    "value_baseline": value_baseline,
    "leave_one_out": leave_one_out,
    "group_mean": group_mean,
    "group_mean_std": group_mean_std,
    "plus_minus": plus_minus,
    "negative_only": negative_only,
    "max_rl": max_rl,
    "max_rl_centred": max_rl_centred,
}


def moments(signal: str, q: ArrayLike, rollouts: int | None = None) -> Moments:
    """Drift D(q) of the logit of success and variance per rollout, of the named signal.

    Arguments:
        signal: a key of `SIGNALS`; its docstring holds the formula.
        q: success probability.
        rollouts: group size G >= 2, or None for endlessly many.
    Errors: Refusal for an unknown signal or a value out of range.
    Source: derived for this project (raw to plus_minus also by Monte Carlo); finite groups equal
        `finite_group.round_moments` of the rule.
    Valid when: two classes, on-policy, one query; drift also with many arms, times the geometry.
    """
    if signal not in SIGNALS:
        raise Refusal(f"signal {signal!r} is unknown; choose one of {', '.join(SIGNALS)}")
    return SIGNALS[signal](open_unit("q", q), None if rollouts is None else whole("rollouts", rollouts, 2))


def signal_to_noise(signal: str, q: ArrayLike, rollouts: int | None = None) -> Values:
    """Squared drift over variance per rollout: raw q/(1-q), value baseline v/(1-2q)^2, +-1 4v/(1-2q)^2, ...

    At small q: raw q, value baseline q, +-1 4q, negative-only 1/q. So two classes alone never explain why negative
    reward fails: that takes many wrong arms, or arms that share parameters.
    Source: derived for this project. Valid when: as `moments`; infinite where the variance vanishes.
    """
    drift, variance = moments(signal, q, rollouts)
    with np.errstate(divide="ignore"):
        return drift**2 / variance


def advantage_gap(signal: str, q: ArrayLike, rollouts: int | None = None) -> Values:
    """E[A | success] - E[A | failure] = D(q) / v: what drives every arm, see `theory.laws.replicator`."""
    q = open_unit("q", q)
    return moments(signal, q, rollouts).drift / (q * (1 - q))
