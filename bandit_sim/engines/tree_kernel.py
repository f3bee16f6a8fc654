"""Tree kernel: f += eta K c on the edges of the response tree, one exact softmax per node.

c_e = s_e - pi_e sum of s over the edges of e's node, with s_e the weight of the rollouts whose path takes e
(the mean of w over the tokens that e carries): +w on the path's edge, -w pi on every edge of its node.
The state is log probability + f. Source: design of this project (the linearised softmax of each token).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bandit_sim.arms.tree import TreeArms
from bandit_sim.engines import single as _single
from bandit_sim.engines.queries import pick_batch
from bandit_sim.engines.sampling import choose, choose_by_mass
from bandit_sim.engines.single import IMPOSSIBLE

linear = True


def _node_sum(arms: TreeArms, per_edge: jax.Array) -> jax.Array:
    """(E,) the sum of per_edge over the edges that leave the same node."""
    nodes = per_edge.shape[0]  # a bound that does not depend on the tree's values, so that trees share code
    return jax.ops.segment_sum(per_edge, arms.node, nodes, indices_are_sorted=True)[arms.node]


def _edge_log_probabilities(arms: TreeArms, state: jax.Array) -> jax.Array:
    """(E,) log pi of each edge at its node."""
    nodes = state.shape[0]
    top = jax.ops.segment_max(state, arms.node, nodes, indices_are_sorted=True)[arms.node]
    return jnp.maximum(state - top - jnp.log(_node_sum(arms, jnp.exp(state - top))), IMPOSSIBLE)


def _along(arms: TreeArms, per_edge: jax.Array) -> jax.Array:
    """(L,) the sum of per_edge over each leaf's path."""
    return per_edge if arms.path is None else jnp.asarray(arms.path, per_edge.dtype) @ per_edge


def _paths(arms: TreeArms, choices: jax.Array, dtype: Any) -> jax.Array:
    """(n, E) the paths of the choices (n,)."""
    if arms.path is None:
        return (choices[:, None] == jnp.arange(jnp.shape(arms.node)[0], dtype=choices.dtype)).astype(dtype)
    return jnp.asarray(arms.path, dtype)[choices]


def init(arms: TreeArms) -> jax.Array:
    return jnp.log(jnp.asarray(arms.probability))


def log_probabilities(arms: TreeArms, state: jax.Array) -> jax.Array:
    return _along(arms, _edge_log_probabilities(arms, state))


def query_count(arms: TreeArms) -> int:
    return arms.training


def pick(arms: TreeArms, key: jax.Array) -> jax.Array:
    return _single.pick(arms, key) if arms.query is None else pick_batch(arms.training, arms.batch, key)


def query_of(arms: TreeArms, choices: jax.Array) -> jax.Array:
    return jnp.zeros_like(choices) if arms.query is None else jnp.asarray(arms.query)[choices]


def frequency(arms: TreeArms) -> jax.Array:
    if arms.query is None:
        return _single.frequency(arms)
    return jnp.where(jnp.asarray(arms.query) < arms.training, 1 / arms.training, 0.0)


def success(arms: TreeArms, state: jax.Array) -> jax.Array:
    paid = jnp.exp(log_probabilities(arms, state)) * jnp.asarray(arms.reward, state.dtype)
    return jnp.sum(frequency(arms).astype(state.dtype) * paid)


def held_out(arms: TreeArms, state: jax.Array) -> jax.Array:
    if arms.query is None:
        return _single.held_out(arms, state)
    apart = jnp.asarray(arms.query) >= arms.training
    paid = jnp.exp(log_probabilities(arms, state)) * jnp.asarray(arms.reward, state.dtype)
    queries = jnp.max(jnp.asarray(arms.query)) + 1 - arms.training
    return jnp.sum(jnp.where(apart, paid, 0)) / queries.astype(state.dtype)


def sample(
    arms: TreeArms, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array
) -> jax.Array:
    logs = log_probabilities(arms, state)
    if arms.query is None:
        return choose(uniform, logs)
    answers = jnp.asarray(arms.query) == queries[:, None]
    mass = jnp.where(answers, jnp.exp(logs), 0)
    return jax.vmap(lambda u, m: choose_by_mass(u[None], m)[0])(uniform, mass)


def token_logprobs(arms: TreeArms, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
    start, span = jnp.asarray(arms.start)[choices], jnp.asarray(arms.span)[choices]
    on_path = _paths(arms, choices, state.dtype) * _edge_log_probabilities(arms, state)
    by_depth = jax.vmap(lambda logs: jax.ops.segment_sum(logs, arms.depth, start.shape[1]))(on_path)
    mask = token_mask(arms, choices, state.dtype)
    each = jnp.take_along_axis(by_depth, start, axis=1) / jnp.maximum(span, 1).astype(state.dtype)
    return mask * each, mask


def token_mask(arms: TreeArms, choices: jax.Array, dtype: Any) -> jax.Array:
    return (jnp.asarray(arms.span)[choices] > 0).astype(dtype)


def _taken(arms: TreeArms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    """(E,) weight of the rollouts whose path takes the edge, the mean over the tokens that it carries."""
    start, span = jnp.asarray(arms.start)[choices], jnp.asarray(arms.span)[choices]
    share = jnp.where(span > 0, weights / jnp.maximum(span, 1).astype(state.dtype), 0)
    mean = jax.vmap(lambda w, at: jnp.zeros_like(w).at[at].add(w))(
        share, start
    )  # (n, T) by depth of the edge
    path = _paths(arms, choices, state.dtype)
    return jnp.sum(path * mean[:, jnp.asarray(arms.depth)], axis=0)


def gradient(arms: TreeArms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    """(E,) c: what the weights pull along each edge's score."""
    taken = _taken(arms, state, choices, weights)
    pi = jnp.exp(_edge_log_probabilities(arms, state))
    return taken - pi * _node_sum(arms, taken)


def direction(arms: TreeArms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return metric(arms, gradient(arms, state, choices, weights))


def entropy_direction(arms: TreeArms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    return metric(arms, entropy_gradient(arms, state, choices, weights))


def entropy_gradient(arms: TreeArms, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
    """(E,) the gradient of the weighted entropies with respect to each edge's logit."""
    passed = _node_sum(arms, _taken(arms, state, choices, weights))
    logs = _edge_log_probabilities(arms, state)
    pi = jnp.exp(logs)
    return passed * pi * (-logs - _node_sum(arms, -pi * logs))


def greedy(arms: TreeArms, state: jax.Array, queries: jax.Array) -> jax.Array:
    """The leaf that the most likely edge at every node leads to: token by token, as a model decodes."""
    nodes = state.shape[0]
    top = jax.ops.segment_max(state, arms.node, nodes, indices_are_sorted=True)[arms.node]
    strayed = _along(arms, (state < top).astype(state.dtype))
    answers = query_of(arms, jnp.arange(strayed.shape[0], dtype=queries.dtype)) == queries[:, None]
    return jnp.argmin(jnp.where(answers, strayed, jnp.inf), axis=1).astype(jnp.int32)


def entropy(arms: TreeArms, state: jax.Array, queries: jax.Array) -> jax.Array:
    logs = log_probabilities(arms, state)
    if arms.query is None:
        return _single.entropy_of(logs)
    answers = jnp.asarray(arms.query) == queries[:, None]
    return -jnp.sum(jnp.where(answers, jnp.exp(logs) * logs, 0), axis=1).mean()


def metric(arms: TreeArms, gradient: jax.Array) -> jax.Array:
    kernel = jnp.asarray(arms.kernel, gradient.dtype)
    return kernel * gradient if kernel.ndim == 1 else kernel @ gradient
