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


PER_QUERY = 2**16
"""Rollouts of one query that a round has keys for; the second half of them is for helpers."""


def rollout_keys(key: jax.Array, queries: int, rollouts: int, drawn: int) -> jax.Array:
    """(queries * drawn,) keys of the round whose key is `key`, query by query, trained rollouts first.

    The key of a rollout depends on its place in the batch and in its query's group alone, never on how many
    others there are. Errors: ValueError for more rollouts than keys.
    """
    if drawn > PER_QUERY // 2:
        raise ValueError(f"{drawn} rollouts per query; a round has keys for {PER_QUERY // 2}")
    place = jnp.concatenate([jnp.arange(rollouts), PER_QUERY // 2 + jnp.arange(drawn - rollouts)])
    counter = (jnp.arange(queries)[:, None] * PER_QUERY + place[None, :]).astype(jnp.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, counter.ravel())
