"""Random keys: one for every (seed, round, query, rollout), no two alike.

A seed's key is the root's fold of its number; the key of a place in a round is one threefry of (round, place)
under it, a bijection of the counter. Its two words are the draw's own 64 random bits as well.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from theory.refusal import Refusal

IMPL = "threefry2x32"


def root_key(key: int | jax.Array) -> jax.Array:
    """A threefry key from an integer, or from a JAX key. Errors: TypeError for anything else."""
    if isinstance(key, int):
        return jax.random.key(key, impl=IMPL)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if str(jax.random.key_impl(key)) == IMPL:
            return key
        return jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl=IMPL)
    raise TypeError(f"key is {key!r}; give an integer or jax.random.key(integer)")


PER_QUERY = 2**16
"""Rollouts of one query that a round has keys for; the second half of them is for helpers."""
PICK, VIRTUAL = 2**32 - 1, 2**32 - 2
"""Places of the keys by which a round picks its queries, and under which virtual rounds are drawn."""


def keys_at(seed_key: jax.Array, round: jax.Array | int, place: jax.Array) -> jax.Array:
    """(n,) keys of the places (n,) of one round."""
    place = place.astype(jnp.uint32)
    counter = jnp.concatenate([jnp.full(place.shape, round, jnp.uint32), place])
    words = threefry_2x32(jax.random.key_data(seed_key), counter).reshape(2, -1).T
    return jax.random.wrap_key_data(words, impl=IMPL)


def key_at(seed_key: jax.Array, round: jax.Array | int, place: int) -> jax.Array:
    """() the key of one place of one round."""
    return keys_at(seed_key, round, jnp.asarray([place], jnp.uint32))[0]


def rollout_keys(
    seed_key: jax.Array, round: jax.Array | int, queries: int, rollouts: int, drawn: int
) -> jax.Array:
    """(queries * drawn,) keys of a round's rollouts, query by query, trained rollouts first.

    The key of a rollout depends on its place in the batch and in its query's group alone, never on how many
    others there are. Errors: Refusal for more rollouts than keys.
    """
    if drawn > PER_QUERY // 2:
        raise Refusal(f"{drawn} rollouts per query; a round has keys for {PER_QUERY // 2}")
    place = jnp.concatenate([jnp.arange(rollouts), PER_QUERY // 2 + jnp.arange(drawn - rollouts)])
    return keys_at(seed_key, round, (jnp.arange(queries)[:, None] * PER_QUERY + place[None, :]).ravel())
