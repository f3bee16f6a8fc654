"""One round: draws -> weights (the rule) -> direction (the engine) -> new logits (the optimiser)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bandit_sim.engines import Engine
from bandit_sim.optimiser import realise
from theory.rules.batch import Batch
from theory.rules.rule import Rule


class Carry(NamedTuple):
    """What a round hands to the next: the engine's logits, the optimiser's state, the rule's state."""

    state: jax.Array
    optimiser: Any
    memory: Any


def check_pair(engine: Engine, rule: Rule) -> None:
    """Reject an optimiser that the engine's coordinates do not carry."""
    if engine.linear and rule.optimiser.kind != "sgd":
        raise ValueError(
            f"optimiser {rule.optimiser.kind} with a kernel engine: "
            f"{rule.optimiser.kind.capitalize()} acts on parameters, the kernel carries function values; "
            "use the dense engine or SGD"
        )


def start(engine: Engine, rule: Rule, arms: Any) -> Carry:
    """The carry before the first round: the base policy."""
    state = engine.init(arms)
    return Carry(state, realise(rule.optimiser).init(state), rule.init(jnp))


def update(
    engine: Engine, rule: Rule, arms: Any, carry: Carry, choices: jax.Array, rewards: jax.Array
) -> Carry:
    """The carry after a round with the draws choices (n,) and their rewards (n,).

    A choice of -1 is a response the arms do not hold: its reward counts in its group's signal, as a response
    of one token, but it pushes nothing. A round of unknown responses only is skipped whole.
    """
    known = choices >= 0
    choices = jnp.maximum(choices, 0)
    first_token = jnp.eye(1, dtype=carry.state.dtype)
    logs, mask = engine.token_logprobs(arms, carry.state, choices)
    reference, _ = engine.token_logprobs(arms, engine.init(arms), choices)
    logs, reference = (jnp.where(known[:, None], x, 0) for x in (logs, reference))
    mask = jnp.where(known[:, None], mask, jnp.pad(first_token, ((0, 0), (0, mask.shape[1] - 1))))
    batch = Batch(logs, logs, reference, rewards, jnp.zeros(choices.shape, jnp.int32), mask)
    weights, memory = rule.weights(batch, carry.memory)
    weights = jnp.where(known[:, None], weights, 0)
    direction = engine.direction(arms, carry.state, choices, weights)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes its integer step count with floats
        step, optimiser = realise(rule.optimiser).update(-direction, carry.optimiser, carry.state)
    state = jnp.asarray(optax.apply_updates(carry.state, step))
    return jax.tree.map(
        lambda new, old: jnp.where(known.any(), new, old), Carry(state, optimiser, memory), carry
    )
