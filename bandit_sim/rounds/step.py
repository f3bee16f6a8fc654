"""One round: draws -> weights (the rule) -> direction (the engine) -> new logits (the optimiser)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bandit_sim.arms.checks import concrete
from bandit_sim.engines.engine import Engine
from bandit_sim.engines.sampling import fine_uniform
from bandit_sim.rounds.keys import PICK, key_at, rollout_keys
from bandit_sim.rounds.optimiser import realise
from theory.pay import PaySpec
from theory.refusal import Refusal
from theory.rules.batch import GREEDY, SAMPLED, Batch
from theory.rules.entropy import ExactEntropy
from theory.rules.rule import Rule

REWARD_STREAM = 2**31
"""Folded into a rollout's key for the randomness of its pay; a rollout's draw uses the key's own bits."""


class Knobs(NamedTuple):
    """What may differ between simulations of one compiled call.

    Arguments:
        eta: step size, in place of the rule's own.
        rollouts: how many of the rule's rollouts per query are there, in place of all.
    """

    eta: jax.Array
    rollouts: jax.Array


def knobs_of(rule: Rule, dtype: Any) -> Knobs:
    """The knobs of a rule on its own."""
    return Knobs(jnp.asarray(rule.optimiser.eta, dtype), jnp.asarray(rule.rollouts, jnp.int32))


class Carry(NamedTuple):
    """What a round hands to the next.

    Arguments:
        state: the engine's logits.
        optimiser: the optimiser's state.
        memory: the rule's state.
        reference: the reference model's logits; None where the rule does not read them.
        round: number of rounds so far; None where the reference stays what it is.
    """

    state: jax.Array
    optimiser: Any
    memory: Any
    reference: jax.Array | None
    round: jax.Array | None


class Luck(NamedTuple):
    """One round's random numbers, which no policy changes: of many rounds they are made at once, far cheaper.

    Arguments:
        picked: (B,) the queries of the round's batch.
        keys: (n,) of the rollouts, query by query.
        uniform: (n,) what a rollout is chosen by.
        paid: (n,) what its pay is decided by, where that is left to chance.
    """

    picked: jax.Array
    keys: jax.Array
    uniform: jax.Array
    paid: jax.Array


class Draws(NamedTuple):
    """One round's rollouts: what was pulled, what it was paid, for which query, and which are there."""

    choices: jax.Array
    rewards: jax.Array
    queries: jax.Array
    present: jax.Array


class Push(NamedTuple):
    """What a round's rollouts amounted to in its first epoch: weights (n, T) and their direction (D,)."""

    weights: jax.Array
    direction: jax.Array


def check_pair(engine: Engine, rule: Rule) -> None:
    """Reject an optimiser that the engine's coordinates do not carry."""
    if engine.linear and not rule.optimiser.linear:
        raise Refusal(
            f"optimiser {rule.optimiser.kind} with a kernel engine: "
            f"{rule.optimiser.kind.capitalize()} {'clipped by norm ' if rule.optimiser.kind == 'sgd' else ''}acts on "
            "parameters, the kernel carries function values; use the dense engine, or SGD without clip_norm"
        )


def check_decay(arms: Any, rule: Rule, rounds: int) -> None:
    """Reject weight decay that would bring an arm of logit -inf (`engines._single.IMPOSSIBLE`) to life."""
    decay, logits = getattr(rule.optimiser, "weight_decay", 0), getattr(arms, "logits", None)
    if not decay or logits is None or not concrete(logits) or np.isfinite(np.asarray(logits)).all():
        return
    if (halvings := rule.optimiser.eta * decay * rounds) > 50:
        raise Refusal(
            f"eta * weight_decay * rounds = {halvings:.3g} with an arm of logit -inf, which so much decay would make "
            "possible; drop the arm, or keep the product below 50"
        )


def start(engine: Engine, rule: Rule, arms: Any, knobs: Knobs) -> Carry:
    """The carry before the first round: the base policy."""
    state = engine.init(arms)
    return Carry(
        state,
        realise(rule.optimiser, knobs.eta).init(state),
        rule.init(jnp, engine.query_count(arms)),
        state if rule.kl.reads_reference else None,
        None if rule.kl.refresh is None else jnp.zeros((), jnp.int32),
    )


def luck_of(
    engine: Engine,
    rule: Rule,
    pay: PaySpec,
    arms: Any,
    seed_key: jax.Array,
    round: jax.Array | int,
    dtype: Any,
) -> Luck:
    """The random numbers of one round of a seed, for the rollouts of `rule.roles` query by query."""
    picked = engine.pick(arms, key_at(seed_key, round, PICK))
    keys = rollout_keys(seed_key, round, len(picked), rule.rollouts, rule.drawn)
    uniform = fine_uniform(keys, dtype)
    paid = jnp.zeros_like(uniform)
    if pay.random:
        paid = fine_uniform(jax.vmap(lambda key: jax.random.fold_in(key, REWARD_STREAM))(keys), dtype)
    return Luck(picked, keys, uniform, paid)


def draw(
    engine: Engine,
    rule: Rule,
    pay: PaySpec,
    arms: Any,
    state: jax.Array,
    luck: Luck,
    knobs: Knobs,
) -> Draws:
    """The rollouts of one round with these random numbers: those of `rule.roles` for each query, query by query."""
    picked = luck.picked
    queries = jnp.repeat(picked, rule.drawn)
    roles = jnp.tile(jnp.asarray(rule.roles, jnp.int32), len(picked))
    choices = engine.sample(arms, state, luck.keys, luck.uniform, queries)
    if GREEDY in rule.roles:
        choices = jnp.where(roles == GREEDY, engine.greedy(arms, state, queries), choices)
    rewards = jnp.asarray(arms.reward, state.dtype)[choices]
    length, flip = length_and_flip(arms, choices, engine.token_mask(arms, choices, state.dtype))
    rewards = pay.pay(luck.paid, rewards, length, flip)
    number = jnp.tile(jnp.arange(rule.drawn, dtype=jnp.int32), len(picked))
    return Draws(choices, rewards, queries, (roles != SAMPLED) | (number < knobs.rollouts))


def length_and_flip(arms: Any, choices: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(n,) tokens of each choice, from its mask (n, T), and (n,) its chance of being misjudged."""
    flip = jnp.zeros_like(mask[:, 0]) if arms.flip is None else jnp.asarray(arms.flip, mask.dtype)[choices]
    return mask.sum(axis=1), flip


def batch_of(engine: Engine, rule: Rule, arms: Any, carry: Carry, draws: Draws) -> Batch:
    """The round's batch at sampling time.

    A choice of -1 is a response the arms do not hold: its reward counts in its group's signal, as a response
    of one token, but it pushes nothing.
    """
    known = (draws.choices >= 0) & draws.present
    logs, mask = _logs(engine, arms, carry.state, draws)
    reference = logs if carry.reference is None else _logs(engine, arms, carry.reference, draws)[0]
    one_token = jnp.pad(jnp.eye(1, dtype=logs.dtype), ((0, 0), (0, mask.shape[1] - 1)))
    mask = jnp.where(known[:, None], mask, one_token) * draws.present[:, None].astype(logs.dtype)
    helped = any(role != SAMPLED for role in rule.roles)
    copies = len(draws.choices) // rule.drawn
    role = jnp.tile(jnp.asarray(rule.roles, jnp.int32), copies) if helped else None
    return Batch(logs, logs, reference, draws.rewards, draws.queries, mask, role)


def _logs(engine: Engine, arms: Any, state: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
    known = (draws.choices >= 0) & draws.present
    logs, mask = engine.token_logprobs(arms, state, jnp.maximum(draws.choices, 0))
    return jnp.where(known[:, None], logs, 0), mask


def push(
    engine: Engine, rule: Rule, arms: Any, state: jax.Array, memory: Any, batch: Batch, draws: Draws
) -> tuple[Push, Any]:
    """Weights and direction of a batch at the logits `state`, and the rule's state after it."""
    known = (draws.choices >= 0) & draws.present
    choices = jnp.maximum(draws.choices, 0)
    weights, memory = rule.weights(batch, memory)
    weights = jnp.where(known[:, None], weights, 0)
    direction = engine.direction(arms, state, choices, weights)
    if isinstance(rule.entropy, ExactEntropy):
        bonus = jnp.where(known[:, None], rule.entropy_weights(batch), 0)
        direction = direction + engine.entropy_direction(arms, state, choices, bonus)
    return Push(weights, direction), memory


def update(
    engine: Engine, rule: Rule, arms: Any, carry: Carry, draws: Draws, knobs: Knobs
) -> tuple[Carry, Push]:
    """The carry after a round with these draws; a round of unknown responses only is skipped whole."""
    carry = _refreshed(rule, carry)
    batch = batch_of(engine, rule, arms, carry, draws)
    first, memory = push(engine, rule, arms, carry.state, carry.memory, batch, draws)
    state, optimiser = ascend(rule, carry.state, carry.optimiser, first.direction, knobs)
    for _ in range(1, rule.epochs):
        later = batch._replace(logprobs=_logs(engine, arms, state, draws)[0])
        pushed, memory = push(engine, rule, arms, state, carry.memory, later, draws)
        state, optimiser = ascend(rule, state, optimiser, pushed.direction, knobs)
    known = ((draws.choices >= 0) & draws.present).any()
    after = carry._replace(state=state, optimiser=optimiser, memory=memory)
    after = jax.tree.map(lambda new, old: jnp.where(known, new, old), after, carry)
    if carry.round is not None:
        after = after._replace(round=carry.round + 1)
    return after, first


def _refreshed(rule: Rule, carry: Carry) -> Carry:
    """The policy becomes the reference before rounds n, 2n, ..., where the rule's KL says so."""
    if carry.round is None or carry.reference is None or rule.kl.refresh is None:
        return carry
    due = (carry.round > 0) & (carry.round % rule.kl.refresh == 0)
    return carry._replace(reference=jnp.where(due, carry.state, carry.reference))


def ascend(
    rule: Rule, state: jax.Array, optimiser: Any, direction: jax.Array, knobs: Knobs
) -> tuple[jax.Array, Any]:
    """One step of the optimiser along a direction."""
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes its integer step count with floats
        step, optimiser = realise(rule.optimiser, knobs.eta).update(-direction, optimiser, state)
    return jnp.asarray(optax.apply_updates(state, step)), optimiser
