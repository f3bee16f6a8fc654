"""Pull arms by the inverse of the cumulative distribution: one uniform, one key, per rollout."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def fine_uniform(key: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """() uniform in [0, 1) from 64 random bits: fine near 0, so that rare first arms keep their odds."""
    high, low = jax.random.bits(key, (2,), jnp.uint32).astype(dtype)
    scale = jnp.asarray(2.0**-32, dtype)
    return (high + low * scale) * scale


def choose(keys: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """(n,) arms drawn from softmax(log_probabilities (A,)), one per key; an arm of mass 0 is never drawn."""
    mass = jnp.exp(log_probabilities)
    above = jnp.cumsum(mass)
    target = jax.vmap(lambda key: fine_uniform(key, mass.dtype))(keys) * above[-1]
    # The first arm beyond the target; where rounding leaves none, the last possible one. Minima and maxima of
    # integers vectorise, argmax does not.
    arm = jnp.arange(mass.shape[0], dtype=jnp.int32)
    first = jnp.min(jnp.where((above > target[:, None]) & (mass > 0), arm, mass.shape[0]), axis=1)
    return jnp.minimum(first, jnp.max(jnp.where(mass > 0, arm, 0)))
