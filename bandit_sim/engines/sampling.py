"""Pull arms by the inverse of the cumulative distribution: one uniform, one key, per rollout."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_FEW, _SIZE = 32, 50
"""Arms that need no blocks, and the size of a block, about."""


def fine_uniform(keys: jax.Array, dtype: Any) -> jax.Array:
    """Uniforms in [0, 1) from the keys' own 64 bits: fine near 0, so that rare first arms keep their odds."""
    words = jax.random.key_data(keys).astype(dtype)
    scale = jnp.asarray(2.0**-32, dtype)
    uniform = (words[..., 0] + words[..., 1] * scale) * scale
    return jnp.minimum(uniform, jnp.asarray(1 - jnp.finfo(dtype).epsneg, dtype))


class Blocks(NamedTuple):
    """Mass (A,) summed by blocks, and blocks by blocks: a rollout walks down to its arm, since a running sum over all
    arms costs more than the rest of a round.

    Arguments:
        levels: rows (B, size) whose sums are the entries of the next level; the last is one row of a few.
        one: () 1, which XLA does not know, see `pin`.
        total: () sum of the mass.
    """

    levels: tuple[jax.Array, ...]
    one: jax.Array
    total: jax.Array

    @classmethod
    def of(cls, mass: jax.Array, positive: jax.Array) -> Blocks:
        """From masses that are not all 0, and any number above 0 that is known at run time alone."""
        one = jnp.where(positive > 0, 1, positive).astype(mass.dtype)
        levels = []
        while mass.shape[0] > _FEW:
            count = mass.shape[0]
            sizes = [size for size in range(_SIZE // 2, 65) if count % size == 0]
            size = min(sizes, key=lambda size: abs(size - _SIZE), default=_SIZE)
            levels.append((jnp.pad(mass, (0, -count % size)) if count % size else mass).reshape(-1, size))
            mass = levels[-1].sum(axis=1)
        return cls((*levels, mass[None]), one, pin(sum(mass[1:], start=mass[0]), one))

    def choose(self, uniform: jax.Array) -> jax.Array:
        """(n,) arms drawn in proportion to their mass by uniform (n,)."""
        place, target = _first_beyond(uniform * self.total, self.levels[-1][0], self.one)
        for level in reversed(self.levels[:-1]):
            inside, target = _first_beyond(target, level[place], self.one)
            place = place * level.shape[1] + inside
        return place


def choose(uniform: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """(n,) arms drawn from softmax(log_probabilities (A,)) by uniform (n,); an arm of mass 0 is never drawn."""
    return choose_by_mass(uniform, jnp.exp(log_probabilities))


def choose_by_mass(uniform: jax.Array, mass: jax.Array) -> jax.Array:
    """(n,) arms drawn in proportion to mass (A,), not all 0, by uniform (n,)."""
    return Blocks.of(mass, 1 + uniform[0]).choose(uniform)


def pin(x: jax.Array, one: jax.Array) -> jax.Array:
    """x, computed once. XLA would repeat a chain of cheap operations for every element of each of its consumers; it
    never repeats a division.
    """
    return x / one


def _first_beyond(target: jax.Array, mass: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(n,) the first place where the running sum of mass (n, B), or (B,) for all, exceeds target (n,), and by how much
    target lies beyond the places before it. A place of mass 0 is never the first; where rounding leaves none, it is
    the last possible one. The sum runs in one unrolled chain per rollout, which XLA compiles to registers.
    """
    passed = below = last = above = jnp.zeros_like(target)
    for i in range(mass.shape[-1]):
        here = mass[..., i]
        above = above + here
        beyond = above <= target
        passed, below = passed + beyond.astype(target.dtype), jnp.where(beyond, above, below)
        last = jnp.where(here > 0, jnp.asarray(i, target.dtype), last)
    # Beyond all by rounding: the last place, and all that lies in it.
    left = jnp.where(passed > last, above, target - below)
    return pin(jnp.minimum(passed, last), one).astype(jnp.int32), pin(left, one)
