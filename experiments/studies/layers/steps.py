"""A world's own step sizes: what a variant's eta of 1 means there."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from theory.rules.optimiser import Positive
from theory.rules.rule import Rule
from theory.rules.spec import Spec

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What every random draw of a world follows from."""


class Steps(Spec):
    """eta of a variant's 1.0, by optimiser."""

    sgd: Positive
    adam: Positive


def in_steps_of(step: Steps, rule: Rule) -> Rule:
    """The rule with its eta multiplied by the world's own step."""
    own = getattr(step, rule.optimiser.kind)
    optimiser = rule.optimiser.model_copy(update={"eta": rule.optimiser.eta * own})
    return rule.model_copy(update={"optimiser": optimiser})
