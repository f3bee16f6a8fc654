"""Arms in classes: which engine simulates them, and its numbers as curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import event, lumped
from bandit_sim.classes.blocks import BLOCK
from bandit_sim.classes.observables import SAMPLED
from theory.curves import Curves
from theory.pay import Clean, PaySpec, check_pay
from theory.refusal import Refusal
from theory.rules.rule import Rule

ClassEngine = Literal["auto", "lumped", "event"]
QUIET = 0.05
"""Share of rounds that move something below which skipping the others is the cheaper way."""


def engine_of(
    arms: ArmClasses, rule: Rule, pay: PaySpec | None, every: int, observe: Sequence[str] = ()
) -> Literal["lumped", "event"]:
    """The cheaper engine: `event` where it carries the rule and what is observed, and few rounds move anything or few
    are recorded.
    """
    if set(observe) & set(SAMPLED):
        return "lumped"
    busy = event.busy_share(arms, rule, _law(pay))
    return "event" if busy is not None and (busy < QUIET or every >= 16) else "lumped"


def simulate_classes(
    arms: ArmClasses,
    rule: Rule,
    rounds: int,
    seeds: int | range,
    key: int | jax.Array,
    *,
    observe: Sequence[str],
    every: int,
    pay: PaySpec | None,
    dtype: Literal["float32", "float64"] | None,
    engine: ClassEngine,
    chunk: int | None,
    progress: Callable[[int, int], object] | None,
) -> Curves:
    """What `simulate` does with arms in classes; a seed's bits do not depend on which others are asked for."""
    block = block_of(seeds, rounds=rounds, every=every, chunk=1 if chunk is None else chunk)
    flip = np.asarray(arms.flip)
    check_pay(Clean() if pay is None else pay, arms.reward, flip if flip.any() else None)
    chosen = engine_of(arms, rule, pay, every, observe) if engine == "auto" else engine
    run = {"lumped": lumped.run, "event": event.run}[chosen]
    at = np.arange(0, rounds, every)
    size = BLOCK * -(-(chunk or BLOCK) // BLOCK)
    parts: list[dict[str, np.ndarray]] = []
    for first in range(0, len(block), size):
        part, held = block[first : first + size], dtype or "float64"
        parts.append(run(arms, rule, at, part, key, pay=_law(pay), observe=observe, dtype=held))
        if progress is not None:
            progress(min(first + size, len(block)), len(block))
    return Curves({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, at=at)


def block_of(seeds: int | range, **counted: int) -> range:
    """The replica numbers as a range. Errors: Refusal for a count below 1."""
    block = range(seeds) if isinstance(seeds, int) else seeds
    for name, value in {**counted, "seeds": len(block)}.items():
        if value < 1:
            raise Refusal(f"{name} = {value}; give at least 1")
    return block


def _law(pay: PaySpec | None) -> Any:
    """The engines take None for the true reward, and have a faster way for it."""
    return None if isinstance(pay, Clean) else pay
