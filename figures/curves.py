"""Plain curves: success over rounds with its spread over seeds, and an error against the step size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from figures.frame import framed, make_room, over_rounds
from figures.labels import EndLabel, label_ends
from figures.style import BLUE, CYCLE, GREY, rc
from theory.refusal import Refusal


def draw_curves(
    mean: ArrayLike,
    quantiles: ArrayLike,
    title: str,
    subtitle: str = "",
    ylabel: str = "success probability",
    width_cm: float = 8.0,
    at: ArrayLike | None = None,
) -> Figure:
    """Draw a mean over seeds with its 50% and 90% bands.

    mean: (T,); quantiles: (5, T) at 5, 25, 50, 75, 95% over seeds; width_cm: printed width; at: (T,) the round
    of each point, default 1 .. T.
    """
    average, bands = np.asarray(mean, dtype=np.float64), np.asarray(quantiles, dtype=np.float64)
    if bands.shape != (5, *average.shape):
        raise Refusal(f"quantiles have shape {bands.shape}; this mean asks for {(5, *average.shape)}")
    with rc():
        figure, axes = framed(width_cm, title, subtitle)
        rounds = np.arange(1, len(average) + 1) if at is None else np.asarray(at)
        axes.fill_between(rounds, bands[0], bands[4], color=BLUE, alpha=0.18, lw=0)
        axes.fill_between(rounds, bands[1], bands[3], color=BLUE, alpha=0.30, lw=0)
        axes.plot(rounds, average, color=BLUE, lw=1.4)
        over_rounds(axes, int(rounds[-1]), float(max(bands.max(), average.max())), ylabel)
        make_room(axes)
        ends = [(bands[0], "5%"), (bands[1], "25%"), (bands[3], "75%"), (bands[4], "95%")]
        labels = [EndLabel(float(curve[-1]), name, BLUE) for curve, name in ends]
        label_ends(axes, [*labels, EndLabel(float(average[-1]), "mean", BLUE, "bold")])
    return figure


def draw_error_vs_eta(
    etas: ArrayLike,
    errors: Mapping[str, ArrayLike],
    title: str,
    subtitle: str = "",
    ylabel: str = "relative error",
    width_cm: float = 8.0,
) -> Figure:
    """Draw errors against the step size on log-log axes, beside a guide of slope 1 (error = const * eta).

    etas: (E,) > 0; errors: name -> (E,) > 0, one line each (zeros cannot be shown and are left out).  The
    guide runs through the middle point of the first line.
    """
    steps = np.asarray(etas, dtype=np.float64)
    if not errors:
        raise Refusal("errors is empty; give at least one named line")
    if len(errors) > len(CYCLE):
        raise Refusal(f"errors holds {len(errors)} lines; at most {len(CYCLE)} colours can be told apart")
    with rc():
        figure, axes = framed(width_cm, title, subtitle)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends: list[EndLabel] = []
        order = np.argsort(steps)
        for colour, (name, line) in zip(CYCLE, errors.items(), strict=False):
            x, y = steps[order], np.asarray(line, dtype=np.float64)[order]
            x, y = x[y > 0], y[y > 0]
            if not len(y):
                raise Refusal(f"errors[{name!r}] has no positive value; a log axis has nothing to show")
            if not ends:
                guide = steps[order] * y[len(y) // 2] / x[len(x) // 2]
                axes.plot(steps[order], guide, color=GREY, lw=0.8, dashes=(1.5, 1.5))
                ends.append(EndLabel(float(guide[-1]), "slope 1", GREY))
            axes.plot(x, y, color=colour, marker="o", ms=2.8, lw=1.0, clip_on=False)
            ends.append(EndLabel(float(y[-1]), name, colour, "bold"))
        axes.set_xlim(0.8 * steps.min(), steps.max())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(numticks=6))
            axis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("step size η")
        axes.set_ylabel(ylabel)
        make_room(axes)
        label_ends(axes, ends)
    return figure
