"""Empirical laws as fits with intervals, and which of them extrapolates.

A forecast of this project fits nothing; these are the families that are fitted to finished runs elsewhere, so that they
can be held against a simulated or a measured curve. Convention: t > 0 is training (updates, rollouts or tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import t as student

from theory.laws.arguments import Floats, positive
from theory.refusal import Refusal


def sigmoid_in_log(t: Floats, start: float, ceiling: float, middle: float, slope: float) -> Floats:
    """R = R0 + (A - R0) / (1 + (C_mid/C)^B): logistic in log C, a tail C^-B. ScaleRL, arXiv 2510.13786."""
    return start + (ceiling - start) / (1 + (middle / t) ** slope)


def saturation(t: Floats, start: float, ceiling: float, scale: float) -> Floats:
    """R = A - (A - R0) e^(-t/tau): fastest at the start. arXiv 2507.18014 and 2606.30789 (overdamped limit)."""
    return ceiling - (ceiling - start) * np.exp(-t / scale)


def logistic(t: Floats, ceiling: float, middle: float, scale: float) -> Floats:
    """R = A / (1 + e^((t_mid - t)/tau)): log-odds linear in t, as mirror descent without std has it, a tail e^(-t/tau).

    See `theory.laws.kl_recursion`, "mean_only_mirror".
    """
    return ceiling * expit((t - middle) / scale)


def entropy_law(entropy: Floats, slope: float, top: float) -> Floats:
    """R = b - a e^H, H the policy's entropy: what is traded for reward; the ceiling is b - a. arXiv 2505.22617."""
    return top - slope * np.exp(entropy)


class _Family(NamedTuple):
    """A curve, its parameters' names and bounds, and a first guess from the data."""

    curve: Callable[..., Floats]
    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    guess: Callable[[Floats, Floats], tuple[float, ...]]


_TINY, _HUGE = 1e-9, np.inf
FAMILIES: dict[str, _Family] = {
    "sigmoid_in_log": _Family(
        sigmoid_in_log, ("start", "ceiling", "middle", "slope"),
        (-_HUGE, -_HUGE, _TINY, 0.05), (_HUGE, _HUGE, _HUGE, 50),
        lambda t, y: (y[0], y[-1], float(np.median(t)), 1.0),
    ),
    "saturation": _Family(
        saturation, ("start", "ceiling", "scale"), (-_HUGE, -_HUGE, _TINY), (_HUGE, _HUGE, _HUGE),
        lambda t, y: (y[0], y[-1], float(np.median(t))),
    ),
    "logistic": _Family(
        logistic, ("ceiling", "middle", "scale"), (_TINY, -_HUGE, _TINY), (_HUGE, _HUGE, _HUGE),
        lambda t, y: (max(y[-1], _TINY), float(np.median(t)), float(np.ptp(t)) / 6 + _TINY),
    ),
    "entropy_law": _Family(
        entropy_law, ("slope", "top"), (-_HUGE, -_HUGE), (_HUGE, _HUGE), lambda t, y: (1.0, float(y.max())),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Arguments (P parameters):
        family: key of `FAMILIES`.
        parameters: name -> value.
        covariance: (P, P) of the parameters, from the residuals' own variance.
        freedom: points minus parameters.
    """

    family: str
    parameters: dict[str, float]
    covariance: Floats
    freedom: int

    def __call__(self, t: ArrayLike) -> Floats:
        """The law at t."""
        return FAMILIES[self.family].curve(np.asarray(t, dtype=np.float64), *self.parameters.values())

    def interval(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """name -> interval, value +- t-quantile times standard error.

        Valid when: residuals are independent with one variance, and the data reach past what a parameter describes: a
        ceiling is not known from the part before the bend, whatever the interval says.
        """
        half = float(student.ppf((1 + level) / 2, self.freedom)) * np.sqrt(np.diag(self.covariance))
        return {
            name: (value - width, value + width)
            for (name, value), width in zip(self.parameters.items(), half, strict=True)
        }


def fit(family: str, t: ArrayLike, y: ArrayLike) -> Fit:
    """Least squares of a family to points t (N,), y (N,).

    Arguments:
        family: key of `FAMILIES`.
        t: training, > 0; for the entropy law the entropy in nats.
        y: reward or success.
    Errors: Refusal for an unknown family, or no more points than parameters.
    Source: the families' own. Valid when: noise of one variance.
    """
    if family not in FAMILIES:
        raise Refusal(f"family {family!r} is unknown; choose one of {', '.join(FAMILIES)}")
    law, x, value = FAMILIES[family], positive("t", t), np.asarray(y, dtype=np.float64)
    if len(x) <= len(law.names):
        raise Refusal(f"{len(x)} points for {len(law.names)} parameters of {family}; give more")
    guess = np.clip(law.guess(x, value), law.low, law.high)
    found = least_squares(
        lambda theta: law.curve(x, *theta) - value,
        guess,
        bounds=(law.low, law.high),
        x_scale="jac",
        max_nfev=2000,
    )
    freedom = len(x) - len(law.names)
    # The pseudo-inverse: a parameter that the data do not see gets no false certainty elsewhere, and no exception.
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * (2 * found.cost / freedom)
    return Fit(family, dict(zip(law.names, (float(v) for v in found.x), strict=True)), covariance, freedom)


def extrapolation_error(family: str, t: ArrayLike, y: ArrayLike, share: float = 0.5) -> float:
    """Root mean square error on the last points, of the family fitted to the first `share` of them.

    Errors: Refusal for a share that leaves nothing on either side.
    Source: elementary; the judge of a law that claims to predict. Valid when: points ordered by training.
    """
    x, value = np.asarray(t, dtype=np.float64), np.asarray(y, dtype=np.float64)
    cut = round(share * len(x))
    if not 0 < cut < len(x):
        raise Refusal(f"share = {share:g} of {len(x)} points; leave some on both sides")
    early = fit(family, x[:cut], value[:cut])
    return float(np.sqrt(np.mean((early(x[cut:]) - value[cut:]) ** 2)))


def choose(
    t: ArrayLike,
    y: ArrayLike,
    share: float = 0.5,
    families: Sequence[str] = ("sigmoid_in_log", "saturation", "logistic"),
) -> dict[str, float]:
    """family -> extrapolation error, the best first. Source, Valid when: as `extrapolation_error`."""
    errors = {family: extrapolation_error(family, t, y, share) for family in families}
    return dict(sorted(errors.items(), key=lambda pair: pair[1]))


def bootstrap(
    family: str,
    t: ArrayLike,
    curves: ArrayLike,
    rng: np.random.Generator,
    samples: int = 200,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """name -> interval of the fit to the mean of curves (S, T), by drawing whole seeds again.

    Points of one run are not independent of each other, runs are: this interval holds where `Fit.interval` is too
    narrow. Source: Efron. Valid when: S >> 1.
    """
    runs = np.asarray(curves, dtype=np.float64)
    draws = [fit(family, t, runs[rng.integers(0, len(runs), len(runs))].mean(axis=0)) for _ in range(samples)]
    tail = (1 - level) / 2
    found = {name: [draw.parameters[name] for draw in draws] for name in FAMILIES[family].names}
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
        for name, values in found.items()
    }
