"""Direct labels at the right end of curves, spread until none overlaps, and text cut to a width."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from figures.style import SMALL


class EndLabel(NamedTuple):
    """Text beside the end of a curve: its height in data units, its words, its colour."""

    y: float
    text: str
    colour: str
    weight: str = "normal"


def spread(centres: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Positions nearest to `centres` (least squares) at which boxes of `heights` do not overlap.

    Order is kept, and boxes stay in [low, high].  Boxes that touch are merged into a block which sits at the
    mean of its members' wishes (pool adjacent violators).  All lengths in one unit.
    Valid when sum(heights) <= high - low; otherwise the boxes start at `low` and run past `high`.
    """
    order = sorted(range(len(centres)), key=lambda i: centres[i])
    blocks: list[tuple[list[int], float]] = []  # members bottom to top, bottom edge
    for i in order:
        members, bottom = [i], _clamp(centres[i] - heights[i] / 2, low, high - heights[i])
        while blocks and bottom < blocks[-1][1] + sum(heights[j] for j in blocks[-1][0]):
            members = blocks.pop()[0] + members
            below = np.cumsum([0.0, *(heights[j] for j in members)])
            wishes = [centres[j] - heights[j] / 2 - below[k] for k, j in enumerate(members)]
            bottom = _clamp(float(np.mean(wishes)), low, high - float(below[-1]))
        blocks.append((members, bottom))
    placed = [0.0] * len(centres)
    for members, bottom in blocks:
        for i in members:
            placed[i] = bottom + heights[i] / 2
            bottom += heights[i]
    return placed


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


def label_ends(axes: Axes, labels: Sequence[EndLabel], gap: float = 1.5) -> list[Text]:
    """Write labels right of the axes, each tied to the end of its curve by a thin leader.

    Call last: axes limits and position must be final.  gap: least space between labels, points.
    """
    figure = axes.figure
    point = figure.dpi / 72
    box = axes.get_window_extent()
    ends = [float(axes.transData.transform((axes.get_xlim()[1], label.y))[1]) for label in labels]
    left = box.x1 + 9 * point
    texts = [
        figure.text(0, 0, label.text, color=label.colour, weight=label.weight, fontsize=SMALL, va="center")
        for label in labels
    ]
    heights = [size(text)[1] + gap * point for text in texts]
    # The margin above and below the axes is free, so labels may use a little of it.
    centres = spread(ends, heights, box.y0 - 4 * point, box.y1 + 4 * point)
    to_axes = axes.transAxes.inverted()
    to_figure = figure.transFigure.inverted()
    for label, text, end, centre in zip(labels, texts, ends, centres, strict=True):
        x, y = to_figure.transform((left, centre))
        text.set_position((float(x), float(y)))
        corners = [(box.x1 + 1 * point, end), (box.x1 + 3 * point, end), (left - 2.5 * point, centre)]
        x, y = np.transpose([to_axes.transform(corner) for corner in corners])
        axes.plot(x, y, color=label.colour, lw=0.5, alpha=0.7, transform=axes.transAxes, clip_on=False)
    return texts


def renderer(figure: Figure) -> RendererAgg:
    """What measures text of a figure made by `figures.style.new_figure`."""
    if not isinstance(figure.canvas, FigureCanvasAgg):
        raise TypeError("the figure has no Agg canvas; make it with figures.style.new_figure")
    return figure.canvas.get_renderer()


def size(text: Text) -> tuple[float, float]:
    """Width and height of a text as drawn, in pixels of its figure."""
    figure = text.get_figure(root=True)
    assert figure is not None
    box = text.get_window_extent(renderer(figure))
    return box.width, box.height


def fit(text: Text, width: float, keep: str = "") -> Text:
    """Put a text on one line and cut it to `width` pixels, with an ellipsis; `keep` follows, never cut."""
    text.set_parse_math(False)  # queries may hold dollar signs
    words = " ".join(text.get_text().split())
    text.set_text(words + keep)
    if size(text)[0] <= width:
        return text

    def too_wide(end: int) -> bool:
        text.set_text(words[:end].rstrip() + "…" + keep)
        return bool(size(text)[0] > width)

    # Words grow with their letters, so bisect: a query may be a page long.
    end = max(bisect_left(range(len(words) + 1), True, key=too_wide) - 1, 0)
    text.set_text(words[:end].rstrip() + "…" + keep)
    return text
