"""Verifiers: what a pull of an arm is paid, given the arm's true reward."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from theory.rules.spec import Spec

Law = tuple[list[jax.Array], list[jax.Array]]
"""Possible rewards of each rollout and their probabilities, one array per outcome."""


class VerifierSpec(Spec):
    """A verifier by its law: with probability chance[k] a rollout is paid reward[k]."""

    @property
    def random(self) -> bool:
        """Whether the reward can differ between two pulls of one arm."""
        return False

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        """Rewards and chances given true rewards, lengths in tokens, and chances of being misjudged."""
        raise NotImplementedError

    def pay(self, uniform: jax.Array, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Any:
        """The reward that a uniform number in [0, 1) picks from the law, elementwise."""
        rewards, chances = self.law(truth, length, flip)
        paid, above = rewards[-1], jnp.ones_like(uniform)
        for reward, chance in zip(rewards[-2::-1], chances[:0:-1], strict=True):
            above = above - chance
            paid = jnp.where(uniform < above, reward, paid)
        return paid


class Clean(VerifierSpec):
    """Pays the true reward."""

    kind: Literal["clean"] = "clean"

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        return [truth], [jnp.ones_like(truth)]


Verifier = Annotated[Clean, Field()]
