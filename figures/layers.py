"""The ladder of layers, one small multiple each, and phase diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from figures.frame import EDGE, name_rounds
from figures.labels import fit
from figures.style import BLUE, CM, GREY, INK, MEDIUM, SMALL, VERMILLION, new_figure, rc
from theory.refusal import Refusal

Array = NDArray[np.float64]
COLUMNS = 2
WIDTH, HEIGHT = 7.6, 4.4  # cm of one panel with its margins
LEFT, RIGHT = 1.15, 0.3  # of them, left and right of the axes
REASON = 46  # characters of a line of text in place of a run


@dataclass(frozen=True)
class Panel:
    """One layer of the ladder.

    title: its number and name; words: the variant shown, or why there is none (then no run).
    at, run, run_error (T,): rounds, mean success over seeds, its standard error.
    forecast_at, forecast (T,), band (2, T): what was forecast before the run, None where nothing was.
    below_at, below: mean success of the lowest layer, None for that one.
    """

    title: str
    words: str
    at: ArrayLike | None = None
    run: ArrayLike | None = None
    run_error: ArrayLike | None = None
    forecast_at: ArrayLike | None = None
    forecast: ArrayLike | None = None
    band: ArrayLike | None = None
    below_at: ArrayLike | None = None
    below: ArrayLike | None = None


def draw_ladder(panels: Sequence[Panel], title: str) -> Figure:
    """Forecast, run and the lowest layer, one small multiple per layer from the bottom up.

    Errors: Refusal for no panel.
    """
    if not panels:
        raise Refusal("panels is empty; give at least one layer")
    rows = -(-len(panels) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 1.2
    with rc():
        figure = new_figure(width, height)
        room = (width - 2 * EDGE) * CM * figure.dpi
        fit(
            figure.text(EDGE / width, 1 - EDGE / height, title, fontsize=MEDIUM, weight="bold", va="top"),
            room,
        )
        figure.legend(
            handles=[
                Line2D([], [], color=INK, lw=1.4, label="run, ± 2 standard errors"),
                Line2D([], [], color=BLUE, lw=1.0, label="forecast before the run"),
                Patch(color=BLUE, alpha=0.2, label="its 90% band"),
                Line2D([], [], color=GREY, lw=1.0, ls=(0, (2.2, 1.6)), label="run of the lowest layer"),
            ],
            loc="upper left",
            bbox_to_anchor=(0, 1 - 0.45 / height),
            ncols=4, frameon=False, fontsize=SMALL, borderpad=0.3, handlelength=1.6, columnspacing=1.2,
        )  # fmt: skip
        for i, panel in enumerate(panels):
            row, column = divmod(i, COLUMNS)
            left, bottom = WIDTH * column + LEFT, height - 1.2 - HEIGHT * (row + 1) + 0.8
            axes = figure.add_axes(
                (left / width, bottom / height, (WIDTH - LEFT - RIGHT) / width, (HEIGHT - 1.75) / height)
            )
            _panel(axes, panel, (WIDTH - LEFT - EDGE) * CM * figure.dpi)
    return figure


def _panel(axes: Axes, panel: Panel, room: float) -> None:
    axes.set_ylim(0, 1.02)
    fit(axes.text(0, 1.17, panel.title, transform=axes.transAxes, fontsize=MEDIUM, weight="bold"), room)
    words = {"transform": axes.transAxes, "fontsize": SMALL, "color": GREY}
    if panel.run is None or panel.at is None or panel.run_error is None:
        axes.text(0, 1.12, fill(panel.words, REASON), va="top", **words)
        axes.set_axis_off()
        return
    fit(axes.text(0, 1.05, panel.words, **words), room)
    run, at = np.asarray(panel.run, np.float64), np.asarray(panel.at, np.float64)
    error = 2 * np.asarray(panel.run_error, np.float64)
    if panel.below is not None and panel.below_at is not None:
        axes.plot(np.asarray(panel.below_at), panel.below, color=GREY, lw=1.0, ls=(0, (2.2, 1.6)), zorder=2)
    if panel.forecast is not None and panel.forecast_at is not None:
        if panel.band is not None:
            low, high = np.asarray(panel.band, np.float64)
            axes.fill_between(np.asarray(panel.forecast_at), low, high, color=BLUE, alpha=0.2, lw=0, zorder=1)
        axes.plot(np.asarray(panel.forecast_at), panel.forecast, color=BLUE, lw=1.0, zorder=3)
    axes.fill_between(at, run - error, run + error, color=INK, alpha=0.15, lw=0, zorder=3)
    axes.plot(at, run, color=INK, lw=1.4, zorder=4)
    axes.set_xlim(0, max(float(at.max()), 1.0))
    name_rounds(axes)
    axes.set_ylabel("success probability")


def draw_phase(
    x: ArrayLike,
    y: ArrayLike,
    values: ArrayLike,
    title: str,
    subtitle: str,
    xlabel: str,
    ylabel: str,
    zlabel: str,
    *,
    signed: bool = False,
    border: tuple[ArrayLike, ArrayLike] | None = None,
    points: tuple[ArrayLike, ArrayLike] | None = None,
    log: str = "x",
    width_cm: float = 9.6,
) -> Figure:
    """A map of values (Y, X) over x (X,) and y (Y,), each cell the colour of its value, with the number in it.

    signed: colours about zero. border: x and y of a law's line. points: marks. log: axes on log scale, "x", "xy".
    Errors: Refusal where the shapes disagree.
    """
    xs, ys, zs = (np.asarray(v, np.float64) for v in (x, y, values))
    if zs.shape != (len(ys), len(xs)):
        raise Refusal(f"values have shape {zs.shape}; x and y ask for {(len(ys), len(xs))}")
    height_cm = 7.2
    with rc():
        figure = new_figure(width_cm, height_cm)
        room = (width_cm - 2 * EDGE) * CM * figure.dpi
        top = 1 - EDGE / height_cm
        fit(figure.text(EDGE / width_cm, top, title, fontsize=MEDIUM, weight="bold", va="top"), room)
        fit(figure.text(EDGE / width_cm, top - 0.38 / height_cm, subtitle, color=GREY, va="top"), room)
        axes = figure.add_axes((1.2 / width_cm, 1.0 / height_cm, 1 - 3.0 / width_cm, 1 - 2.1 / height_cm))
        limit = float(np.abs(zs).max()) or 1.0
        scale = {"vmin": -limit, "vmax": limit, "cmap": "RdBu"} if signed else {"vmin": 0.0, "cmap": "Blues"}
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
        drawn = axes.pcolormesh(_edges(xs, "x" in log), _edges(ys, "y" in log), zs, **scale)
        if border is not None:
            axes.plot(np.asarray(border[0]), np.asarray(border[1]), color=VERMILLION, lw=1.4)
        if points is not None:
            axes.plot(np.asarray(points[0]), np.asarray(points[1]), color=INK, ls="none", marker="o", ms=2.6)
        if zs.size <= 64:
            for (row, column), value in np.ndenumerate(zs):
                dark = abs(value) > 0.6 * limit
                text = _short(value, 3 if limit < 0.05 else 2)
                axes.text(
                    float(xs[column]), float(ys[row]), text, ha="center", va="center", fontsize=SMALL,
                    color="white" if dark else INK,
                )  # fmt: skip
        if len(xs) <= 8:
            axes.set_xticks(xs, [f"{v:g}" for v in xs])
            axes.minorticks_off()
        for axis, used in ((axes.xaxis, "x" in log and len(xs) > 8), (axes.yaxis, "y" in log)):
            if used:
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.set_major_formatter(lambda value, _: f"{value:g}")
                axis.set_minor_formatter(NullFormatter())
        axes.set_xlim(*_edges(xs, "x" in log)[[0, -1]])
        axes.set_ylim(*_edges(ys, "y" in log)[[0, -1]])
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        bar = figure.colorbar(
            drawn, cax=figure.add_axes((1 - 1.55 / width_cm, 1.0 / height_cm, 0.025, 1 - 2.1 / height_cm))
        )
        bar.set_label(zlabel)
    return figure


def _short(value: float, digits: int) -> str:
    """A number without what a small cell has no room for: -0.25 is -.25, and what rounds to zero is 0."""
    text = f"{value:.{digits}f}"
    return "0" if float(text) == 0 else text.replace("0.", ".", 1)


def _edges(centres: Array, log: bool) -> Array:
    """Cell borders half way between centres, on the axis as it is drawn."""
    c = np.log(centres) if log else centres
    middle = (c[1:] + c[:-1]) / 2
    edges = np.concatenate([[2 * c[0] - middle[0]], middle, [2 * c[-1] - middle[-1]]])
    return np.exp(edges) if log else edges
