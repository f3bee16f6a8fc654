"""Arms that share nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import ArrayLike

from bandit_sim.arms.checks import Array, check_flip, check_mass, check_reward, check_shape, concrete, floats
from theory.refusal import Refusal


@register_dataclass
@dataclass(frozen=True)
class Arms:
    """Arms that share nothing: pi = softmax(logits), each logit a parameter of its own (dense engine).

    Arguments:
        logits: (K,) initial logits; -inf is an arm that is never pulled.
        reward: (K,) reward of each arm.
        flip: (K,) chance that noisy pay misjudges the arm; None is 0 for all.
    Errors: Refusal naming the arm whose reward, logit or flip is not such a number.
    """

    logits: Array
    reward: Array
    flip: Array | None = None

    def __post_init__(self) -> None:
        if concrete(self.logits, self.reward):
            check_shape("reward", self.reward, np.shape(self.logits))
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            values = np.asarray(self.logits)
            bad = np.flatnonzero(np.isnan(values) | (values == np.inf))
            if bad.size:
                raise Refusal(f"logit of arm {bad[0]} is {values[bad[0]]}; logits are finite, or -inf")
            if not np.any(np.isfinite(values)):
                raise Refusal("no arm has a finite logit; at least one arm must be possible")

    @classmethod
    def from_masses(cls, masses: ArrayLike, reward: ArrayLike) -> Arms:
        """Arms with probabilities masses (K,) / sum of masses, and reward (K,)."""
        mass = floats(masses)
        check_mass(mass)
        with np.errstate(divide="ignore"):
            return cls(logits=np.log(mass / mass.sum()), reward=floats(reward))

    @classmethod
    def two_class(cls, *, arms: int, correct: int, p0: float) -> Arms:
        """`correct` arms of reward 1 (the first ones) share p0 evenly, the others share 1 - p0."""
        if not 0 < correct < arms:
            raise Refusal(f"correct = {correct} of arms = {arms}; give 1 <= correct <= arms - 1")
        if not 0 < p0 < 1:
            raise Refusal(f"p0 = {p0}; give a success probability strictly between 0 and 1")
        is_correct = np.arange(arms) < correct
        return cls.from_masses(
            np.where(is_correct, p0 / correct, (1 - p0) / (arms - correct)), is_correct.astype(np.float64)
        )
