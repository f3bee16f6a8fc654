"""One round: draws -> weights (the rule) -> direction (the engine) -> new logits (the optimiser)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bandit_sim.engines import Engine
from bandit_sim.engines._sampling import fine_uniform
from bandit_sim.keys import rollout_keys
from bandit_sim.optimiser import realise
from bandit_sim.verifiers import VerifierSpec, length_and_flip
from theory.rules.batch import Batch
from theory.rules.kl import NoKL
from theory.rules.rule import Rule

REWARD_STREAM = 2**31
"""Folded into a rollout's key for the verifier's own randomness; a rollout's draw uses the key as it is."""


class Knobs(NamedTuple):
    """What may differ between simulations of one compiled call.

    Arguments:
        eta: step size, in place of the rule's own.
        rollouts: how many of the rule's rollouts per query are there, in place of all.
    """

    eta: jax.Array
    rollouts: jax.Array


class Carry(NamedTuple):
    """What a round hands to the next: the engine's logits, the optimiser's state, the rule's state."""

    state: jax.Array
    optimiser: Any
    memory: Any


class Draws(NamedTuple):
    """One round's rollouts: what was pulled, what it was paid, for which query, and which are there."""

    choices: jax.Array
    rewards: jax.Array
    queries: jax.Array
    present: jax.Array


def check_pair(engine: Engine, rule: Rule) -> None:
    """Reject an optimiser that the engine's coordinates do not carry."""
    if engine.linear and rule.optimiser.kind != "sgd":
        raise ValueError(
            f"optimiser {rule.optimiser.kind} with a kernel engine: "
            f"{rule.optimiser.kind.capitalize()} acts on parameters, the kernel carries function values; "
            "use the dense engine or SGD"
        )


def start(engine: Engine, rule: Rule, arms: Any, knobs: Knobs) -> Carry:
    """The carry before the first round: the base policy."""
    state = engine.init(arms)
    return Carry(state, realise(rule.optimiser, knobs.eta).init(state), rule.init(jnp))


def draw(
    engine: Engine,
    rule: Rule,
    verifier: VerifierSpec,
    arms: Any,
    state: jax.Array,
    key: jax.Array,
    knobs: Knobs,
) -> Draws:
    """The rollouts of one round whose key is `key`: n for each query of the batch, query by query."""
    picked = engine.pick(arms, jax.random.fold_in(key, 2**32 - 1))
    queries = jnp.repeat(picked, rule.rollouts)
    keys = rollout_keys(key, len(queries))
    choices = engine.sample(arms, state, keys, queries)
    rewards = jnp.asarray(arms.reward, state.dtype)[choices]
    length, flip = length_and_flip(arms, choices, engine.token_logprobs(arms, state, choices)[1])
    uniform = jnp.zeros_like(rewards)
    if verifier.random:
        uniform = jax.vmap(lambda k: fine_uniform(jax.random.fold_in(k, REWARD_STREAM), rewards.dtype))(keys)
    rewards = verifier.pay(uniform, rewards, length, flip)
    present = jnp.tile(jnp.arange(rule.rollouts, dtype=jnp.int32) < knobs.rollouts, len(picked))
    return Draws(choices, rewards, queries, present)


class Push(NamedTuple):
    """What a round's rollouts amounted to: weights (n, T) and the direction (D,) they gave."""

    weights: jax.Array
    direction: jax.Array


def push(engine: Engine, rule: Rule, arms: Any, carry: Carry, draws: Draws) -> tuple[Push, Any]:
    """Weights and direction of the draws, and the rule's state after them.

    A choice of -1 is a response the arms do not hold: its reward counts in its group's signal, as a response
    of one token, but it pushes nothing.
    """
    known = (draws.choices >= 0) & draws.present
    choices = jnp.maximum(draws.choices, 0)
    logs, mask = engine.token_logprobs(arms, carry.state, choices)
    reference = logs
    if not isinstance(rule.kl, NoKL):
        reference, _ = engine.token_logprobs(arms, engine.init(arms), choices)
    logs, reference = (jnp.where(known[:, None], x, 0) for x in (logs, reference))
    one_token = jnp.pad(jnp.eye(1, dtype=logs.dtype), ((0, 0), (0, mask.shape[1] - 1)))
    mask = jnp.where(known[:, None], mask, one_token) * draws.present[:, None].astype(logs.dtype)
    batch = Batch(logs, logs, reference, draws.rewards, draws.queries, mask)
    weights, memory = rule.weights(batch, carry.memory)
    weights = jnp.where(known[:, None], weights, 0)
    return Push(weights, engine.direction(arms, carry.state, choices, weights)), memory


def update(
    engine: Engine, rule: Rule, arms: Any, carry: Carry, draws: Draws, knobs: Knobs
) -> tuple[Carry, Push]:
    """The carry after a round with these draws; a round of unknown responses only is skipped whole."""
    pushed, memory = push(engine, rule, arms, carry, draws)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes its integer step count with floats
        step, optimiser = realise(rule.optimiser, knobs.eta).update(
            -pushed.direction, carry.optimiser, carry.state
        )
    state = jnp.asarray(optax.apply_updates(carry.state, step))
    known = ((draws.choices >= 0) & draws.present).any()
    return jax.tree.map(
        lambda new, old: jnp.where(known, new, old), Carry(state, optimiser, memory), carry
    ), pushed
