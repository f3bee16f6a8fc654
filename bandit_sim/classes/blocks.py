"""Seeds in blocks of fixed make-up: memory is bounded, and no seed's bits depend on which others are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.refusal import Refusal

BLOCK = 1024
"""Seeds simulated side by side: seed s is column s % BLOCK of block s // BLOCK, whatever is asked for."""

Floats = NDArray[np.float64]


def seed_numbers(seeds: int | range) -> NDArray[np.int64]:
    """Replica numbers. Errors: Refusal for none, or a negative one."""
    numbers = np.arange(seeds) if isinstance(seeds, int) else np.array(seeds, dtype=np.int64)
    if len(numbers) < 1:
        raise Refusal(f"seeds = {seeds}; give at least 1")
    if numbers.min() < 0:
        raise Refusal(f"seeds = {seeds} holds {numbers.min()}; replica numbers start at 0")
    return numbers


def round_numbers(at: ArrayLike) -> NDArray[np.int64]:
    """The rounds at which to record. Errors: Refusal unless whole, not negative and strictly increasing."""
    rounds = np.asarray(at)
    if rounds.ndim != 1 or not rounds.size or not np.issubdtype(rounds.dtype, np.integer):
        raise Refusal(f"at = {at}; give a list of whole round numbers, such as [0, 10, 100]")
    if rounds[0] < 0 or np.any(np.diff(rounds) <= 0):
        raise Refusal(f"at = {at}; give strictly increasing round numbers from 0")
    return rounds.astype(np.int64)


def run_blocks(
    seeds: int | range, one_block: Callable[[int], dict[str, Floats]], *, workers: int | None = None
) -> dict[str, Floats]:
    """name -> (seeds, A) from one_block(b) -> name -> (BLOCK, A), blocks beside one another on all cores."""
    numbers = seed_numbers(seeds)
    blocks = np.unique(numbers // BLOCK)

    def needed(block: int) -> tuple[NDArray[np.intp], dict[str, Floats]]:
        mine = np.flatnonzero(numbers // BLOCK == block)
        with jax.enable_x64(True):
            whole = one_block(block)
        return mine, {name: values[numbers[mine] % BLOCK] for name, values in whole.items()}

    limit = workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    results: dict[str, Floats] = {}
    with ThreadPoolExecutor(max(1, min(len(blocks), limit or 1))) as pool:
        for mine, part in pool.map(needed, [int(b) for b in blocks]):
            for name, values in part.items():
                whole = results.setdefault(name, np.empty((len(numbers), values.shape[1])))
                whole[mine] = values
    return results


class FirstAlone:
    """Lets the first call of each program through by itself: two threads would both compile it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: set[Hashable] = set()

    def __call__(self, program: Hashable, call: Callable[[], Any]) -> Any:
        if program in self._done:
            return call()
        with self._lock:
            result = call()
            self._done.add(program)
        return result
