"""What every way of simulating is told: how long, how many seeds, what is recorded, and in which pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from theory.curves import Curves
from theory.pay import Clean, PaySpec
from theory.refusal import Refusal

Observe = Sequence[str]
DType = Literal["float32", "float64"]
Device = Any  # a jax.Device, which JAX declares as a variable, no type
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Settings:
    """The arguments of `bandit_sim.simulate` beside the arms, the rule and the engine; see there.

    Errors: Refusal for a count below 1.
    """

    rounds: int
    seeds: int | range
    key: int | jax.Array
    observe: Observe
    every: int
    pay: PaySpec | None
    dtype: DType | None
    devices: Sequence[Device] | None
    chunk: int | None
    progress: Progress | None

    def __post_init__(self) -> None:
        counted = {
            "rounds": self.rounds,
            "every": self.every,
            "chunk": 1 if self.chunk is None else self.chunk,
            "seeds": len(self.block),
        }
        for name, value in counted.items():
            if value < 1:
                raise Refusal(f"{name} = {value}; give at least 1")

    @property
    def block(self) -> range:
        """The replica numbers."""
        return range(self.seeds) if isinstance(self.seeds, int) else self.seeds

    @property
    def at(self) -> NDArray[np.int64]:
        """The rounds that are recorded."""
        return np.arange(0, self.rounds, self.every)

    @property
    def paid(self) -> PaySpec:
        """The pay; the true reward where none was named."""
        return Clean() if self.pay is None else self.pay

    def precision(self) -> AbstractContextManager[Any]:
        """JAX as the dtype needs it."""
        return jax.enable_x64(True) if self.dtype == "float64" else nullcontext()

    def told(self, done: int) -> None:
        """Report that so many seeds are done."""
        if self.progress is not None:
            self.progress(done, len(self.block))

    def in_parts(self, size: int, run: Callable[[range], dict[str, NDArray[np.float64]]]) -> Curves:
        """Curves of run(part of the replica numbers) -> name -> (seeds of the part, rounds), `size` seeds at a time."""
        parts: list[dict[str, NDArray[np.float64]]] = []
        for first in range(0, len(self.block), size):
            parts.append(run(self.block[first : first + size]))
            self.told(min(first + size, len(self.block)))
        return Curves({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, at=self.at)
