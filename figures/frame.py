"""The frame all figures share: one axes, two lines of words above it, room for labels on its right."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.labels import fit, renderer
from figures.style import CM, GREY, INK, MEDIUM, SMALL, new_figure
from theory.refusal import Refusal

EDGE = 0.12  # cm kept free along the border of the figure
LEFT, RIGHT, BOTTOM, TOP = 1.0, 1.85, 0.86, 0.98  # margins around the axes, cm, whatever the figure's width


def framed(width_cm: float, title: str, subtitle: str, keep: str = "") -> tuple[Figure, Axes]:
    """A figure with its axes and words; both lines are cut to fit, but `keep`, after the subtitle, never is.

    width_cm: printed width; the height follows from it.
    Errors: Refusal below 7 cm, where labels of the smallest size leave no room for the axes.
    """
    height_cm = 0.55 * width_cm + 1.4
    figure = _titled(width_cm, height_cm, title, subtitle, keep)
    axes = figure.add_axes(
        (LEFT / width_cm, BOTTOM / height_cm, 1 - (LEFT + RIGHT) / width_cm, 1 - (BOTTOM + TOP) / height_cm)
    )
    return figure, axes


def stacked(width_cm: float, title: str, subtitle: str, keep: str, count: int) -> tuple[Figure, list[Axes]]:
    """As `framed`, with `count` axes one above the other, the first on top."""
    each, gap = 0.36 * width_cm, 0.45
    height_cm = TOP + count * (each + gap) + BOTTOM - 0.2
    figure = _titled(width_cm, height_cm, title, subtitle, keep)
    return figure, [
        figure.add_axes(
            (
                LEFT / width_cm,
                (BOTTOM + (count - 1 - i) * (each + gap)) / height_cm,
                1 - (LEFT + RIGHT) / width_cm,
                each / height_cm,
            )
        )
        for i in range(count)
    ]


def _titled(width_cm: float, height_cm: float, title: str, subtitle: str, keep: str) -> Figure:
    if width_cm < 7:
        raise Refusal(f"width_cm is {width_cm}; labels of {SMALL} pt need at least 7")
    figure = new_figure(width_cm, height_cm)
    room = (width_cm - 2 * EDGE) * CM * figure.dpi
    x, high, low = EDGE / width_cm, 1 - EDGE / height_cm, 1 - (EDGE + 0.38) / height_cm
    fit(figure.text(x, high, title, fontsize=MEDIUM, color=INK, weight="bold", va="top"), room)
    fit(figure.text(x, low, subtitle, fontsize=SMALL, color=GREY, va="top"), room, keep)
    return figure


def over_rounds(axes: Axes, rounds: int, highest: float, ylabel: str, start: float = 0.0) -> None:
    """Axes of a probability over rounds `start` .. T, from 0 to just above `highest`."""
    axes.set_xlim(start, max(rounds, 2))
    axes.spines["bottom"].set_bounds(max(start, 0), max(rounds, 2))
    axes.set_ylim(0, min(max(1.06 * highest, 0.02), 1.02))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    name_rounds(axes)
    axes.set_ylabel(ylabel)


def name_rounds(axes: Axes) -> None:
    """Ticks and label of an axis of rounds: whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.set_xlabel("round (updates)")


def make_room(axes: Axes) -> None:
    """Move the left edge of the axes so that tick labels and y label end just inside the figure."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    outside = axes.yaxis.get_tightbbox(renderer(figure))
    if outside is None:
        return
    box = axes.get_position()
    shift = EDGE * CM / figure.get_figwidth() - outside.x0 / figure.bbox.width
    axes.set_position((box.x0 + shift, box.y0, box.width - shift, box.height))
