"""The overlay: what the run did, on top of what the base model alone foretold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures.frame import framed, make_room, over_rounds
from figures.labels import EndLabel, label_ends
from figures.style import BLUE, GREEN, GREY, INK, VERMILLION, rc
from theory.refusal import Refusal

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OverlayData:
    """Everything the picture shows, already averaged and smoothed (all curves with one window).

    title: the query; model, replicas S, eta: the line under it; p0, p0_low, p0_high: base success with its
    95% interval; observed (T,): mean over replicas; replica_low, replica_high (T,): one standard deviation of
    the replicas' own smoothed curves below and above that mean, within [0, 1], or None to leave it out;
    kernel_mean (T,) and kernel_quantiles (5, T): tree-kernel forecast of the observed mean, at 5, 25, 50, 75,
    95%; sequence_mean, tabular_mean (T,): the comparisons.
    """

    title: str
    model: str
    replicas: int
    eta: float
    p0: float
    p0_low: float
    p0_high: float
    observed: Array
    kernel_mean: Array
    kernel_quantiles: Array
    sequence_mean: Array
    tabular_mean: Array
    replica_low: Array | None = None
    replica_high: Array | None = None

    def __post_init__(self) -> None:
        rounds = np.shape(self.observed)
        wanted = {"kernel_quantiles": (5, *rounds)}
        for name in ("kernel_mean", "kernel_quantiles", "sequence_mean", "tabular_mean"):
            shape = np.shape(getattr(self, name))
            if shape != wanted.get(name, rounds):
                raise Refusal(f"{name} has shape {shape}, observed {rounds}: want {wanted.get(name, rounds)}")
        if (self.replica_low is None) != (self.replica_high is None):
            raise Refusal("replica_low and replica_high come together; give both or neither")


def draw_overlay(data: OverlayData, width_cm: float = 8.0) -> Figure:
    """Draw forecast band, observed mean, comparisons and p0; text keeps its size at any width.

    data: smoothed arrays; width_cm: printed width, at least 7.  Returns a figure that no pyplot state knows;
    write it with `figures.style.save_figure`.
    """
    with rc():
        keep = f", {data.replicas} replicas, η = {data.eta:g}, nothing fitted"
        figure, axes = framed(width_cm, data.title, data.model, keep)
        rounds = np.arange(1, len(data.observed) + 1)
        low90, low50, _, high50, high90 = data.kernel_quantiles
        if data.replica_low is not None and data.replica_high is not None:
            axes.fill_between(rounds, data.replica_low, data.replica_high, color="#E8E8E8", lw=0, zorder=1)
        axes.fill_between(rounds, low90, high90, color=BLUE, alpha=0.20, lw=0, zorder=2)
        axes.fill_between(rounds, low50, high50, color=BLUE, alpha=0.30, lw=0, zorder=2)
        axes.plot(rounds, data.sequence_mean, color=VERMILLION, lw=0.8, dashes=(4, 2), zorder=3)
        axes.plot(rounds, data.tabular_mean, color=GREEN, lw=1.0, dashes=(1.2, 1.2), zorder=3)
        axes.plot(rounds, data.kernel_mean, color=BLUE, lw=1.0, zorder=4)
        axes.plot(rounds, data.observed, color=INK, lw=1.4, zorder=5)
        errors = [[data.p0 - data.p0_low], [data.p0_high - data.p0]]
        axes.errorbar(
            0, data.p0, yerr=errors, fmt="o", ms=2.2, color=INK, mec="none", elinewidth=0.8,
            capsize=2, capthick=0.8, zorder=6, clip_on=False,
        )  # fmt: skip
        # A sliver left of round 0 makes room for the marker.
        over_rounds(axes, len(rounds), _highest(data), "success probability", start=-0.05 * len(rounds))
        _p0_label(axes, data)
        make_room(axes)
        label_ends(axes, _labels(data))
    return figure


def _labels(data: OverlayData) -> list[EndLabel]:
    labels = [
        EndLabel(data.observed[-1], "observed", INK, "bold"),
        EndLabel(data.kernel_mean[-1], "forecast\n50%, 90%", BLUE, "bold"),
        EndLabel(data.sequence_mean[-1], "sequence\nkernel", VERMILLION),
        EndLabel(data.tabular_mean[-1], "tabular\nbandit", GREEN),
    ]
    if data.replica_low is not None:
        labels.append(EndLabel(data.replica_low[-1], "replicas\n± 1 sd", GREY))
    return labels


def _highest(data: OverlayData) -> float:
    curves = (data.observed, data.kernel_quantiles, data.sequence_mean, data.tabular_mean)
    highest = max([data.p0_high, *(float(np.max(curve)) for curve in curves)])
    if data.replica_high is None:
        return highest
    # Where p is small one standard deviation dwarfs the means; let it run out of the axes then.
    return min(max(highest, float(np.max(data.replica_high))), 1.5 * highest)


def _p0_label(axes: Axes, data: OverlayData) -> None:
    """Name the marker on the side the curves leave free: below it where there is room, else above."""
    below = data.p0_low > 0.2 * axes.get_ylim()[1]
    at, shift, anchor = (data.p0_low, -2.5, "top") if below else (data.p0_high, 2.5, "bottom")
    axes.annotate("p₀", (0, at), (-2, shift), textcoords="offset points", ha="center", va=anchor, zorder=7)
