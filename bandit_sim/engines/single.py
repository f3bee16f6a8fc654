"""What engines of one query share: there is no query to choose."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from theory.refusal import Refusal

IMPOSSIBLE = -1e30
"""Stands for log 0: its exp is 0, and an optimiser may multiply it. Decay would take 64 / (eta weight_decay) rounds to
bring it back, see `step.check_decay`."""


def query_count(arms: Any) -> int:
    return 1


def pick(arms: Any, key: jax.Array) -> jax.Array:
    return jnp.zeros(1, jnp.int32)


def query_of(arms: Any, choices: jax.Array) -> jax.Array:
    return jnp.zeros_like(choices)


def frequency(arms: Any) -> jax.Array:
    return jnp.ones(jnp.shape(arms.reward))


def held_out(arms: Any, state: jax.Array) -> jax.Array:
    raise Refusal(
        f"observe: 'held_out' with {type(arms).__name__}, which hold one query; give Contexts with held-out queries"
    )


def token_mask(arms: Any, choices: jax.Array, dtype: Any) -> jax.Array:
    """A response is one token."""
    return jnp.ones((choices.shape[0], 1), dtype)


def entropy_of(log_probabilities: jax.Array) -> jax.Array:
    """() -sum pi log pi in nats; a choice of probability 0 adds nothing."""
    pi = jnp.exp(log_probabilities)
    return -jnp.sum(pi * jnp.where(pi > 0, log_probabilities, 0))
