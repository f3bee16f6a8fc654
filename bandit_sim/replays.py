"""Replay: what the simulator predicts for a run whose draws are known."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit_sim.engines.engine import AnyArms, Engine
from bandit_sim.engines.registry import engine_for
from bandit_sim.rounds.step import Carry, Draws, check_decay, check_pair, knobs_of, start, update
from theory.refusal import Refusal
from theory.rules.rule import Rule


def replay(arms: AnyArms, rule: Rule, choices: ArrayLike, rewards: ArrayLike) -> NDArray[np.float64]:
    """(S, T) success p before each round, when the draws are given: p of a replica from its own history.

    Of several queries it is the mean over those trained on.

    Arguments:
        choices: (S, T, n) arm, particle or leaf of each rollout, n for each query of the batch, query by query and
            the signal's helpers (`rule.roles`) last in each; -1 where unknown (it pushes nothing), of one query alone.
        rewards: (S, T, n) reward of each rollout; it stands in for the arms' own.
    Errors: Refusal naming the replica and round of a choice out of range or a reward not finite.
    """
    return _checked(arms, rule, choices, rewards, asked=False)


def replay_asked(arms: AnyArms, rule: Rule, choices: ArrayLike, rewards: ArrayLike) -> NDArray[np.float64]:
    """(S, T, n) p of the query that each rollout answers, before its round: what its reward is to be held against.

    The rest is as `replay` has it, which for one query has the same number in all n places.
    """
    return _checked(arms, rule, choices, rewards, asked=True)


def _checked(
    arms: AnyArms, rule: Rule, choices: ArrayLike, rewards: ArrayLike, *, asked: bool
) -> NDArray[np.float64]:
    engine = engine_for(arms)
    check_pair(engine, rule)
    chosen, paid = np.asarray(choices), np.asarray(rewards)
    check_decay(arms, rule, chosen.shape[1] if chosen.ndim == 3 else 0)
    pulls = rule.drawn * engine.pick(arms, jax.random.key(0)).shape[0]
    if chosen.ndim != 3 or chosen.shape[2] != pulls or paid.shape != chosen.shape:
        raise Refusal(
            f"choices {chosen.shape} and rewards {paid.shape}; give both (replicas, rounds, {pulls})"
        )
    if engine.query_count(arms) > 1 and (chosen == -1).any():
        raise Refusal("choices holds -1: with several queries, no query can be told for an unknown response")
    count = np.shape(arms.reward)[0]
    for name, array, bad in (
        ("choices", chosen, (chosen < -1) | (chosen >= count)),
        ("rewards", paid, ~np.isfinite(paid)),
    ):
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise Refusal(
                f"{name}{list(at)} = {array[at]}; give choices -1 (unknown) to {count - 1} and finite rewards"
            )
    return np.asarray(_replay(engine, rule, arms, chosen.astype(np.int32), paid, asked), np.float64)


@partial(jax.jit, static_argnames=("engine", "rule", "asked"))
def _replay(
    engine: Engine, rule: Rule, arms: AnyArms, choices: jax.Array, rewards: jax.Array, asked: bool
) -> jax.Array:
    begin = engine.init(arms)
    knobs = knobs_of(rule, begin.dtype)
    present = jnp.ones(choices.shape[2], bool)

    def success(state: jax.Array, queries: jax.Array) -> jax.Array:
        """(n,) p of the query of each rollout."""
        if engine.query_count(arms) == 1:
            return jnp.broadcast_to(engine.success(arms, state), queries.shape)
        truth = jnp.asarray(arms.reward, state.dtype)
        paid = jnp.exp(engine.log_probabilities(arms, state)) * truth
        answers = engine.query_of(arms, jnp.arange(truth.shape[0], dtype=queries.dtype))
        return jnp.sum(jnp.where(answers == queries[:, None], paid, 0), axis=1)

    def one_round(carry: Carry, given: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
        queries = engine.query_of(arms, jnp.maximum(given[0], 0))
        draws = Draws(given[0], given[1].astype(carry.state.dtype), queries, present)
        p = success(carry.state, queries) if asked else engine.success(arms, carry.state)
        return update(engine, rule, arms, carry, draws, knobs)[0], p

    def one_replica(draws: jax.Array, paid: jax.Array) -> jax.Array:
        return jax.lax.scan(one_round, start(engine, rule, arms, knobs), (draws, paid))[1]

    return jax.vmap(one_replica)(choices, rewards)
