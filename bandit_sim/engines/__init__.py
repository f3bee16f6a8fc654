"""Engines: how a weight on log pi(choice) moves a policy. `engine_for(arms)` picks the one for the arms."""

from __future__ import annotations

from bandit_sim.arms.arms import Arms, ParticleArms, TreeArms
from bandit_sim.arms.contexts import Contexts
from bandit_sim.arms.scored_tree import ScoredTree
from bandit_sim.arms.token_tree import TokenTree
from bandit_sim.engines import contexts, dense, kernel, tree, tree_kernel, tree_scores
from bandit_sim.engines.engine import Engine

__all__ = [
    "AnyArms",
    "Engine",
    "contexts",
    "dense",
    "engine_for",
    "kernel",
    "tree",
    "tree_kernel",
    "tree_scores",
]

AnyArms = Arms | ParticleArms | TreeArms | ScoredTree | TokenTree | Contexts


def engine_for(arms: AnyArms) -> Engine:
    """The engine that pulls these arms. Errors: TypeError for anything else."""
    match arms:
        case Arms():
            return dense
        case ParticleArms():
            return kernel
        case TreeArms():
            return tree_kernel
        case ScoredTree():
            return tree_scores
        case TokenTree():
            return tree
        case Contexts():
            return contexts
    raise TypeError(
        f"arms is a {type(arms).__name__}; give Arms, ParticleArms, TreeArms, ScoredTree, TokenTree or Contexts "
        "(a LazyTree runs by `simulate` alone)"
    )
