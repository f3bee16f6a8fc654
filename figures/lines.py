"""Several curves on one axes: each with its band, labelled at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from figures.frame import framed, make_room
from figures.labels import EndLabel, label_ends
from figures.style import CYCLE, GREY, rc
from theory.refusal import Refusal


@dataclass(frozen=True)
class Line:
    """One curve: x and y (T,), its name, an optional band (2, T) around it; dashed for a law beside a simulation.

    points: single marks, with the band as bars, where a line between them would promise more than was computed.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    band: ArrayLike | None = None
    dashed: bool = False
    colour: str | None = None
    points: bool = False


def draw_lines(
    lines: Sequence[Line],
    title: str,
    subtitle: str = "",
    xlabel: str = "round (updates)",
    ylabel: str = "success probability",
    log_x: bool = False,
    log_y: bool = False,
    limits: tuple[float, float] | None = None,
    width_cm: float = 8.0,
) -> Figure:
    """Draw up to six curves on one axes.

    limits: of y; default 0 to just above the highest point (its own range on a log axis).
    Errors: Refusal for no line, too many to be told apart, or shapes that disagree.
    """
    if not lines:
        raise Refusal("lines is empty; give at least one")
    plain = [line for line in lines if line.colour is None]
    if len(plain) > len(CYCLE):
        raise Refusal(f"lines holds {len(plain)} curves; at most {len(CYCLE)} colours can be told apart")
    colours = iter(CYCLE)
    with rc():
        figure, axes = framed(width_cm, title, subtitle)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        ends: list[EndLabel] = []
        highest, left, right = -np.inf, np.inf, -np.inf
        for line in lines:
            x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
            if x.shape != y.shape or x.ndim != 1:
                raise Refusal(f"line {line.name!r}: x has shape {x.shape}, y {y.shape}; give both (T,)")
            colour = line.colour or next(colours)
            if line.band is not None:
                low, high = np.asarray(line.band, np.float64)
                if line.points:
                    axes.vlines(x, low, high, color=colour, lw=0.8, clip_on=False)
                else:
                    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
                highest = max(highest, float(np.nanmax(high)))
            if line.points:
                axes.plot(x, y, color=colour, ls="none", marker="o", ms=2.8, zorder=4, clip_on=False)
            else:
                style = (0, (2.2, 1.6)) if line.dashed else "-"
                axes.plot(
                    x,
                    y,
                    color=colour,
                    lw=0.9 if line.dashed else 1.4,
                    ls=style,
                    zorder=5 if line.dashed else 3,
                )
            highest = max(highest, float(np.nanmax(y)))
            left, right = min(left, float(_shown(x, log_x).min())), max(right, float(x.max()))
            if line.name:
                weight = "normal" if line.dashed or colour == GREY else "bold"
                ends.append(EndLabel(float(y[np.isfinite(y)][-1]), line.name, colour, weight))
        axes.set_xlim(left, right)
        if limits is not None:
            axes.set_ylim(*limits)
        elif not log_y:
            axes.set_ylim(0, min(1.06 * highest, 1.02) if highest <= 1.02 else 1.06 * highest)
        for axis, log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
            low, high = sorted(axis.get_view_interval())
            if log and high < 50 * low:  # powers of ten alone would leave the axis all but bare
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
                axis.set_major_formatter(lambda value, _: f"{value:g}")
                axis.set_minor_formatter(NullFormatter())
            elif log:
                axis.set_major_locator(LogLocator(numticks=6))
                axis.set_minor_formatter(NullFormatter())
            else:
                axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        make_room(axes)
        label_ends(axes, ends)
    return figure


def _shown(x: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """The points that an axis can show: a log axis has no zero."""
    return x[x > 0] if log else x
