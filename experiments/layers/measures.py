"""What a run is judged by: one number per seed, so that two variants are compared seed by seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.layers.record import Prediction, Result

Array = NDArray[np.float64]
LATE = 4
"""Where success is sampled, "at the end" is the last quarter of the rounds."""


def success(run: Result) -> Array:
    """(S,) success at the end: exact after the last update, or the mean outcome of the last quarter of the rounds."""
    return _late(run.success) if run.final is None else run.final


def gain(run: Result) -> Array:
    """(S,) success at the end above the base model's."""
    return success(run) - run.p0


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


def lost(run: Result) -> Array | None:
    """(S,) 1 where success at the end is below half the base model's; only where it is exact."""
    return None if run.final is None else (run.final < run.p0 / 2).astype(np.float64)


def held_out(run: Result) -> Array | None:
    """(S,) success of the held-out queries at the end."""
    if run.held_out is None:
        return None
    return run.held_out[:, -1] if run.rollouts == 0 else _late(run.held_out)


def held_out_gain(run: Result) -> Array | None:
    """(S,) the same above what it was at the first look, before any update."""
    end = held_out(run)
    return None if run.held_out is None or end is None else end - run.held_out[:, 0]


def _late(curve: Array) -> Array:
    return curve[:, -max(1, curve.shape[1] // LATE) :].mean(axis=1)


MEASURES: dict[str, Callable[[Result], Array | None]] = {
    f.__name__: f for f in (success, gain, average, scatter, lost, held_out, held_out_gain)
}


def foretold(prediction: Prediction, measure: str) -> float | None:
    """The mean of a measure by a prediction, or None where it has none: no curve, or a measure of the spread."""
    curve = prediction.held_out if measure.startswith("held_out") else prediction.success
    if curve is None or measure in ("scatter", "lost"):
        return None
    values = np.array(curve)
    if measure == "average":
        return float(values.mean())
    # A mean field is after the last update, a forecast of sampled outcomes is over the last quarter like the run's.
    end = float(values[-1]) if prediction.low is None else float(_late(values[None])[0])
    return end - float(values[0]) if measure.endswith("gain") else end
