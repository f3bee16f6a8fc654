"""The expected change of success in one round, by enumeration."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from bandit_sim.engines.engine import AnyArms, Engine
from bandit_sim.engines.registry import engine_for
from bandit_sim.rounds.step import Draws, check_pair, knobs_of, length_and_flip, start, update
from theory.pay import Clean, PaySpec, check_pay
from theory.refusal import Refusal
from theory.rules.rule import Rule


def expected_step(arms: AnyArms, rule: Rule, pay: PaySpec | None = None) -> float:
    """E[p after one round] - p from the base policy, by enumeration of every arm and every reward it may be paid.

    Needs one rollout per round: `rule.rollouts` = 1 and, for contexts, a batch of one query.

    Valid when: enable jax_enable_x64 (and give float64 arms) where eta is small; p and p' nearly cancel.
    """
    engine = engine_for(arms)
    check_pair(engine, rule)
    if rule.drawn != 1:
        raise Refusal(f"the rule draws {rule.drawn} rollouts; enumeration needs one rollout per round")
    if (batch := engine.pick(arms, jax.random.key(0)).shape[0]) != 1:
        raise Refusal(f"arms.batch = {batch}; enumeration needs a batch of one query")
    pay = Clean() if pay is None else pay
    check_pay(pay, arms.reward, arms.flip)
    return float(_expected_step(engine, _without_eta(rule), pay, arms, rule.optimiser.eta))


def _without_eta(rule: Rule) -> Rule:
    """So that rules of many step sizes share one compilation."""
    return rule.model_copy(update={"optimiser": rule.optimiser.model_copy(update={"eta": 1.0})})


@partial(jax.jit, static_argnames=("engine", "rule", "pay"))
def _expected_step(engine: Engine, rule: Rule, pay: PaySpec, arms: AnyArms, eta: jax.Array) -> jax.Array:
    base_state = engine.init(arms)
    knobs = knobs_of(rule, base_state.dtype)._replace(eta=jnp.asarray(eta, base_state.dtype))
    base = start(engine, rule, arms, knobs)
    before = engine.success(arms, base.state)
    truth = jnp.asarray(arms.reward, base.state.dtype)

    def change(arm: jax.Array, paid: jax.Array) -> jax.Array:
        draws = Draws(arm[None], paid[None], engine.query_of(arms, arm[None]), jnp.ones(1, bool))
        return engine.success(arms, update(engine, rule, arms, base, draws, knobs)[0].state) - before

    everything = jnp.arange(truth.shape[0], dtype=jnp.int32)
    mask = engine.token_mask(arms, everything, base.state.dtype)
    rewards, chances = pay.law(truth, *length_and_flip(arms, everything, mask))
    total = jnp.zeros_like(before)
    mass = engine.frequency(arms).astype(before.dtype) * jnp.exp(engine.log_probabilities(arms, base.state))
    for paid, chance in zip(rewards, chances, strict=True):
        changes = jax.lax.map(lambda at: change(*at), (everything, paid), batch_size=64)
        total = total + jnp.where(mass > 0, mass * chance * changes, 0).sum()
    return total
