"""Curves: what a simulation or a run produced, per seed and round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.refusal import Refusal

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """Named metrics over (seed, round), float64; `curves["success"]` is one of them.

    Arguments:
        metrics: name -> (seeds, rounds) array; all of one shape. Copied and made read-only.
        at: (rounds,) the round of each column: how many updates came before it. Default 0, 1, 2, ...
    Errors: Refusal naming the metric and its shape; KeyError naming the metrics there are.
    """

    metrics: dict[str, Floats]
    at: NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not self.metrics:
            raise Refusal("curves.metrics is empty; give at least one metric, such as 'success'")
        frozen: dict[str, Floats] = {}
        for name, values in self.metrics.items():
            array = np.array(values, dtype=np.float64)
            if array.ndim != 2 or array.size == 0:
                raise Refusal(
                    f"curves.metrics[{name!r}] has shape {array.shape}; give (seeds, rounds), both >= 1"
                )
            shape = next(iter(frozen.values()), array).shape
            if array.shape != shape:
                raise Refusal(
                    f"curves.metrics[{name!r}] has shape {array.shape}, others {shape}; give all one shape"
                )
            array.setflags(write=False)
            frozen[name] = array
        object.__setattr__(self, "metrics", frozen)
        columns = next(iter(frozen.values())).shape[1]
        at = np.array(self.at) if len(self.at) else np.arange(columns)
        if at.shape != (columns,) or np.any(np.diff(at) <= 0):
            raise Refusal(f"curves.at is {at}; give {columns} increasing round numbers, one per column")
        at.setflags(write=False)
        object.__setattr__(self, "at", at)

    def __getitem__(self, name: str) -> Floats:
        if name not in self.metrics:
            raise KeyError(f"no metric {name!r}; these curves hold {', '.join(self.metrics)}")
        return self.metrics[name]

    @property
    def seeds(self) -> int:
        return next(iter(self.metrics.values())).shape[0]

    @property
    def rounds(self) -> int:
        return next(iter(self.metrics.values())).shape[1]

    def mean(self, name: str) -> Floats:
        """(rounds,) mean over seeds."""
        return self[name].mean(axis=0)

    def quantiles(self, name: str, probs: ArrayLike) -> Floats:
        """(len(probs), rounds) quantiles over seeds, linear between order statistics; probs in [0, 1]."""
        levels = np.atleast_1d(np.asarray(probs, dtype=np.float64))
        bad = levels[~((levels >= 0) & (levels <= 1))]
        if bad.size:
            raise Refusal(f"probs holds {bad[0]}; give probabilities in [0, 1], such as 0.05")
        return np.quantile(self[name], levels, axis=0)

    @staticmethod
    def concatenate(parts: Sequence[Curves]) -> Curves:
        """The seeds of all parts, in order, as one.

        Errors: Refusal for no parts, or parts that differ in metrics or rounds.
        """
        if not parts:
            raise Refusal("parts is empty; give at least one Curves")
        names, rounds = set(parts[0].metrics), parts[0].rounds
        for i, part in enumerate(parts):
            if set(part.metrics) != names or part.rounds != rounds or np.any(part.at != parts[0].at):
                raise Refusal(
                    f"parts[{i}] has metrics {sorted(part.metrics)} over {part.rounds} rounds, parts[0] has "
                    f"{sorted(names)} over {rounds}; concatenate curves of one simulation only"
                )
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].metrics}
        return Curves(joined, at=parts[0].at)
