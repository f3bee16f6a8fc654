"""Dense tabular softmax: theta_b += eta sum_i w_i (1[b = a_i] - pi_b); a response is one token."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bandit_sim.arms.plain import Arms
from bandit_sim.engines import single as _single
from bandit_sim.engines import softmax as _softmax
from bandit_sim.engines.single import IMPOSSIBLE
from theory.rules.entropy import entropy_gradient

linear = False
query_count, pick, query_of = _single.query_count, _single.pick, _single.query_of
frequency, held_out, token_mask = _single.frequency, _single.held_out, _single.token_mask
log_probabilities, success, sample = _softmax.log_probabilities, _softmax.success, _softmax.sample
token_logprobs, greedy, entropy = _softmax.token_logprobs, _softmax.greedy, _softmax.entropy


def init(arms: Arms) -> jax.Array:
    return jnp.maximum(jnp.asarray(arms.logits), IMPOSSIBLE)


def direction(arms: Arms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return _softmax.gradient(state, choices, weights)


def entropy_direction(arms: Arms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return weights.sum() * entropy_gradient(jax.nn.log_softmax(state))


def metric(arms: Arms, gradient: jax.Array) -> jax.Array:
    return gradient
