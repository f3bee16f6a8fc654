"""The simulator: bandits whose arms are responses, under any update rule, thousands of seeds at once."""

from bandit_sim.arms import Arms, ParticleArms, TreeArms
from bandit_sim.replay import replay
from bandit_sim.simulate import expected_step, simulate, simulate_grid

__all__ = ["Arms", "ParticleArms", "TreeArms", "expected_step", "replay", "simulate", "simulate_grid"]
