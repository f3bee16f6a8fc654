"""Pull arms by the inverse of the cumulative distribution: one uniform, one key, per rollout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

_FEW = 64


def fine_uniform(key: jax.Array, dtype: Any) -> jax.Array:
    """() uniform in [0, 1) from 64 random bits: fine near 0, so that rare first arms keep their odds."""
    high, low = jax.random.bits(key, (2,), jnp.uint32).astype(dtype)
    scale = jnp.asarray(2.0**-32, dtype)
    return (high + low * scale) * scale


def choose(uniform: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """(n,) arms drawn from softmax(log_probabilities (A,)) by uniform (n,); an arm of mass 0 is never drawn."""
    return choose_by_mass(uniform, jnp.exp(log_probabilities))


def choose_by_mass(uniform: jax.Array, mass: jax.Array) -> jax.Array:
    """(n,) arms drawn in proportion to mass (A,), not all 0.

    Many arms are summed by blocks, and then within the block alone: a running sum over all of them costs more than the
    rest of a round.
    """
    arms = mass.shape[0]
    if arms <= _FEW:
        return _first_beyond(uniform, mass)[0]
    size = next((size for size in range(64, 15, -1) if arms % size == 0), 32)
    blocks = jnp.pad(mass, (0, -arms % size)).reshape(-1, size)
    block, inside = _first_beyond(uniform, blocks.sum(axis=1))
    place = jax.vmap(lambda b, u: _first_beyond(u[None], blocks[b])[0][0])(block, inside)
    return block * size + place


def _first_beyond(uniform: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(n,) the first place where the running sum of mass exceeds uniform times all, and how far through its mass the
    target lies, in [0, 1): a uniform number again.
    """
    above = jnp.cumsum(mass)
    target = uniform * above[-1]
    # Where rounding leaves none, the last possible place. Minima and maxima of integers vectorise, argmax does not.
    place = jnp.arange(mass.shape[0], dtype=jnp.int32)
    first = jnp.min(jnp.where((above > target[:, None]) & (mass > 0), place, mass.shape[0]), axis=1)
    first = jnp.minimum(first, jnp.max(jnp.where(mass > 0, place, 0)))
    through = (target - (above[first] - mass[first])) / mass[first]
    return first, jnp.clip(through, 0, 1 - jnp.finfo(mass.dtype).epsneg)
