"""Sequence kernel: f += eta sum_i w_i (K[:, a_i] - K pi), pi ~ mass exp f over particles; one token each.

The state is log mass + f. K = identity is the dense engine.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bandit_sim.arms.particles import ParticleArms
from bandit_sim.engines import single as _single
from bandit_sim.engines import softmax as _softmax
from theory.rules.entropy import entropy_gradient

linear = True
query_count, pick, query_of = _single.query_count, _single.pick, _single.query_of
frequency, held_out, token_mask = _single.frequency, _single.held_out, _single.token_mask
log_probabilities, success, sample = _softmax.log_probabilities, _softmax.success, _softmax.sample
token_logprobs, greedy, entropy = _softmax.token_logprobs, _softmax.greedy, _softmax.entropy


def init(arms: ParticleArms) -> jax.Array:
    return jnp.log(jnp.asarray(arms.mass))


def direction(arms: ParticleArms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return metric(arms, _softmax.gradient(state, choices, weights))


def entropy_direction(
    arms: ParticleArms, state: jax.Array, choices: jax.Array, weights: jax.Array
) -> jax.Array:
    return metric(arms, weights.sum() * entropy_gradient(jax.nn.log_softmax(state)))


def metric(arms: ParticleArms, gradient: jax.Array) -> jax.Array:
    return jnp.asarray(arms.kernel, gradient.dtype) @ gradient
