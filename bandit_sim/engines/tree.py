"""Token tree: at every prefix on the path, theta_v += eta w_t (1[v = y_t] - pi_v); one softmax per prefix.

The state is the logits of every prefix, (N V,). A rollout walks the tree with a uniform number per token, so
that a tree grown on the way (`lazy_tree`) draws the same responses.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bandit_sim.arms.token_tree import TokenTree
from bandit_sim.engines import single as _single
from bandit_sim.engines.sampling import choose, fine_uniform
from bandit_sim.engines.single import IMPOSSIBLE
from theory.rules.entropy import entropy_gradient

linear = False
query_count, pick, query_of = _single.query_count, _single.pick, _single.query_of
frequency, held_out = _single.frequency, _single.held_out


def token_uniform(key: jax.Array, position: jax.Array, dtype: Any) -> jax.Array:
    """() what a rollout's token is chosen by; the first token has the key's own, as a response of one token does."""
    later = fine_uniform(jax.random.fold_in(key, position), dtype)
    return jnp.where(position == 0, fine_uniform(key, dtype), later)


def _logs(arms: TokenTree, state: jax.Array) -> jax.Array:
    """(N, V) log pi of every token at every prefix."""
    return jax.nn.log_softmax(state.reshape(jnp.shape(arms.child)))


def _real(arms: TokenTree, dtype: jnp.dtype) -> jax.Array:
    """(L, T) 1 on the tokens of the response."""
    return (jnp.arange(jnp.shape(arms.node)[1], dtype=jnp.int32) < jnp.asarray(arms.length)[:, None]).astype(
        dtype
    )


def _by_token(arms: TokenTree, state: jax.Array) -> jax.Array:
    """(L, T) log pi of every token of every response, 0 beyond its end."""
    return _real(arms, state.dtype) * _logs(arms, state)[jnp.asarray(arms.node), jnp.asarray(arms.token)]


def init(arms: TokenTree) -> jax.Array:
    return jnp.maximum(jnp.asarray(arms.logits), IMPOSSIBLE).ravel()


def log_probabilities(arms: TokenTree, state: jax.Array) -> jax.Array:
    logs = _by_token(arms, state)[:, arms.skip :].sum(axis=1)
    return jnp.where(jnp.asarray(arms.within), logs, IMPOSSIBLE)


def success(arms: TokenTree, state: jax.Array) -> jax.Array:
    mass = jnp.exp(_by_token(arms, state).sum(axis=1))
    return jnp.sum(mass * jnp.asarray(arms.reward, state.dtype))


def sample(
    arms: TokenTree, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array
) -> jax.Array:
    logs, child = _logs(arms, state), jnp.asarray(arms.child)
    positions = jnp.arange(jnp.shape(arms.node)[1] - arms.skip, dtype=jnp.uint32)

    def walk(key: jax.Array) -> jax.Array:
        def step(at: jax.Array, position: jax.Array) -> tuple[jax.Array, None]:
            here = jnp.maximum(at, 0)
            token = choose(token_uniform(key, position, state.dtype)[None], logs[here])[0]
            return jnp.where(at >= 0, child[here, token], at), None

        return -1 - jax.lax.scan(step, jnp.asarray(arms.root, child.dtype), positions)[0]

    return jax.vmap(walk)(keys)


def token_logprobs(arms: TokenTree, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    node, token = (jnp.asarray(x)[choices, arms.skip :] for x in (arms.node, arms.token))
    mask = token_mask(arms, choices, state.dtype)
    return mask * _logs(arms, state)[node, token], mask


def token_mask(arms: TokenTree, choices: jax.Array, dtype: Any) -> jax.Array:
    return _real(arms, dtype)[choices, arms.skip :]


def _taken(arms: TokenTree, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    """(N, V) weight of the rollouts that take the token at the prefix."""
    node, token = (jnp.asarray(x)[choices, arms.skip :] for x in (arms.node, arms.token))
    real = token_mask(arms, choices, state.dtype)
    return jnp.zeros(jnp.shape(arms.child), state.dtype).at[node, token].add(weights * real)


def direction(arms: TokenTree, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    logs, taken = _logs(arms, state), _taken(arms, state, choices, weights)
    return (taken - jnp.exp(logs) * taken.sum(axis=1, keepdims=True)).ravel()


def entropy_direction(arms: TokenTree, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    passed = _taken(arms, state, choices, weights).sum(axis=1, keepdims=True)
    return (passed * jax.vmap(entropy_gradient)(_logs(arms, state))).ravel()


def greedy(arms: TokenTree, state: jax.Array, queries: jax.Array) -> jax.Array:
    """The response that the most likely token at every prefix leads to."""
    child, logs = jnp.asarray(arms.child), _logs(arms, state)
    best = jnp.take_along_axis(child, jnp.argmax(logs, axis=1)[:, None], axis=1)[:, 0]

    def step(_: jax.Array, at: jax.Array) -> jax.Array:
        return jnp.where(at >= 0, best[jnp.maximum(at, 0)], at)

    end = jax.lax.fori_loop(0, jnp.shape(arms.node)[1] - arms.skip, step, jnp.asarray(arms.root, child.dtype))
    return jnp.broadcast_to(-1 - end, queries.shape)


def entropy(arms: TokenTree, state: jax.Array, queries: jax.Array) -> jax.Array:
    return _single.entropy_of(log_probabilities(arms, state))


def metric(arms: TokenTree, gradient: jax.Array) -> jax.Array:
    return gradient
