"""What engines of many queries share: how a round's batch is drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def pick_batch(training: int, batch: int, key: jax.Array) -> jax.Array:
    """(B,) queries drawn uniformly without replacement, in order, so that a batch of all is the same in every round."""
    drawn = jax.random.permutation(key, jnp.arange(training, dtype=jnp.int32))[:batch]
    return jnp.sort(drawn)
