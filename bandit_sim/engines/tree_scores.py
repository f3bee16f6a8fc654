"""Scored tree: theta += the optimiser's step along scores' c, f = scores theta / share, one exact softmax per node.

c is the tree kernel's: +w on a path's edges, -w pi on every edge of its nodes. Under SGD it is the tree kernel with
K = scores scores' / share. Source: design of this project (the linearised softmax of each token).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bandit_sim.arms.scored_tree import ScoredTree
from bandit_sim.engines import single as _single
from bandit_sim.engines import tree_kernel

linear = False


def _edges(arms: ScoredTree, state: jax.Array) -> jax.Array:
    """(E,) logits of the edges at parameters (P,)."""
    return tree_kernel.init(arms.tree) + jnp.asarray(arms.scores) @ state / arms.share


def init(arms: ScoredTree) -> jax.Array:
    return jnp.zeros_like(jnp.asarray(arms.scores)[0])


def query_count(arms: ScoredTree) -> int:
    return tree_kernel.query_count(arms.tree)


def pick(arms: ScoredTree, key: jax.Array) -> jax.Array:
    return tree_kernel.pick(arms.tree, key)


def query_of(arms: ScoredTree, choices: jax.Array) -> jax.Array:
    return tree_kernel.query_of(arms.tree, choices)


def frequency(arms: ScoredTree) -> jax.Array:
    return tree_kernel.frequency(arms.tree)


def log_probabilities(arms: ScoredTree, state: jax.Array) -> jax.Array:
    return tree_kernel.log_probabilities(arms.tree, _edges(arms, state))


def success(arms: ScoredTree, state: jax.Array) -> jax.Array:
    return tree_kernel.success(arms.tree, _edges(arms, state))


def held_out(arms: ScoredTree, state: jax.Array) -> jax.Array:
    if arms.query is None:
        return _single.held_out(arms, state)
    return tree_kernel.held_out(arms.tree, _edges(arms, state))


def sample(
    arms: ScoredTree, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array
) -> jax.Array:
    return tree_kernel.sample(arms.tree, _edges(arms, state), keys, uniform, queries)


def greedy(arms: ScoredTree, state: jax.Array, queries: jax.Array) -> jax.Array:
    return tree_kernel.greedy(arms.tree, _edges(arms, state), queries)


def token_logprobs(arms: ScoredTree, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    return tree_kernel.token_logprobs(arms.tree, _edges(arms, state), choices)


def token_mask(arms: ScoredTree, choices: jax.Array, dtype: Any) -> jax.Array:
    return tree_kernel.token_mask(arms.tree, choices, dtype)


def direction(arms: ScoredTree, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return tree_kernel.gradient(arms.tree, _edges(arms, state), choices, weights) @ jnp.asarray(arms.scores)


def entropy_direction(
    arms: ScoredTree, state: jax.Array, choices: jax.Array, weights: jax.Array
) -> jax.Array:
    gradient = tree_kernel.entropy_gradient(arms.tree, _edges(arms, state), choices, weights)
    return gradient @ jnp.asarray(arms.scores)


def entropy(arms: ScoredTree, state: jax.Array, queries: jax.Array) -> jax.Array:
    return tree_kernel.entropy(arms.tree, _edges(arms, state), queries)


def metric(arms: ScoredTree, gradient: jax.Array) -> jax.Array:
    return gradient
