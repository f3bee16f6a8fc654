"""The pictures of a run of the layers: what `figures.layers` draws, put together from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.scoring.smoothing import default_width, smooth
from experiments.studies.layers.ladder import Layer
from experiments.studies.layers.measures import held_out, scatter
from experiments.studies.layers.phases import ROLLOUTS, ROUNDS, Phases
from experiments.studies.layers.run import Cell
from figures.layers import Panel, draw_ladder, draw_phase
from figures.lines import Line, draw_lines


def ladder(world: str, layers: Sequence[Layer], there: Mapping[str, Cell]) -> Figure:
    """Every layer of one world: what was forecast, what came, and the minimalist layer at the bottom."""
    panels, below = [], None
    for layer in layers:
        title = f"{layer.number} {layer.name}"
        named = [there[key] for key in layer.shows if key in there]
        ran = [cell for cell in named if cell.result is not None]
        cell = (ran or named or [None])[0]
        if cell is None or cell.result is None:
            reason = "not run at this scale" if cell is None else cell.refused or "not run yet"
            panels.append(Panel(title, reason))
            continue
        run, told = cell.result, cell.prediction
        assert told is not None  # no result without one
        width = default_width(run.success.shape[1]) if run.rollouts else 1
        curves = smooth(run.success, width)
        panels.append(
            Panel(
                title,
                cell.variant.name,
                run.at,
                curves.mean(axis=0),
                curves.std(axis=0, ddof=1) / np.sqrt(len(curves)),
                told.at,
                told.success,
                None if told.low is None or told.high is None else np.array([told.low, told.high]),
                *(below or (None, None)),
            )
        )
        if layer.number == 0:
            below = (run.at, curves.mean(axis=0))
    return draw_ladder(panels, f"The layers, {world}")


def budget(there: Mapping[str, Cell]) -> Figure | None:
    """Held-out success and the scatter of runs over the split of 256 rollouts a round; None where they did not run."""
    names = {1: "raw-256x1", 2: "loo-128x2", 4: "loo-64x4", 8: "loo-32x8", 16: "loo-16x16", 32: "loo-8x32"}
    names |= {64: "loo-4x64", 128: "loo-2x128", 256: "loo-1x256"}
    found = {n: there[f"batch/{name}"].result for n, name in names.items() if f"batch/{name}" in there}
    runs = {n: run for n, run in found.items() if run is not None}
    if len(runs) < 3:
        return None
    groups = list(runs)
    ends = [held_out(run) for run in runs.values()]
    # The exact variance between runs of the mean over the run, which is what a noisy gradient costs.
    deviation = [float(np.sqrt(max(scatter(run).mean(), 0))) for run in runs.values()]
    errors = [float(np.std(e, ddof=1) / np.sqrt(len(e))) for e in ends if e is not None]
    mean = np.array([float(np.mean(e)) for e in ends if e is not None])
    band = np.array([mean - 2 * np.array(errors), mean + 2 * np.array(errors)])
    return draw_lines(
        [
            Line("held-out\nsuccess", groups, mean, band, points=True),
            Line("scatter\nbetween\nruns x 10", groups, 10 * np.array(deviation), points=True),
        ],
        "256 rollouts a round, split", "leave-one-out; one rollout per query: raw reward",
        xlabel="rollouts per query", ylabel="probability", log_x=True,
    )  # fmt: skip


def diagrams(found: Phases, eta: float) -> dict[str, Figure]:
    """The phase diagrams."""
    words = f"leave-one-out against raw reward, n = {ROLLOUTS}, {ROUNDS} rounds, η = {eta:g}"
    negative = f"-1 on failures, one rollout, {ROUNDS} rounds, η = {eta:g}; line: the law's p*"
    overlap = "overlap of correct and near wrong responses"
    c1, c3 = np.geomspace(0.0015, 0.05, 24), np.geomspace(0.05, 0.5, 24)
    group = 1 + np.sqrt(c3[:, None] / c1[None, :])
    return {
        "advantage": draw_phase(
            found.p0, found.cross, found.advantage, "What an advantage adds to mean success", words,
            "p0", overlap, "mean success over the run", signed=True,
        ),
        "steadiness": draw_phase(
            found.p0, found.cross, -found.steadier, "How much steadier an advantage is", words,
            "p0", overlap, "log2(variance of raw / compared)", signed=True,
        ),
        "negative": draw_phase(
            found.p0, found.cross, found.lost, "Where reward on failures collapses", negative,
            "p0", overlap, "share of runs that end below p0 / 2", border=(found.border, found.cross),
        ),
        "best-group": draw_phase(
            c1, c3, group, "The best group", "law: 1 + sqrt(c3 / c1); marks: sets of queries of the simulator",
            "c1, between queries", "c3, price of the baseline", "rollouts per query", log="xy",
            points=(found.c1, found.c3),
        ),
    }  # fmt: skip
