"""Whole responses that share parameters, by a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax.tree_util import register_dataclass

from bandit_sim.arms.checks import Array, check_flip, check_mass, check_reward, check_shape, concrete
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree


@register_dataclass
@dataclass(frozen=True)
class ParticleArms:
    """Whole responses that share parameters: pi ~ mass exp f, and a pull of a moves f by K[:, a] - K pi.

    Arguments:
        mass: (L,) probability of each particle; normalised by the engine's softmax.
        reward: (L,) reward of each particle.
        kernel: (L, L) inner products of the responses' scores, in nats per unit of eta times weight.
        flip: (L,) chance that noisy pay misjudges the particle; None is 0 for all.
    Errors: Refusal naming the particle or the shape.
    """

    mass: Array
    reward: Array
    kernel: Array
    flip: Array | None = None

    def __post_init__(self) -> None:
        if concrete(self.mass, self.reward, self.kernel):
            particles = len(self.mass)
            check_shape("reward", self.reward, (particles,))
            check_shape("kernel", self.kernel, (particles, particles))
            check_mass(self.mass)
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            if not np.all(np.isfinite(np.asarray(self.kernel))):
                raise Refusal("kernel holds a value that is not finite; probe again in float32 or float64")

    @classmethod
    def from_tree(cls, tree: ResponseTree) -> ParticleArms:
        """The leaves as whole responses: sequence kernel P K P^T, the comparison to the tree kernel."""
        dtype = tree.kernel.dtype
        return cls(
            mass=tree.leaf_probability().astype(dtype),
            reward=np.asarray(tree.reward, dtype),
            kernel=tree.sequence_kernel().astype(dtype),
        )
