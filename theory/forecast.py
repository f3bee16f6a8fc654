"""A forecast as plain arrays: draws of what a run will show, and the exact success behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SETS = ("training", "held_out")
"""Queries that are trained on, and queries that are not."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of a band."""


@dataclass(frozen=True)
class Forecast:
    """What is forecast of each set of queries, by each engine.

    Engines: "kernel", the forecast itself; for comparison "apart" (the kernel without what one query does to another),
    "sequence_kernel" (whole responses in place of tokens) and "tabular" (responses that share nothing).

    Arguments:
        members: (engine, set) -> (M, T) draws of what a run shows: the mean over S replicas of the outcomes of each
            round's rollouts, or (M, E) of each look at the held-out queries; not smoothed.
        success: (engine, set) -> (T + 1,) or (E + 1,) mean over simulated replicas of the exact success of the set's
            queries, before each of these rounds and after the last update.
        at: set -> (T + 1,) or (E + 1,) updates made by then.
        step: nats by which one update moves a correct response at the most.
        seconds: what simulating took.
    """

    members: dict[tuple[str, str], Array]
    success: dict[tuple[str, str], Array]
    at: dict[str, NDArray[np.int64]]
    step: float
    seconds: float

    @property
    def engines(self) -> list[str]:
        return list(dict.fromkeys(engine for engine, _ in self.members))

    @property
    def sets(self) -> list[str]:
        return list(dict.fromkeys(name for _, name in self.members))

    def ends(self, name: str) -> tuple[float, float]:
        """Success of a set in the base model and after the last update."""
        curve = self.success["kernel", name]
        return float(curve[0]), float(curve[-1])
