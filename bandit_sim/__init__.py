"""The simulator: bandits whose arms are responses, under any update rule, thousands of seeds at once."""

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.arms.arms import Arms, ParticleArms, TreeArms
from bandit_sim.arms.contexts import Contexts
from bandit_sim.arms.forest import edge_order, forest, synthetic_forest
from bandit_sim.arms.lazy_tree import LazyTree
from bandit_sim.arms.scored_tree import ScoredTree
from bandit_sim.arms.token_tree import TokenTree
from bandit_sim.displacement import displacement
from bandit_sim.engines import AnyArms
from bandit_sim.expected import expected_step
from bandit_sim.replay import replay, replay_asked
from bandit_sim.simulate import simulate, simulate_grid

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
