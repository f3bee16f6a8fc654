"""Dense tabular softmax: theta_b += eta sum_i w_i (1[b = a_i] - pi_b); a response is one token."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bandit_sim.arms import Arms
from bandit_sim.engines import _single
from bandit_sim.engines._sampling import choose_by_mass
from bandit_sim.engines._single import IMPOSSIBLE, Softmax
from theory.rules.entropy import entropy_gradient

linear = False
query_count, pick, query_of = _single.query_count, _single.pick, _single.query_of
frequency, held_out, token_mask = _single.frequency, _single.held_out, _single.token_mask


def init(arms: Arms) -> jax.Array:
    return jnp.maximum(jnp.asarray(arms.logits), IMPOSSIBLE)


def log_probabilities(arms: Arms, state: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(state)


def success(arms: Arms, state: jax.Array) -> jax.Array:
    policy = Softmax.of(state)
    return jnp.sum(policy.mass * jnp.asarray(arms.reward, state.dtype)) / policy.total


def sample(
    arms: Arms, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array
) -> jax.Array:
    return choose_by_mass(uniform, Softmax.of(state).mass)


def token_logprobs(arms: Arms, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    logs = (state[choices] - Softmax.of(state).shift)[:, None]
    return logs, token_mask(arms, choices, logs.dtype)


def direction(arms: Arms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    per_rollout, policy = weights.sum(axis=1), Softmax.of(state)
    share = per_rollout.sum() / policy.total
    return _single.pulled(choices, per_rollout, state.shape[0]) - share * policy.mass


def entropy_direction(arms: Arms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return metric(arms, weights.sum() * entropy_gradient(jax.nn.log_softmax(state)))


def greedy(arms: Arms, state: jax.Array, queries: jax.Array) -> jax.Array:
    best = jnp.argmax(log_probabilities(arms, state)).astype(jnp.int32)
    return jnp.broadcast_to(best, queries.shape)


def entropy(arms: Arms, state: jax.Array, queries: jax.Array) -> jax.Array:
    return _single.entropy_of(log_probabilities(arms, state))


def metric(arms: Arms, gradient: jax.Array) -> jax.Array:
    return gradient
