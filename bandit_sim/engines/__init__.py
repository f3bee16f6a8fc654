"""Engines: how a weight on log pi(choice) moves a policy. `engine_for(arms)` picks the one for the arms."""

from __future__ import annotations

from bandit_sim.arms import Arms, ParticleArms, TreeArms
from bandit_sim.engines import dense, kernel, tree_kernel
from bandit_sim.engines.engine import Engine

__all__ = ["Engine", "dense", "engine_for", "kernel", "tree_kernel"]


def engine_for(arms: Arms | ParticleArms | TreeArms) -> Engine:
    """The engine that pulls these arms. Errors: TypeError for anything else."""
    match arms:
        case Arms():
            return dense
        case ParticleArms():
            return kernel
        case TreeArms():
            return tree_kernel
    raise TypeError(f"arms is a {type(arms).__name__}; give Arms, ParticleArms or TreeArms")
