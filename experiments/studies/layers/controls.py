"""Negative controls: where a theory must fail, does it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.scoring.smoothing import default_width, smooth
from experiments.studies.layers.judge import effect
from experiments.studies.layers.ladder import Layer
from experiments.studies.layers.measures import gain
from experiments.studies.layers.record import Prediction, Result
from experiments.studies.layers.run import Cell

MATTERS = 0.05
"""Mean absolute difference of two predicted curves from which on a layer is said to matter."""
SURE = 3.0
"""Standard errors of the run by which the wrong theory must miss more than the right one."""


class Control(NamedTuple):
    """One control: the misses (mean absolute, in success probability) of the right and of the wrong theory.

    `error` is the standard error of the difference of the two; `failed_as_it_must` is None where the layer does not
    matter, so that nothing must fail.
    """

    what: str
    world: str
    right: float
    wrong: float
    error: float
    failed_as_it_must: bool | None


def controls(layers: Sequence[Layer], worlds: Mapping[str, Mapping[str, Cell]]) -> list[Control]:
    """All controls that the runs allow."""
    return [
        *(c for name, there in worlds.items() for c in _of_ladder(name, layers, there)),
        *(c for name, there in worlds.items() for c in _without_sharing(name, there)),
        *(c for name, there in worlds.items() for c in _shuffled(name, there)),
    ]


def _of_ladder(name: str, layers: Sequence[Layer], there: Mapping[str, Cell]) -> list[Control]:
    """The lowest layer's theory on the data of each layer that stands on it."""
    lowest = there.get(layers[0].shows[0])
    below = None if lowest is None else lowest.prediction
    found = []
    for layer in layers[1:]:
        for key in layer.shows:
            cell = there.get(key)
            if cell is None or cell.result is None or cell.prediction is None or below is None:
                continue
            words = f"theory of {layers[0].name} on {key}"
            found += _against(words, name, cell.result, cell.prediction, below.success)
            break
    return found


def _without_sharing(name: str, there: Mapping[str, Cell]) -> list[Control]:
    """The theory of responses that share nothing, on responses that do."""
    cell = there.get("minimalist/minimalist")
    if cell is None or cell.result is None or cell.prediction is None:
        return []
    return _against("tabular theory", name, cell.result, cell.prediction, cell.prediction.without_sharing)


def _against(
    what: str, world: str, run: Result, right: Prediction, wrong: Sequence[float] | None
) -> list[Control]:
    if right.success is None or wrong is None or len(wrong) != run.success.shape[1]:
        return []
    curves = smooth(run.success, default_width(run.success.shape[1]) if run.rollouts else 1)
    mean = curves.mean(axis=0)
    misses = [np.abs(mean - np.array(curve)).mean() for curve in (right.success, wrong)]
    # To first order in the run's noise: each round's miss moves with the sign of its own deviation.
    signs = np.sign(mean - np.array(wrong)) - np.sign(mean - np.array(right.success))
    error = float((curves * signs).mean(axis=1).std(ddof=1) / np.sqrt(len(curves)))
    matters = np.abs(np.array(right.success) - np.array(wrong)).mean() >= MATTERS
    failed = bool(misses[1] - misses[0] > SURE * error) if matters else None
    return [Control(what, world, float(misses[0]), float(misses[1]), error, failed)]


def _shuffled(name: str, there: Mapping[str, Cell]) -> list[Control]:
    """A reward that says nothing: the gain must be none, where the true reward's is not."""
    cells = [there.get(key) for key in ("reward/shuffled", "minimalist/minimalist")]
    runs = [None if cell is None else cell.result for cell in cells]
    if runs[0] is None or runs[1] is None:
        return []
    seen, true = (effect([(gain(run), 1)]) for run in runs if run is not None)
    learns_nothing = seen.high < MATTERS < true.low
    return [
        Control(
            "shuffled reward (gain of the true and of the shuffled one)", name, true.mean, seen.mean, seen.error,
            bool(learns_nothing),
        )
    ]  # fmt: skip
