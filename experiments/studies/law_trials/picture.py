"""A law and its trial on one picture."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.studies.law_trials.trial import Held
from figures.lines import Line, draw_lines
from figures.style import CYCLE, INK
from theory.laws import LAWS
from theory.laws.arguments import Floats

POINTS = 12
"""Up to so many places a series is drawn as marks, not as a line."""


def lines_of(held: Held) -> list[Line]:
    """In colour what was seen of up to six series, as lines or as marks; dashed and black, their laws and bounds."""
    x = next(iter(held.series.values()))
    lines = []
    for colour, (name, s) in zip(CYCLE, held.seen.items(), strict=False):
        shown = np.ones(len(x), bool)
        if not _geometric(x) and len(s.at) > 1:
            edge = 0.1 * (x[s.at[-1]] - x[s.at[0]])
            shown = (x >= x[s.at[0]] - edge) & (x <= x[s.at[-1]] + edge)
        few = len(s.at) <= POINTS
        bars = np.stack([s.mean - 2 * s.error, s.mean + 2 * s.error]) if few else s.band
        bound = {"=": "", "<=": "bound: ", ">=": "lower: "}[s.sense]
        lines.append(Line("" if bound else name, x[s.at], s.mean, bars, colour=colour, points=few))
        lines.append(
            Line(bound and bound + name, x[shown], held.series[name][shown], dashed=True, colour=INK)
        )
    return lines


def draw_held(held: Held) -> Figure:
    """Errors: as `draw_lines`."""
    row, (along, x) = LAWS[held.trial.law], next(iter(held.series.items()))
    lines = lines_of(held)
    heights = np.concatenate([np.asarray(line.y, dtype=np.float64) for line in lines])
    log_y = bool(held.trial.relative and heights.min() > 0 and heights.max() > 30 * heights.min())
    shown = f"{held.seeds:,} seeds" if held.trial.seeds else "exact calculation"
    return draw_lines(
        lines, row.predicts, f"dashed: law; colour: {shown}; {held}", xlabel=along.replace("_", " "), ylabel="",
        log_x=_geometric(x), log_y=log_y, limits=None if log_y or heights.min() >= 0 else _around(heights),
    )  # fmt: skip


def _geometric(x: Floats) -> bool:
    """Whether an abscissa is even on a log scale."""
    return bool(len(x) > 2 and x.min() > 0 and x[-1] / x[0] > 30 and x[1] - x[0] < 0.2 * (x[-1] - x[-2]))


def _around(heights: Floats) -> tuple[float, float]:
    room = 0.05 * float(np.ptp(heights)) or 1.0
    return float(heights.min()) - room, float(heights.max()) + room
