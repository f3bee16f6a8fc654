"""The simulator: bandits whose arms are responses, under any update rule, thousands of seeds at once.

Nothing is loaded before it is used: what says which engines and observables there are needs no JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bandit_sim.arms.arm_classes import ArmClasses
    from bandit_sim.arms.contexts import Contexts
    from bandit_sim.arms.forest import edge_order, forest, synthetic_forest
    from bandit_sim.arms.lazy_tree import LazyTree
    from bandit_sim.arms.particles import ParticleArms
    from bandit_sim.arms.plain import Arms
    from bandit_sim.arms.scored_tree import ScoredTree
    from bandit_sim.arms.token_tree import TokenTree
    from bandit_sim.arms.tree import TreeArms
    from bandit_sim.displacements import displacement
    from bandit_sim.engines.engine import AnyArms
    from bandit_sim.expected import expected_step
    from bandit_sim.replays import replay, replay_asked
    from bandit_sim.simulation import simulate, simulate_grid

MODULES = {
    "bandit_sim.arms.arm_classes": ("ArmClasses",),
    "bandit_sim.arms.contexts": ("Contexts",),
    "bandit_sim.arms.forest": ("edge_order", "forest", "synthetic_forest"),
    "bandit_sim.arms.lazy_tree": ("LazyTree",),
    "bandit_sim.arms.particles": ("ParticleArms",),
    "bandit_sim.arms.plain": ("Arms",),
    "bandit_sim.arms.scored_tree": ("ScoredTree",),
    "bandit_sim.arms.token_tree": ("TokenTree",),
    "bandit_sim.arms.tree": ("TreeArms",),
    "bandit_sim.displacements": ("displacement",),
    "bandit_sim.engines.engine": ("AnyArms",),
    "bandit_sim.expected": ("expected_step",),
    "bandit_sim.replays": ("replay", "replay_asked"),
    "bandit_sim.simulation": ("simulate", "simulate_grid"),
}
"""Where each name is implemented: module -> names. The imports above say the same to type checkers and editors.

No module beside this file is called as what it holds is: once imported, it would stand in its place.
"""

__all__ = [
    "AnyArms",
    "ArmClasses",
    "Arms",
    "Contexts",
    "LazyTree",
    "ParticleArms",
    "ScoredTree",
    "TokenTree",
    "TreeArms",
    "displacement",
    "edge_order",
    "expected_step",
    "forest",
    "replay",
    "replay_asked",
    "simulate",
    "simulate_grid",
    "synthetic_forest",
]

_MODULE_OF = {name: module for module, names in MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The name, imported from where it is implemented, and kept; see MODULES."""
    if name not in _MODULE_OF:
        raise AttributeError(
            f"module 'bandit_sim' has no attribute {name!r}; dir(bandit_sim) lists what it has"
        )
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
