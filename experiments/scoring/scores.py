"""How well a forecast and a run agree: bands, crossing times, coverage, CRPS, baselines, residuals.

An *ensemble* is an (M, T) array whose members are draws of the very thing that is plotted: the mean over S
replicas of each round's reward.  Nothing here smooths by itself except `observed_crossing`, which has to
smooth inside its bootstrap: pass `smooth(ensemble, width)` and `smooth(observed, width)` with one width.

One file although it is long: every function scores, or is scored as, the same ensemble.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scoringrules
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from experiments.scoring.smoothing import default_width, smooth
from theory.refusal import Refusal

__all__ = [
    "Interval",
    "Residuals",
    "central_band",
    "constant_ensemble",
    "coverage",
    "crossing",
    "crossing_interval",
    "crps",
    "default_width",
    "ensemble_of_means",
    "logistic_ensemble",
    "martingale_residuals",
    "observed_crossing",
    "pooled_z",
    "replica_spread",
    "smooth",
    "times_agree",
    "window_z",
]

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A time in rounds with its 95% interval; None = not reached within the run."""

    value: float | None
    low: float | None
    high: float | None


class Residuals(NamedTuple):
    """Standardised residuals z (S, T) with their mean, variance and the standard errors of both."""

    mean: float
    variance: float
    mean_error: float
    variance_error: float
    z: Array


def ensemble_of_means(outcomes: ArrayLike, replicas: int, members: int, seed: int) -> Array:
    """Draws of "the mean over S replicas of the sampled reward": member[t] = mean_{s in D} outcomes[s, t].

    outcomes: (N, T) sampled reward of N simulated seeds; replicas: S, as many as the run has; members: M.
    D is a fresh draw of S distinct seeds for each member.  Returns (M, T).
    Errors: Refusal when S > N.
    Valid when N >> S: members drawn from one pool share it, so their variance is (1 - S/N) of the true one,
    and the band's centre is off by about sqrt(S/N) of the band's standard deviation.
    """
    pool = np.asarray(outcomes, dtype=np.float64)
    if not 1 <= replicas <= len(pool):
        raise Refusal(f"replicas is {replicas}, but {len(pool)} seeds were simulated; simulate more")
    rng = np.random.default_rng(seed)
    draws = (rng.choice(len(pool), replicas, replace=False, shuffle=False) for _ in range(members))
    return np.stack([pool[draw].mean(axis=0) for draw in draws])


def crossing(curve: ArrayLike, level: float) -> float | None:
    """First time at which the curve reaches `level`, in rounds counted from 1; None if it never does.

    curve: (T,), smoothed.  Between rounds the curve is read as a straight line, so the time is a float; a
    curve that starts at or above the level crosses at 1.0.  Never decreases with the level.
    """
    values = np.asarray(curve, dtype=np.float64)
    reached = values >= level
    if not reached.any():
        return None
    after = int(reached.argmax())
    if after == 0:
        return 1.0
    step = values[after] - values[after - 1]
    return float(after + (level - values[after - 1]) / step)


def crossing_interval(ensemble: ArrayLike, level: float) -> Interval:
    """Median and central 95% interval of the members' crossing times; None where not reached.

    ensemble: (M, T), smoothed.  Quantiles are order statistics (inverted CDF), with "never" as +infinity, so
    members that do not reach the level count instead of being dropped.
    """
    times = [crossing(member, level) for member in np.asarray(ensemble, dtype=np.float64)]
    censored = np.array([math.inf if time is None else time for time in times])
    low, median, high = np.quantile(censored, [0.025, 0.5, 0.975], method="inverted_cdf")
    return Interval(*(float(time) if np.isfinite(time) else None for time in (median, low, high)))


def observed_crossing(
    outcomes: ArrayLike, level: float, width: int, bootstrap: int = 1000, seed: int = 0
) -> Interval:
    """Crossing time of the smoothed mean over replicas, with a 95% percentile bootstrap over replicas.

    outcomes: (S, T) rewards, not smoothed; width: rounds, odd.  The value is that of the run itself.
    Valid when S is some tens.  A resampled mean is noisier than the mean itself and a noisier curve reaches a
    level earlier, so the interval leans to early times; the value may even lie above its upper end.
    """
    # Smoothing and averaging over replicas commute: smooth once, then resample.
    replicas = smooth(outcomes, width)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(replicas), np.full(len(replicas), 1 / len(replicas)), size=bootstrap)
    spread = crossing_interval(counts @ replicas / len(replicas), level)
    return Interval(crossing(replicas.mean(axis=0), level), spread.low, spread.high)


def times_agree(forecast: Interval, observed: Interval) -> bool | None:
    """Whether two times differ by less than their combined 95% interval, |f - o| <= sqrt(hf^2 + ho^2).

    hf and ho are the half-widths on the sides that face each other (the intervals are skewed); a half-width
    whose end is not reached is unbounded.  Both times null: None, the run says nothing.  One time null: it
    lies somewhere after the last round, so the two agree when the intervals overlap, "not reached" being
    read as infinity.

    Generous on purpose: a forecast interval made from `ensemble_of_means` already carries the run's replica
    noise, which the bootstrap brings in again.  The sharper question is whether the observed value lies
    inside the forecast's own interval.
    """
    if forecast.value is None and observed.value is None:
        return None
    first, second = sorted((forecast, observed), key=lambda time: _or_infinity(time.value))
    if first.value is None or second.value is None:
        return _or_infinity(second.low) <= _or_infinity(first.high)
    upper = max(_or_infinity(first.high) - first.value, 0.0)
    # The lower end can be null, or above the value, only where the bootstrap is skewed: no room on that side.
    lower = max(second.value - _or_infinity(second.low), 0.0)
    return second.value - first.value <= math.hypot(upper, lower)


def _or_infinity(time: float | None) -> float:
    return math.inf if time is None else time


def central_band(ensemble: ArrayLike, level: float) -> tuple[Array, Array]:
    """Lower and upper edge (T,) of the central band: quantiles (1 - level)/2 and (1 + level)/2 of (M, T)."""
    if not 0 < level < 1:
        raise Refusal(f"level is {level}; give a share between 0 and 1, for example 0.9")
    low, high = np.quantile(np.asarray(ensemble, np.float64), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def replica_spread(outcomes: ArrayLike, width: int) -> tuple[Array, Array]:
    """Mean minus and plus one standard deviation over replicas of their smoothed curves, cut to [0, 1].

    outcomes: (S, T) rewards; width: rounds, odd.  Returns two (T,) arrays, of one replica its curve twice.  Besides
    how differently the replicas learn, the spread holds the 0/1 noise of one window, sqrt(p (1 - p) / width).
    """
    curves = smooth(outcomes, width)
    if len(curves) == 1:
        return curves[0], curves[0]
    mean, deviation = curves.mean(axis=0), curves.std(axis=0, ddof=1)
    return np.clip(mean - deviation, 0, 1), np.clip(mean + deviation, 0, 1)


def coverage(ensemble: ArrayLike, observed: ArrayLike, level: float) -> float:
    """Share of rounds in which the observed mean lies within the central band, its edges included.

    ensemble: (M, T) and observed: (T,), smoothed alike.  A right forecast covers `level` of the rounds on
    average over runs.  In ONE run neighbouring rounds move together, so the share scatters widely around it.
    """
    low, high = central_band(ensemble, level)
    values = np.asarray(observed, dtype=np.float64)
    return float(np.mean((low <= values) & (values <= high)))


def crps(ensemble: ArrayLike, observed: ArrayLike) -> float:
    """Continuous ranked probability score, mean over rounds of E|X - y| - E|X - X'| / 2; smaller is better.

    ensemble: (M, T), M >= 2; observed: (T,), smoothed alike.  Estimator: probability-weighted moments, which
    equals the fair one (X and X' distinct members): unbiased in M, so ensembles of different size compare.
    In units of success probability.  Source: Gneiting and Raftery 2007; Zamo and Naveau 2018 (PWM).
    """
    members = np.asarray(ensemble, dtype=np.float64)
    if len(members) < 2:
        raise Refusal(f"the ensemble has {len(members)} member(s); CRPS needs at least 2")
    scores = scoringrules.crps_ensemble(  # pyright: ignore[reportArgumentType] ens_w=None is its own default
        np.asarray(observed, dtype=np.float64), members, m_axis=0, estimator="pwm", backend="numpy"
    )
    return float(np.mean(scores))


def constant_ensemble(
    p0: float, p0_low: float, p0_high: float, replicas: int, rounds: int, members: int, seed: int
) -> Array:
    """Baseline "nothing is learned": mean of S draws of Bernoulli(p) per round, p uncertain as p0 is.

    Each member has one p from the two-piece normal whose 2.5, 50 and 97.5% points are p0_low, p0, p0_high,
    clipped to [0, 1].  Returns (members, rounds), not smoothed.
    """
    if not 0 <= p0_low <= p0 <= p0_high <= 1:
        raise Refusal(f"p0 = {p0} with interval ({p0_low}, {p0_high}): need 0 <= low <= p0 <= high <= 1")
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(members) / stats.norm.ppf(0.975)
    p = np.clip(p0 + np.where(normal > 0, p0_high - p0, p0 - p0_low) * normal, 0, 1)
    return rng.binomial(replicas, p[:, None], size=(members, rounds)) / replicas


def logistic_ensemble(outcomes: ArrayLike, members: int, seed: int, bootstrap: int = 200) -> Array:
    """Baseline "extrapolate the start": p(t) = 1 / (1 + exp(-(a + b t))) fitted to the run's first quarter.

    Maximum likelihood of the 0/1 outcomes (rates work too) of rounds 1 .. max(2, ceil(T/4)), refitted to
    `bootstrap` resamples of the replicas for the uncertainty of (a, b); members take these fits in turn,
    carry them to T rounds and add binomial noise of S replicas.
    One pseudo-rollout (half a success, half a failure) is spread evenly over the quarter in every fit, so the
    optimum is finite without a single success: the curve is then flat at 1/(2 (S T_quarter + 1)).

    outcomes: (S, T).  Returns (members, T), not smoothed.  This baseline has SEEN a quarter of the run: to
    beat it from the base model alone is the harder test.
    """
    rewards = np.asarray(outcomes, dtype=np.float64)
    replicas, rounds = rewards.shape
    quarter = min(rounds, max(2, math.ceil(rounds / 4)))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(replicas, np.full(replicas, 1 / replicas), size=min(bootstrap, members))
    time = np.arange(1, rounds + 1) / quarter
    fits = np.stack([_logistic_fit(draw @ rewards[:, :quarter], replicas, time[:quarter]) for draw in draws])
    a, b = fits[np.arange(members) % len(fits)].T
    p = special.expit(a[:, None] + b[:, None] * time)
    return rng.binomial(replicas, p) / replicas


def _logistic_fit(successes: Array, trials: int, time: Array) -> Array:
    """Maximum-likelihood (a, b) of a logistic curve through successes (T,) out of `trials` per round."""
    pseudo = 1 / len(time)
    k, n = successes + pseudo / 2, trials + pseudo
    design = np.stack([np.ones_like(time), time])

    def loss(ab: Array) -> tuple[float, Array]:
        logit = ab @ design
        return float(np.sum(n * np.logaddexp(0, logit) - k * logit)), design @ (n * special.expit(logit) - k)

    def curvature(ab: Array) -> Array:
        p = special.expit(ab @ design)
        return (design * (n * p * (1 - p))) @ design.T

    start = np.array([special.logit(k.sum() / (n * len(time))), 0.0])
    return optimize.minimize(loss, start, jac=True, hess=curvature, method="trust-exact").x


def martingale_residuals(outcomes: ArrayLike, predicted: ArrayLike) -> Residuals:
    """Standardised surprise of each round, z = (mean outcome - mean p) / sqrt(sum_i p_i (1 - p_i)) n.

    outcomes: (S, T, n) 0/1, or (S, T) for n = 1; predicted: (S, T) success probability of that replica in that
    round given its past, or (S, T, n) of the query that each rollout answers. Under a right model z has mean 0 and
    variance 1, and since the z are martingale differences the standard errors are 1/sqrt(C) for the mean and, for the
    variance, sqrt(sum_st [2 + sum_i v_i (1 - 6 v_i) / (sum_i v_i)^2]) / C with v = p (1 - p), over the C residuals
    that count.

    Where p is 0 or 1 (within 1e-12) an outcome that agrees says nothing: z is NaN where all of a round are so, and left
    out.  One that disagrees is kept, with p moved to 1e-6 or 1 - 1e-6, so an impossible outcome shows as |z| ~ 1000.
    Nothing left: mean and variance are NaN.
    """
    values = np.asarray(outcomes, dtype=np.float64)
    values = values[..., None] if values.ndim == 2 else values
    p = np.asarray(predicted, dtype=np.float64)
    if p.ndim == 2 and values.shape[:-1] == p.shape:
        p = np.broadcast_to(p[..., None], values.shape)
    if values.shape != p.shape:
        raise Refusal(
            f"outcomes have shape {values.shape} (replicas, rounds, rollouts) but predicted {p.shape}"
        )
    if np.any((p < -1e-12) | (p > 1 + 1e-12)) or not np.isfinite(p).all():
        raise Refusal("predicted holds values outside [0, 1]; give success probabilities")
    if not np.isfinite(values).all():
        raise Refusal("outcomes hold NaN or infinity; score such rollouts explicitly before this point")
    n = values.shape[-1]
    difference = values.mean(axis=-1) - p.mean(axis=-1)
    certain = (p * (1 - p) < 1e-12).all(axis=-1)
    p = np.where(p * (1 - p) < 1e-12, np.clip(p, 1e-6, 1 - 1e-6), p)
    pq = p * (1 - p)
    whole = pq.sum(axis=-1)
    z = np.where(certain & (np.abs(difference) < 1e-9), np.nan, difference * n / np.sqrt(whole))
    counted = np.isfinite(z)
    count = int(counted.sum())
    if count == 0:
        return Residuals(math.nan, math.nan, math.nan, math.nan, z)
    spread = np.sum(2 + (pq * (1 - 6 * pq)).sum(axis=-1)[counted] / whole[counted] ** 2)
    return Residuals(
        mean=float(z[counted].mean()),
        variance=float(z[counted].var()),
        mean_error=1 / math.sqrt(count),
        variance_error=float(math.sqrt(max(spread, 0.0)) / count),
        z=z,
    )


def window_z(z: ArrayLike, windows: int) -> list[float]:
    """z values of consecutive windows of rounds: sum over replicas and rounds of z, / sqrt(their number).

    z: (S, T), martingale residuals (NaN is left out); T is cut into `windows` parts as even as possible. Under
    a right forecast each is standard normal and they are uncorrelated; a window without residuals has 0.
    """
    return [
        float(np.nansum(part) / math.sqrt(max(1, np.isfinite(part).sum())))
        for part in np.array_split(np.asarray(z, dtype=np.float64), windows, axis=1)
    ]


def pooled_z(values: ArrayLike) -> float:
    """One z of several independent ones: sum / sqrt(count) (Stouffer). One-signed errors add up, others cancel."""
    z = np.asarray(values, dtype=np.float64)
    return float(z.sum() / math.sqrt(len(z)))
