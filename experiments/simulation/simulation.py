"""A simulation as data: which bandit, which rule, how long, how many seeds, what is recorded, by which engine."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

import bandit_sim
from bandit_sim.engines.registry import ENGINES, engines_of
from experiments.simulation.bandits import Bandit, TwoClass
from theory.curves import Curves
from theory.pay import Clean, Pay
from theory.refusal import Refusal
from theory.rules.dialects import preset
from theory.rules.rule import Rule
from theory.rules.spec import Count, Spec

if TYPE_CHECKING:
    from bandit_sim import ArmClasses
    from bandit_sim.classes.by_class import ClassEngine

DENSE_UP_TO = 256
"""Arms up to which `auto` keeps every arm by itself; above, classes cost less."""


class SimulationSpec(Spec):
    """A simulation: `onearm simulate --spec FILE.toml` reads one, its flags change single fields.

    Arguments:
        bandit: what is pulled.
        rule: a rule field by field, or {preset, eta, rollouts} for a named one.
        pay: what a pull is paid.
        rounds: updates T; recorded are rounds 0, every, 2 every, ..., T, so `every` divides T.
        seeds: replicas.
        seed: every random draw follows from it.
        engine: "auto" chooses, or one of `bandit_sim.engines.registry.ENGINES` that pulls the bandit's arms;
            arms in classes also run "dense" (each arm by itself), "lumped" or "event".
        observe: what is recorded, see `bandit_sim.rounds.observe.OBSERVABLES`.
        dtype: "float32" or "float64"; None is float64 for arms in classes and float32 for the others.
    Errors: Refusal naming the field, its value and the fix.
    """

    bandit: Bandit = TwoClass()
    rule: Rule = preset("minimalist", eta=1.0)
    pay: Pay = Clean()
    rounds: Count = 100
    seeds: Count = 1000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    engine: str = "auto"
    observe: tuple[str, ...] = ("success",)
    every: Count = 1
    dtype: Literal["float32", "float64"] | None = None

    @field_validator("rule", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, dict) and "preset" in value:
            unknown = sorted(set(value) - {"preset", "eta", "rollouts"})
            if unknown:
                raise Refusal(
                    f"rule.{unknown[0]} beside rule.preset; a preset takes eta and rollouts, or write the rule out"
                )
            return preset(value["preset"], eta=value.get("eta"), rollouts=value.get("rollouts"))
        return value

    @field_validator("engine")
    @classmethod
    def _registered(cls, value: str) -> str:
        if value not in ("auto", *ENGINES):
            raise Refusal(f"{value!r} is no engine; choose auto or one of {', '.join(ENGINES)}")
        return value

    @model_validator(mode="after")
    def _recorded_to_the_end(self) -> SimulationSpec:
        if self.rounds % self.every:
            raise Refusal(
                f"every = {self.every} does not divide rounds = {self.rounds}; the end would not be recorded"
            )
        if "success" not in self.observe:
            raise Refusal(f"observe = {self.observe}; success is what is printed and drawn, so name it too")
        return self

    @classmethod
    def read(cls, path: Path) -> SimulationSpec:
        """Errors: Refusal naming the file and the field."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except OSError as error:
            raise Refusal(f"--spec {path} cannot be read ({error.strerror}); give a TOML file") from error
        except (tomllib.TOMLDecodeError, Refusal) as error:
            raise Refusal(f"--spec {path}: {error}") from error


@dataclass(frozen=True)
class Simulation:
    """Curves of a simulation, the engine that made them, and how long it took, compilation included."""

    curves: Curves
    engine: str
    seconds: float


def run_simulation(spec: SimulationSpec, progress: Callable[[int, int], object] | None = None) -> Simulation:
    """Simulate a spec; column i of the curves is p after i * every updates, the last one after all.

    Errors: Refusal for an engine that does not pull these arms.
    """
    started = time.perf_counter()
    arms = spec.bandit.build()
    engine = _engine(arms, spec)
    of_classes: ClassEngine = "auto"
    if isinstance(arms, bandit_sim.ArmClasses):
        if engine == "dense":
            arms = arms.expand()
        elif engine == "lumped" or engine == "event":
            of_classes = engine
    curves = bandit_sim.simulate(
        arms, spec.rule, spec.rounds + 1, spec.seeds, spec.seed,
        observe=spec.observe, every=spec.every, pay=spec.pay, dtype=spec.dtype,
        engine=of_classes, progress=progress,
    )  # fmt: skip
    return Simulation(curves, engine, time.perf_counter() - started)


def _engine(arms: Any, spec: SimulationSpec) -> str:
    """The engine's name: the one asked for, if it pulls these arms, or the best of those that do."""
    names = engines_of(arms)
    if isinstance(arms, bandit_sim.ArmClasses):
        if spec.engine == "auto":
            return _cheapest(arms, spec)
        names = ("dense", *names)  # each arm by itself, once they are expanded
    own, *_ = names
    if spec.engine == "auto":
        return own
    if spec.engine not in names:
        raise Refusal(
            f"--engine {spec.engine} does not pull {spec.bandit.kind} arms; use {', '.join(names)} or auto"
        )
    return spec.engine


def _cheapest(arms: ArmClasses, spec: SimulationSpec) -> str:
    from bandit_sim.classes.by_class import engine_of

    if arms.arms <= DENSE_UP_TO:
        return "dense"
    return engine_of(arms, spec.rule, spec.pay, spec.every, spec.observe)
