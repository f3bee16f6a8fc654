"""The prefixes of a lazy tree that exist: walking through them, and bringing more into being."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bandit_sim.arms.lazy_tree import LazyTree


class Buffer(NamedTuple):
    """The prefixes there are.

    Arguments (M prefixes at most, V symbols):
        change: (M, V) logits minus base logits; prefix 0 is the empty one.
        child: (M, V) the prefix that a token leads to, -1 where it is not there.
        used: () how many there are.
        overflow: () whether one found no place.
    """

    change: jax.Array
    child: jax.Array
    used: jax.Array
    overflow: jax.Array


class Walk(NamedTuple):
    """A response: its tokens (T,), -1 beyond the end, its mask (T,), and the laws they were drawn from (T, V)."""

    tokens: jax.Array
    mask: jax.Array
    logs: jax.Array
    base_logs: jax.Array

    def of_tokens(self, logs: jax.Array) -> jax.Array:
        """(..., T) log-probabilities of the tokens under logs (..., T, V), 0 beyond the end."""
        taken = jnp.take_along_axis(logs, jnp.maximum(self.tokens, 0)[..., None], axis=-1)[..., 0]
        return jnp.where(self.mask > 0, taken, 0)


def walk(arms: LazyTree, buffer: Buffer, pick: Any) -> Walk:
    """The response whose token at each position is pick(log law (V,), position)."""
    depth, dtype = np.shape(arms.law)[0], buffer.change.dtype

    def step(
        held: tuple[jax.Array, jax.Array, jax.Array], position: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Walk]:
        node, prefix, going = held
        base = arms.base(prefix, position, dtype)
        here = jnp.maximum(node, 0)
        logs = jax.nn.log_softmax(base + jnp.where(node >= 0, buffer.change[here], 0))
        token = pick(logs, position)
        after = jnp.where(node >= 0, buffer.child[here, token], -1)
        seen = Walk(jnp.where(going, token, -1), going.astype(dtype), logs, jax.nn.log_softmax(base))
        return (after, jax.random.fold_in(prefix, token), going & (token != arms.end)), seen

    begin = (jnp.zeros((), jnp.int32), jax.random.key(arms.seed), jnp.ones((), bool))
    return jax.lax.scan(step, begin, jnp.arange(depth, dtype=jnp.uint32))[1]


def success(arms: LazyTree, buffer: Buffer) -> jax.Array:
    """() p: the sum over the listed responses of their probability."""

    def log_probability(tokens: jax.Array) -> jax.Array:
        forced = walk(arms, buffer, lambda logs, position: jnp.maximum(tokens[position], 0))
        return forced.of_tokens(forced.logs).sum()

    return jnp.exp(jax.vmap(log_probability)(jnp.asarray(arms.correct))).sum()


def grow(buffer: Buffer, tokens: jax.Array, weights: jax.Array) -> tuple[Buffer, jax.Array]:
    """Bring into being the prefixes of the responses (n, T) that have a weight; (n, T) the prefix of each token.

    A prefix without a place, or without need of one, is M, which no write takes.
    """
    capacity = buffer.change.shape[0]
    active = jnp.any(weights != 0, axis=1)

    def step(
        held: tuple[jax.Array, jax.Array, jax.Array], pair: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        child, used, node = held
        token, goes_on = pair
        here = node < capacity
        known = jnp.where(here, child[jnp.minimum(node, capacity - 1), token], capacity)
        wanted = here & goes_on & (known < 0)
        same = wanted & (node[:, None] == node) & (token[:, None] == token)
        foremost = jnp.argmax(same, axis=1)  # of the responses that want the same prefix
        first = wanted & (foremost == jnp.arange(len(token)))
        new = (used - 1 + jnp.cumsum(first.astype(used.dtype)))[foremost]
        following = jnp.where(
            goes_on & here, jnp.where(known >= 0, known, jnp.minimum(new, capacity)), capacity
        )
        placed = jnp.where(first & (new < capacity), node, capacity)
        child = child.at[placed, token].set(following, mode="drop")
        return (child, used + first.sum(dtype=used.dtype), following), node

    later = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    begin = (buffer.child, buffer.used, jnp.where(active, 0, capacity).astype(jnp.int32))
    pairs = (jnp.maximum(tokens, 0).T, (later >= 0).T)
    (child, used, _), nodes = jax.lax.scan(step, begin, pairs)
    overflow = buffer.overflow | (used > capacity)
    return Buffer(buffer.change, child, jnp.minimum(used, capacity), overflow), nodes.T
