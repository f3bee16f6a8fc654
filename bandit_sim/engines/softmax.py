"""What the dense and the kernel engine share: one softmax over all choices, one token a response."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bandit_sim.engines import single as _single
from bandit_sim.engines.sampling import Blocks


class Softmax(NamedTuple):
    """pi = mass times inverse, with mass = exp(logit - top) (A,): one pass of exponentials serves a whole round."""

    mass: jax.Array
    blocks: Blocks
    inverse: jax.Array
    shift: jax.Array

    @classmethod
    def of(cls, logits: jax.Array) -> Softmax:
        top = logits.max()
        mass = jnp.exp(logits - top)
        blocks = Blocks.of(mass, 1 + jnp.abs(top))
        return cls(mass, blocks, 1 / blocks.total, top + jnp.log(blocks.total))


def log_probabilities(arms: Any, state: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(state)


def success(arms: Any, state: jax.Array) -> jax.Array:
    policy, reward = Softmax.of(state), jnp.asarray(arms.reward, state.dtype)
    # A product, since XLA on the CPU takes ten times as long for the sum of products over several seeds.
    return jnp.dot(policy.mass, reward, precision=jax.lax.Precision.HIGHEST) * policy.inverse


def sample(arms: Any, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array) -> jax.Array:
    return Softmax.of(state).blocks.choose(uniform)


def token_logprobs(arms: Any, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    logs = (state[choices] - Softmax.of(state).shift)[:, None]
    return logs, _single.token_mask(arms, choices, logs.dtype)


def gradient(state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    """(A,) sum_i w_i (1[b = a_i] - pi_b)."""
    per_rollout, policy = weights.sum(axis=1), Softmax.of(state)
    share = per_rollout.sum() * policy.inverse
    return _pulled(choices, per_rollout, state.shape[0]) - share * policy.mass


def _pulled(choices: jax.Array, weights: jax.Array, count: int) -> jax.Array:
    """(A,) sum of weights (n,) on each of `count` arms; a few are compared with each arm, cheaper than a scatter."""
    if choices.shape[0] > 4:
        return jnp.zeros(count, weights.dtype).at[choices].add(weights)
    arm = jnp.arange(count, dtype=choices.dtype)
    return sum(
        (jnp.where(arm == choices[i], weights[i], 0) for i in range(choices.shape[0])),
        jnp.zeros(count, weights.dtype),
    )


def greedy(arms: Any, state: jax.Array, queries: jax.Array) -> jax.Array:
    best = jnp.argmax(log_probabilities(arms, state)).astype(jnp.int32)
    return jnp.broadcast_to(best, queries.shape)


def entropy(arms: Any, state: jax.Array, queries: jax.Array) -> jax.Array:
    return _single.entropy_of(log_probabilities(arms, state))
