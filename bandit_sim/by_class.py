"""Arms in classes: which engine simulates them, and its numbers as curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from bandit_sim.arm_classes import ArmClasses
from bandit_sim.engines import event, lumped
from bandit_sim.engines._blocks import BLOCK
from bandit_sim.verifiers import Clean, VerifierSpec
from theory.curves import Curves
from theory.rules.rule import Rule

ClassEngine = Literal["auto", "lumped", "event"]
QUIET = 0.05
"""Share of rounds that move something below which `auto` skips the others."""


def engine_of(
    arms: ArmClasses, rule: Rule, verifier: VerifierSpec | None, every: int
) -> Literal["lumped", "event"]:
    """The cheaper engine: `event` where its rule holds and few rounds move anything, or few are recorded."""
    busy = event.busy_share(arms, rule, _law(verifier))
    return "event" if busy is not None and (busy < QUIET or every >= 16) else "lumped"


def simulate_classes(
    arms: ArmClasses,
    rule: Rule,
    rounds: int,
    seeds: range,
    key: int | jax.Array,
    *,
    observe: Sequence[str],
    every: int,
    verifier: VerifierSpec | None,
    dtype: Literal["float32", "float64"] | None,
    engine: ClassEngine,
    chunk: int | None,
    progress: Callable[[int, int], object] | None,
) -> Curves:
    """What `simulate` does with arms in classes; seeds in blocks of `BLOCK`, whose bits do not depend on each other."""
    chosen = engine_of(arms, rule, verifier, every) if engine == "auto" else engine
    run = {"lumped": lumped.run, "event": event.run}[chosen]
    at = np.arange(0, rounds, every)
    size = BLOCK * -(-(chunk or BLOCK) // BLOCK)
    parts: list[dict[str, np.ndarray]] = []
    for first in range(0, len(seeds), size):
        block = seeds[first : first + size]
        parts.append(
            run(
                arms, rule, at, block, key, verifier=_law(verifier), observe=observe, dtype=dtype or "float64"
            )
        )
        if progress is not None:
            progress(min(first + size, len(seeds)), len(seeds))
    return Curves({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, at=at)


def _law(verifier: VerifierSpec | None) -> Any:
    """The engines take None for the true reward, and have a faster way for it."""
    return None if isinstance(verifier, Clean) else verifier
