"""Contexts: f_q += eta [(1 - overlap) G_q + overlap sum_q' G_q'] kinds, G_q = sum_i w_i (1[a_i] - pi_q) of query q.

The state is the logits of every query, (N K,); the (N K)^2 kernel is never built. A response is one token.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bandit_sim.arms.contexts import Contexts
from bandit_sim.engines.queries import pick_batch
from bandit_sim.engines.sampling import choose
from bandit_sim.engines.single import token_mask
from theory.refusal import Refusal
from theory.rules.entropy import entropy_gradient

linear = True


def _logs(arms: Contexts, state: jax.Array) -> jax.Array:
    """(N, K) log pi of every arm, given its query."""
    return jax.nn.log_softmax(state.reshape(-1, jnp.shape(arms.kinds)[0]))


def _success(arms: Contexts, state: jax.Array) -> jax.Array:
    """(N,) p of every query."""
    pi = jnp.exp(_logs(arms, state))
    return jnp.sum(pi * jnp.asarray(arms.reward, state.dtype).reshape(pi.shape), axis=1)


def init(arms: Contexts) -> jax.Array:
    return jnp.asarray(arms.logits)


def query_count(arms: Contexts) -> int:
    return arms.training


def pick(arms: Contexts, key: jax.Array) -> jax.Array:
    return pick_batch(arms.training, arms.batch, key)


def query_of(arms: Contexts, choices: jax.Array) -> jax.Array:
    return choices // jnp.asarray(jnp.shape(arms.kinds)[0], choices.dtype)


def frequency(arms: Contexts) -> jax.Array:
    trained = jnp.arange(jnp.shape(arms.reward)[0]) < arms.training * jnp.shape(arms.kinds)[0]
    return jnp.where(trained, 1 / arms.training, 0.0)


def log_probabilities(arms: Contexts, state: jax.Array) -> jax.Array:
    return _logs(arms, state).ravel()


def success(arms: Contexts, state: jax.Array) -> jax.Array:
    return _success(arms, state)[: arms.training].mean()


def held_out(arms: Contexts, state: jax.Array) -> jax.Array:
    apart = _success(arms, state)[arms.training :]
    if not apart.shape[0]:
        raise Refusal(
            "observe: 'held_out', but the arms hold no such query; give Contexts some with held_out="
        )
    return apart.mean()


def sample(
    arms: Contexts, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array
) -> jax.Array:
    drawn = jax.vmap(lambda u, logs: choose(u[None], logs)[0])(uniform, _logs(arms, state)[queries])
    return queries * jnp.asarray(jnp.shape(arms.kinds)[0], queries.dtype) + drawn


def token_logprobs(arms: Contexts, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    logs = log_probabilities(arms, state)[choices][:, None]
    return logs, token_mask(arms, choices, logs.dtype)


def _pulled(arms: Contexts, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    """(N, K) weight on each arm of each query."""
    flat = jnp.zeros_like(state).at[choices].add(weights.sum(axis=1))
    return flat.reshape(-1, jnp.shape(arms.kinds)[0])


def direction(arms: Contexts, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    pi, pulled = jnp.exp(_logs(arms, state)), _pulled(arms, state, choices, weights)
    return metric(arms, (pulled - pulled.sum(axis=1, keepdims=True) * pi).ravel())


def entropy_direction(arms: Contexts, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    asked = _pulled(arms, state, choices, weights).sum(axis=1, keepdims=True)
    return metric(arms, (asked * jax.vmap(entropy_gradient)(_logs(arms, state))).ravel())


def greedy(arms: Contexts, state: jax.Array, queries: jax.Array) -> jax.Array:
    best = jnp.argmax(_logs(arms, state), axis=1).astype(queries.dtype)[queries]
    return queries * jnp.asarray(jnp.shape(arms.kinds)[0], queries.dtype) + best


def entropy(arms: Contexts, state: jax.Array, queries: jax.Array) -> jax.Array:
    logs = _logs(arms, state)[queries]
    return -jnp.sum(jnp.exp(logs) * logs, axis=1).mean()


def metric(arms: Contexts, gradient: jax.Array) -> jax.Array:
    own = gradient.reshape(-1, jnp.shape(arms.kinds)[0])
    overlap = jnp.asarray(arms.overlap, gradient.dtype)
    mixed = (1 - overlap) * own + overlap * own.sum(axis=0, keepdims=True)
    return (mixed @ jnp.asarray(arms.kinds, gradient.dtype)).ravel()
