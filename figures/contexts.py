"""Several queries at once: success on those trained on, and on those held out, over what was foretold of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from figures.frame import BOTTOM, EDGE, LEFT, RIGHT, TOP, make_room, over_rounds
from figures.labels import EndLabel, fit, label_ends
from figures.style import BLUE, CM, GREEN, GREY, INK, MEDIUM, SMALL, new_figure, rc
from theory.refusal import Refusal

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One set of queries: rounds (T,) at which there are numbers; p0; observed (T,); the joint kernel's mean (T,)
    and its quantiles (5, T) at 5, 25, 50, 75, 95%; apart (T,): the mean without the kernel between queries."""

    title: str
    rounds: NDArray[np.integer]
    p0: float
    observed: Array
    mean: Array
    quantiles: Array
    apart: Array


def draw_contexts(title: str, subtitle: str, panels: list[Panel], width_cm: float = 8.0) -> Figure:
    """One panel above the other, on the same axes of rounds; text keeps its size at any width.

    width_cm: printed width, at least 7.  Returns a figure that no pyplot state knows; write it with
    `figures.style.save_figure`.
    Errors: Refusal below 7 cm.
    """
    if width_cm < 7:
        raise Refusal(f"width_cm is {width_cm}; labels of {SMALL} pt need at least 7")
    with rc():
        each = 0.36 * width_cm
        height = TOP + len(panels) * (each + 0.45) + BOTTOM - 0.2
        figure = new_figure(width_cm, height)
        room = (width_cm - 2 * EDGE) * CM * figure.dpi
        x = EDGE / width_cm
        fit(
            figure.text(x, 1 - EDGE / height, title, fontsize=MEDIUM, color=INK, weight="bold", va="top"),
            room,
        )
        low = 1 - (EDGE + 0.38) / height
        fit(figure.text(x, low, subtitle, fontsize=SMALL, color=GREY, va="top"), room, ", nothing fitted")
        for i, panel in enumerate(panels):
            bottom = BOTTOM + (len(panels) - 1 - i) * (each + 0.45)
            box = (LEFT / width_cm, bottom / height, 1 - (LEFT + RIGHT) / width_cm, each / height)
            end = max(int(p.rounds[-1]) for p in panels)
            _panel(figure.add_axes(box), panel, end, last=i == len(panels) - 1)
    return figure


def _panel(axes: Axes, panel: Panel, end: int, *, last: bool) -> None:
    low90, low50, _, high50, high90 = panel.quantiles
    at = panel.rounds
    axes.fill_between(at, low90, high90, color=BLUE, alpha=0.20, lw=0, zorder=2)
    axes.fill_between(at, low50, high50, color=BLUE, alpha=0.30, lw=0, zorder=2)
    axes.axhline(panel.p0, color=GREY, lw=0.6, dashes=(1, 2), zorder=1)
    axes.plot(at, panel.apart, color=GREEN, lw=1.0, dashes=(1.2, 1.2), zorder=3)
    axes.plot(at, panel.mean, color=BLUE, lw=1.0, zorder=4)
    axes.plot(at, panel.observed, color=INK, lw=1.4, zorder=5)
    highest = max(float(np.max(c)) for c in (panel.observed, panel.quantiles, panel.apart))
    over_rounds(axes, end, highest, "success probability", start=1)
    if not last:
        axes.set_xlabel("")
        axes.set_xticklabels([])
    axes.set_title(panel.title, fontsize=SMALL, loc="left", pad=2)
    make_room(axes)
    label_ends(
        axes,
        [
            EndLabel(panel.observed[-1], "observed", INK, "bold"),
            EndLabel(panel.mean[-1], "forecast\n50%, 90%", BLUE, "bold"),
            EndLabel(panel.apart[-1], "queries\napart", GREEN),
            EndLabel(panel.p0, "p₀", GREY),
        ],
    )
