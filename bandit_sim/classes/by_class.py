"""Arms in classes: which engine simulates them, and its numbers as curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import event, lumped
from bandit_sim.classes.blocks import BLOCK, Floats
from bandit_sim.classes.observables import SAMPLED
from bandit_sim.rounds.settings import Settings
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


def simulate_classes(arms: ArmClasses, rule: Rule, settings: Settings, engine: ClassEngine) -> Curves:
    """What `simulate` does with arms in classes; a seed's bits do not depend on which others are asked for.

    Errors: Refusal for devices, which these arms do not share.
    """
    if settings.devices is not None:
        raise Refusal("devices: arms in classes run on the first device; leave devices out")
    flip = np.asarray(arms.flip)
    check_pay(settings.paid, arms.reward, flip if flip.any() else None)
    pay, observe = settings.pay, settings.observe
    chosen = engine_of(arms, rule, pay, settings.every, observe) if engine == "auto" else engine
    run = {"lumped": lumped.run, "event": event.run}[chosen]

    def one_part(seeds: range) -> dict[str, Floats]:
        return run(
            arms, rule, settings.at, seeds, settings.key,
            pay=_law(pay), observe=observe, dtype=settings.dtype or "float64",
        )  # fmt: skip

    return settings.in_parts(BLOCK * -(-(settings.chunk or BLOCK) // BLOCK), one_part)


def _law(pay: PaySpec | None) -> Any:
    """The engines take None for the true reward, and have a faster way for it."""
    return None if isinstance(pay, Clean) else pay
