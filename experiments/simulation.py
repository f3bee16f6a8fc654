"""A simulation as data: which bandit, which rule, how long, how many seeds, what is recorded."""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from bandit_sim import AnyArms, ArmClasses, Arms, Contexts, TokenTree, TreeArms, simulate
from bandit_sim.verifiers import Clean, Verifier
from theory.curves import Curves
from theory.rules.rule import Rule
from theory.rules.spec import Spec
from theory.synthetic_tree import synthetic_tree

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Engine = Literal["auto", "dense", "lumped", "event", "kernel"]
DENSE_UP_TO = 4096
"""Arms from which on `auto` prefers classes: below, the dense engine is as fast and holds every arm by itself."""


class TwoClassSpec(Spec):
    """K arms, `correct` of them share p0 evenly, the others the rest."""

    kind: Literal["two_class"] = "two_class"
    arms: Count = 1000
    correct: Count = 1
    p0: Share = 0.05

    def classes(self) -> ArmClasses:
        return ArmClasses.two_class(arms=self.arms, correct=self.correct, p0=self.p0)


class PowerLawSpec(TwoClassSpec):
    """Within each class the j-th likeliest arm has mass ~ j^-exponent."""

    kind: Literal["power_law"] = "power_law"  # pyright: ignore[reportIncompatibleVariableOverride]
    exponent: Annotated[float, Field(gt=0)] = 1.0

    def classes(self) -> ArmClasses:
        return ArmClasses.power_law(
            arms=self.arms, correct=self.correct, p0=self.p0, exponent=self.exponent
        )


class LogNormalSpec(TwoClassSpec):
    """Within each class log masses are normal with deviation sigma."""

    kind: Literal["log_normal"] = "log_normal"  # pyright: ignore[reportIncompatibleVariableOverride]
    sigma: Annotated[float, Field(gt=0)] = 2.0

    def classes(self) -> ArmClasses:
        return ArmClasses.log_normal(arms=self.arms, correct=self.correct, p0=self.p0, sigma=self.sigma)
