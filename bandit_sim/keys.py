"""Random keys: one for every (seed, round, rollout), no two alike."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def root_key(key: int | jax.Array) -> jax.Array:
    """A JAX key from an integer, or the key itself. Errors: TypeError for anything else."""
    if isinstance(key, int):
        return jax.random.key(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    raise TypeError(f"key is {key!r}; give an integer or jax.random.key(integer)")


def round_key(seed_key: jax.Array, round: jax.Array) -> jax.Array:
    """The key of one round; seed_key = fold_in(root, seed). A fold is a bijection of its counter."""
    return jax.random.fold_in(seed_key, round)


def rollout_keys(key: jax.Array, rollouts: int) -> jax.Array:
    """(rollouts,) keys of the round whose key is `key`; the first do not depend on how many there are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rollouts, dtype=jnp.uint32))
