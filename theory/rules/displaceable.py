"""Which rules move parameters along a sum of scores, and which can be simulated on from the middle of a run."""

from __future__ import annotations

import numpy as np

from theory.rules.rule import Rule
from theory.rules.schedule import ConstantRate


def displaceable(rule: Rule) -> bool:
    """Whether a run under the rule ends at  theta_0 + sum_e alpha_e g(e)  for some alpha: a sum of scores."""
    plain = rule.entropy.kind == "none" and rule.kl.refresh is None and rule.epochs == 1
    return plain and rule.optimiser.linear


def cannot_go_on(rule: Rule) -> str:
    """Why a rule cannot be simulated on from the middle of a run, and what to do; empty where it can."""
    optimiser = rule.optimiser
    if not displaceable(rule):
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
