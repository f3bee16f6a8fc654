"""The one smoothing that observed and forecast curves share before they are plotted or scored."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.refusal import Refusal

Array = NDArray[np.float64]


def default_width(rounds: int) -> int:
    """Window of the moving average: the odd number nearest to rounds / 10 (ties go up), at least 1."""
    if rounds < 1:
        raise Refusal(f"rounds is {rounds}; a curve has at least one round")
    return 2 * (rounds // 20) + 1


def smooth(curve: ArrayLike, width: int) -> Array:
    """Centred moving average over the last axis, y[t] = mean(x[t-h .. t+h]) with h = (width - 1) / 2.

    The window is cut off at both ends (never padded), so a constant curve stays what it is and the first
    round averages rounds 1 .. 1+h only.

    curve: (..., T) any number of curves; width: rounds, odd.  Returns (..., T) float64.
    Valid when the curve bends little within one window; a rising curve is read too high at its first rounds
    and too low at its last, which is why forecast and observed must go through the same width.
    """
    if width < 1 or width % 2 == 0:
        raise Refusal(f"width is {width}; a centred window needs an odd number of rounds, try {width + 1}")
    values = np.asarray(curve, dtype=np.float64)
    half = width // 2
    padding = [(0, 0)] * (values.ndim - 1) + [(half, half)]
    # Window sums, not differences of a running sum: no cancellation, and 0/1 outcomes stay exact.
    sums = np.lib.stride_tricks.sliding_window_view(np.pad(values, padding), width, axis=-1).sum(axis=-1)
    rounds = np.arange(values.shape[-1])
    counts = np.minimum(rounds, half) + np.minimum(rounds[::-1], half) + 1
    return sums / counts
