"""Which rules can be simulated on from the middle of a run, as a forecast that is relinearised does."""

from __future__ import annotations

import numpy as np

from bandit_sim.displacement import carried
from theory.rules.rule import Rule
from theory.rules.schedule import ConstantRate


def refusal(rule: Rule) -> str:
    """Why a rule cannot be simulated on from the middle of a run, and what to do; empty where it can."""
    optimiser = rule.optimiser
    if not carried(rule):
        return (
            f"optimiser {optimiser.kind}, entropy {rule.entropy.kind}, kl refresh {rule.kl.refresh}, epochs "
            f"{rule.epochs}: no sum of scores; give sgd without clip, bonus, moving reference and further epochs"
        )
    if rule.kl.reads_reference:
        return f"kl {rule.kl.kind} pulls to the base model, which a new linearisation does not hold; leave kl out"
    if optimiser.remembers or optimiser.schedule != ConstantRate():
        return (
            f"optimiser with momentum {getattr(optimiser, 'momentum', 0):g} and schedule {optimiser.schedule.kind} "
            "would begin anew with each linearisation; give momentum 0 and a constant schedule without warm-up"
        )
    if rule.init(np) != ():
        return f"signal {rule.signal.kind} remembers earlier rounds; choose one without memory"
    return ""
