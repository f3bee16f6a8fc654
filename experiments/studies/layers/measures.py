"""What a run is judged by: one number per seed, so that two variants are compared seed by seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.studies.layers.record import Prediction, Result

Array = NDArray[np.float64]


def success(run: Result) -> Array:
    """(S,) success after the last update."""
    return run.success[:, -1] if run.end is None else run.end.success


def gain(run: Result) -> Array:
    """(S,) success at the end above the base model's."""
    return success(run) - (run.p0 if run.end is None else run.end.base)


def average(run: Result) -> Array:
    """(S,) mean success over the run: how early it learns."""
    return run.success.mean(axis=1)


def scatter(run: Result) -> Array:
    """(S,) terms whose mean is the variance between runs of their mean success, free of the noise of sampling.

    (x_s - mean x)^2 S/(S-1), less what sampled outcomes scatter by within a run: half the mean squared difference of
    neighbouring rounds, over the rounds. One run whose success is certain has 0.
    Valid when: success moves little from one round to the next.
    """
    x = average(run)
    between = (x - x.mean()) ** 2 * len(x) / (len(x) - 1)
    if run.rollouts == 0:
        return between
    rounds = run.success.shape[1]
    return between - (np.diff(run.success, axis=1) ** 2).mean(axis=1) / 2 / rounds


def held_out(run: Result) -> Array | None:
    """(S,) success of the held-out queries after the last update."""
    if run.end is not None:
        return run.end.held_out
    return None if run.held_out is None else run.held_out[:, -1]


def held_out_gain(run: Result) -> Array | None:
    """(S,) the same above the base model's."""
    after, before = held_out(run), _held_out_base(run)
    return None if after is None or before is None else after - before


def _held_out_base(run: Result) -> Array | None:
    if run.end is not None:
        return run.end.held_out_base
    return None if run.held_out is None else run.held_out[:, 0]


MEASURES: dict[str, Callable[[Result], Array | None]] = {
    f.__name__: f for f in (success, gain, average, scatter, held_out, held_out_gain)
}


def forecast_of(prediction: Prediction, measure: str) -> float | None:
    """The mean of a measure by a prediction, or None where it has none: no curve, or a measure of the spread."""
    curve = prediction.held_out if measure.startswith("held_out") else prediction.success
    if curve is None or measure == "scatter":
        return None
    if measure == "average":
        return float(np.mean(curve))
    ends = prediction.ends or {}
    start, end = ends.get("held_out" if curve is prediction.held_out else "training", [curve[0], curve[-1]])
    return end - start if measure.endswith("gain") else end


def ends_early(prediction: Prediction, run: Result, measure: str) -> bool:
    """Whether what is forecast ends before what is measured: a curve's last point against the end of a run."""
    return run.end is not None and prediction.ends is None and measure not in ("average", "scatter")
