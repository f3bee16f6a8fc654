"""The overlay: what the run did, on top of what was forecast from the base model alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures.frame import framed, make_room, over_rounds, stacked
from figures.labels import EndLabel, label_ends
from figures.style import BLUE, GREEN, GREY, INK, PURPLE, SMALL, VERMILLION, rc
from theory.refusal import Refusal

Array = NDArray[np.float64]
COMPARISONS = {
    "sequence_kernel": ("sequence\nkernel", VERMILLION, 0.8, (4.0, 2.0)),
    "tabular": ("tabular\nbandit", GREEN, 1.0, (1.2, 1.2)),
    "apart": ("queries\napart", PURPLE, 0.8, (3.0, 1.0, 1.0, 1.0)),
}
"""Label, colour, width and dashes of what the forecast is compared with, by the name of its engine."""


@dataclass(frozen=True)
class Panel:
    """One set of queries, already averaged and smoothed, all curves with one window.

    Arguments:
        observed: (T,) mean over replicas.
        mean, quantiles: (T,) and (5, T) the forecast of it, and its 5, 25, 50, 75, 95%.
        comparisons: engine -> (T,) its mean; engines of `COMPARISONS`.
        p0, p0_low, p0_high: base success with its 95% interval.
        rounds: (T,) at which there are numbers; default 1 .. T.
        title: above the panel, where there are several.
        replica_low, replica_high: (T,) one standard deviation of the replicas' own smoothed curves below and above the
            mean, within [0, 1], or None to leave it out.
    Errors: Refusal naming the curve whose length is another.
    """

    observed: Array
    mean: Array
    quantiles: Array
    comparisons: Mapping[str, Array]
    p0: float
    p0_low: float
    p0_high: float
    rounds: NDArray[np.integer] | None = None
    title: str = ""
    replica_low: Array | None = None
    replica_high: Array | None = None

    def __post_init__(self) -> None:
        there = np.shape(self.observed)
        curves = {"mean": self.mean, **self.comparisons}
        for name, curve in curves.items():
            if np.shape(curve) != there:
                raise Refusal(f"{name} has shape {np.shape(curve)}, observed {there}: want {there}")
        if np.shape(self.quantiles) != (5, *there):
            raise Refusal(
                f"quantiles have shape {np.shape(self.quantiles)}, observed {there}: want {(5, *there)}"
            )
        if (self.replica_low is None) != (self.replica_high is None):
            raise Refusal("replica_low and replica_high come together; give both or neither")

    @property
    def at(self) -> NDArray[np.integer]:
        return np.arange(1, len(self.observed) + 1) if self.rounds is None else self.rounds

    @property
    def highest(self) -> float:
        curves = (self.observed, self.quantiles, *self.comparisons.values())
        highest = max([self.p0_high, *(float(np.max(curve)) for curve in curves)])
        if self.replica_high is None:
            return highest
        # Where p is small one standard deviation dwarfs the means; let it run out of the axes then.
        return min(max(highest, float(np.max(self.replica_high))), 1.5 * highest)


@dataclass(frozen=True)
class OverlayData:
    """Everything the picture shows: title, the line under it, and a panel for each set of queries."""

    title: str
    model: str
    replicas: int
    eta: float
    panels: Sequence[Panel] = field(default=())


def draw_overlay(data: OverlayData, width_cm: float = 8.0) -> Figure:
    """Draw forecast band, observed mean, comparisons and p0; text keeps its size at any width.

    data: smoothed arrays; width_cm: printed width, at least 7.  Returns a figure that no pyplot state knows;
    write it with `figures.style.save_figure`.
    Errors: Refusal below 7 cm.
    """
    with rc():
        keep = f", {data.replicas} replicas, η = {data.eta:g}, nothing fitted"
        end = max(int(panel.at[-1]) for panel in data.panels)
        if len(data.panels) == 1:
            figure, axes = framed(width_cm, data.title, data.model, keep)
            _panel(axes, data.panels[0], end, last=True)
            return figure
        figure, below = stacked(width_cm, data.title, data.model, keep, len(data.panels))
        for axes, panel in zip(below, data.panels, strict=True):
            _panel(axes, panel, end, last=axes is below[-1])
            axes.set_title(panel.title, fontsize=SMALL, loc="left", pad=2)
    return figure


def _panel(axes: Axes, panel: Panel, end: int, *, last: bool) -> None:
    at = panel.at
    low90, low50, _, high50, high90 = panel.quantiles
    if panel.replica_low is not None and panel.replica_high is not None:
        axes.fill_between(at, panel.replica_low, panel.replica_high, color="#E8E8E8", lw=0, zorder=1)
    axes.fill_between(at, low90, high90, color=BLUE, alpha=0.20, lw=0, zorder=2)
    axes.fill_between(at, low50, high50, color=BLUE, alpha=0.30, lw=0, zorder=2)
    for engine, curve in panel.comparisons.items():
        _, colour, width, dashes = COMPARISONS[engine]
        axes.plot(at, curve, color=colour, lw=width, dashes=dashes, zorder=3)
    axes.plot(at, panel.mean, color=BLUE, lw=1.0, zorder=4)
    axes.plot(at, panel.observed, color=INK, lw=1.4, zorder=5)
    errors = [[panel.p0 - panel.p0_low], [panel.p0_high - panel.p0]]
    axes.errorbar(
        0, panel.p0, yerr=errors, fmt="o", ms=2.2, color=INK, mec="none", elinewidth=0.8,
        capsize=2, capthick=0.8, zorder=6, clip_on=False,
    )  # fmt: skip
    # A sliver left of round 0 makes room for the marker.
    over_rounds(axes, end, panel.highest, "success probability", start=-0.05 * end)
    if not last:
        axes.set_xlabel("")
        axes.set_xticklabels([])
    _p0_label(axes, panel)
    make_room(axes)
    label_ends(axes, _labels(panel))


def _labels(panel: Panel) -> list[EndLabel]:
    labels = [
        EndLabel(panel.observed[-1], "observed", INK, "bold"),
        EndLabel(panel.mean[-1], "forecast\n50%, 90%", BLUE, "bold"),
    ]
    for engine, curve in panel.comparisons.items():
        text, colour, *_ = COMPARISONS[engine]
        labels.append(EndLabel(curve[-1], text, colour))
    if panel.replica_low is not None:
        labels.append(EndLabel(panel.replica_low[-1], "replicas\n± 1 sd", GREY))
    return labels


def _p0_label(axes: Axes, panel: Panel) -> None:
    """Name the marker on the side the curves leave free: below it where there is room, else above."""
    below = panel.p0_low > 0.2 * axes.get_ylim()[1]
    at, shift, anchor = (panel.p0_low, -2.5, "top") if below else (panel.p0_high, 2.5, "bottom")
    axes.annotate("p₀", (0, at), (-2, shift), textcoords="offset points", ha="center", va=anchor, zorder=7)
