"""The registry of engines: names, what they are, which arms they pull, and where they are. Needs no JAX to read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bandit_sim.engines.engine import AnyArms, Engine


class EngineRow(NamedTuple):
    """One row of the registry.

    Arguments:
        summary: one line for help texts.
        arms: the class of the arms that it pulls, with its module.
        module: where it is implemented: a module that satisfies `bandit_sim.engines.engine.Engine`,
        own_loop: or, where this is set, one with a loop over rounds of its own, which `simulate` alone runs.
    """

    summary: str
    arms: str
    module: str
    own_loop: bool = False


ENGINES: dict[str, EngineRow] = {
    "dense": EngineRow("every arm by itself", "bandit_sim.arms.plain.Arms", "bandit_sim.engines.dense"),
    "lumped": EngineRow(
        "arms in classes, at one cost for any number of them",
        "bandit_sim.arms.arm_classes.ArmClasses",
        "bandit_sim.classes.lumped",
        own_loop=True,
    ),
    "event": EngineRow(
        "arms in classes, without the rounds that move nothing",
        "bandit_sim.arms.arm_classes.ArmClasses",
        "bandit_sim.classes.event",
        own_loop=True,
    ),
    "kernel": EngineRow(
        "whole responses that share parameters",
        "bandit_sim.arms.particles.ParticleArms",
        "bandit_sim.engines.kernel",
    ),
    "tree": EngineRow(
        "token by token, every logit free", "bandit_sim.arms.token_tree.TokenTree", "bandit_sim.engines.tree"
    ),
    "lazy_tree": EngineRow(
        "as tree, holding only the prefixes that training moves",
        "bandit_sim.arms.lazy_tree.LazyTree",
        "bandit_sim.classes.lazy_tree",
        own_loop=True,
    ),
    "tree_kernel": EngineRow(
        "token by token, with shared parameters",
        "bandit_sim.arms.tree.TreeArms",
        "bandit_sim.engines.tree_kernel",
    ),
    "tree_scores": EngineRow(
        "as tree_kernel, holding the parameters themselves",
        "bandit_sim.arms.scored_tree.ScoredTree",
        "bandit_sim.engines.tree_scores",
    ),
    "contexts": EngineRow(
        "many queries that share features", "bandit_sim.arms.contexts.Contexts", "bandit_sim.engines.contexts"
    ),
}
"""Engines by name; a row adds one."""


def engines_of(arms: object) -> tuple[str, ...]:
    """The names of the engines that pull these arms; none for anything else."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(arms).__mro__}
    return tuple(name for name, row in ENGINES.items() if row.arms in kinds)


def engine_for(arms: AnyArms) -> Engine:
    """The engine that pulls these arms. Errors: TypeError for anything else."""
    for name in engines_of(arms):
        if not ENGINES[name].own_loop:
            engine: Any = import_module(ENGINES[name].module)
            return engine
    kinds = {own: [row.arms.rpartition(".")[2] for row in ENGINES.values() if row.own_loop is own]
             for own in (False, True)}  # fmt: skip
    raise TypeError(
        f"arms is a {type(arms).__name__}; give {', '.join(kinds[False])} "
        f"({', '.join(dict.fromkeys(kinds[True]))} run by `simulate` alone)"
    )
