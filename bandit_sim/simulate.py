"""Simulate many seeds of a bandit under an update rule, exactly; replay given draws; enumerate one step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit_sim.arms import Arms, ParticleArms, TreeArms
from bandit_sim.engines import Engine, engine_for
from bandit_sim.keys import rollout_keys, root_key
from bandit_sim.step import Carry, check_pair, start, update
from theory.curves import Curves
from theory.rules.rule import Rule

AnyArms = Arms | ParticleArms | TreeArms

_NUMBERS_PER_BATCH = 2**22


def simulate(
    arms: AnyArms,
    rule: Rule,
    rounds: int,
    seeds: int | range,
    key: int | jax.Array,
    *,
    chunk: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Curves:
    """Curves of independent replicas of the bandit: state += eta * direction(w), w = rule(draws, rewards).

    Arguments:
        arms: what is pulled; the kind of arms picks the engine.
        rule: the update rule; `rule.rollouts` arms are pulled per round.
        rounds: number T of updates.
        seeds: number S of replicas, or the range of replica numbers (a block of a larger run, the same bits).
        key: integer or JAX key; draw (seed, round, rollout) has a key of its own.
        chunk: replicas between two calls of `progress`, rounded up to whole batches; default one batch. The
            arms alone set a batch's shape: memory is bounded, code is compiled once for any number of seeds,
            and no choice of chunk or seeds changes a bit.
        progress: called as progress(done, S) after each chunk.

    Returns: metrics "success" (S, T), the exact p before each round's update, and "reward" (S, T), the mean
        reward of the round's rollouts.
    Errors: ValueError for counts below 1, or Adam with a kernel engine.
    Valid when: the arms describe the policy. Arithmetic is in the arms' dtype, float32 unless jax_enable_x64.
    """
    engine = engine_for(arms)
    check_pair(engine, rule)
    block = range(seeds) if isinstance(seeds, int) else seeds
    for name, value in {
        "rounds": rounds,
        "seeds": len(block),
        "chunk": 1 if chunk is None else chunk,
    }.items():
        if value < 1:
            raise ValueError(f"{name} = {value}; give at least 1")
    size = _batch(np.shape(arms.reward)[0])
    report = size * -(-(chunk or size) // size)
    root, parts = root_key(key), []
    arms = jax.device_put(arms)
    for first in range(0, len(block), size):
        numbers = (np.arange(first, first + size) * block.step + block.start).astype(np.uint32)
        parts.append([np.asarray(x, np.float64) for x in _run(engine, rule, rounds, arms, root, numbers)])
        done = min(first + size, len(block))
        if progress is not None and (done % report == 0 or done == len(block)):
            progress(done, len(block))
    success, reward = (np.concatenate(metric)[: len(block)] for metric in zip(*parts, strict=True))
    return Curves({"success": success, "reward": reward})


def replay(arms: AnyArms, rule: Rule, choices: ArrayLike, rewards: ArrayLike) -> NDArray[np.float64]:
    """(S, T) success p before each round, when the draws are given: p of a replica from its own history.

    Arguments:
        choices: (S, T, n) arm, particle or leaf of each rollout; -1 where unknown (it pushes nothing).
        rewards: (S, T, n) reward of each rollout; it stands in for the arms' own.
    Errors: ValueError naming the replica and round of a choice out of range or a reward not finite.
    """
    engine = engine_for(arms)
    check_pair(engine, rule)
    chosen, paid = np.asarray(choices), np.asarray(rewards)
    if chosen.ndim != 3 or chosen.shape[2] != rule.rollouts or paid.shape != chosen.shape:
        raise ValueError(
            f"choices {chosen.shape} and rewards {paid.shape}; give both (replicas, rounds, {rule.rollouts})"
        )
    count = np.shape(arms.reward)[0]
    for name, array, bad in (
        ("choices", chosen, (chosen < -1) | (chosen >= count)),
        ("rewards", paid, ~np.isfinite(paid)),
    ):
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{name}{list(at)} = {array[at]}; give choices -1 (unknown) to {count - 1} and finite rewards"
            )
    return np.asarray(_replay(engine, rule, arms, chosen.astype(np.int32), paid), np.float64)


def expected_step(arms: AnyArms, rule: Rule) -> float:
    """E[p after one round] - p from the base policy, by enumeration of every arm; needs `rule.rollouts` = 1.

    Valid when: enable jax_enable_x64 (and give float64 arms) where eta is small; p and p' nearly cancel.
    """
    engine = engine_for(arms)
    check_pair(engine, rule)
    if rule.rollouts != 1:
        raise ValueError(f"rule.rollouts = {rule.rollouts}; enumeration needs one rollout per round")
    return float(_expected_step(engine, rule, arms))


def _batch(choices: int) -> int:
    """Seeds per compiled call: 64, or fewer where the arms are so many that memory would suffer."""
    return max(1, min(64, _NUMBERS_PER_BATCH // choices))


@partial(jax.jit, static_argnames=("engine", "rule", "rounds"))
def _run(
    engine: Engine, rule: Rule, rounds: int, arms: AnyArms, root: jax.Array, seeds: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def one_seed(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        seed_key = jax.random.fold_in(root, seed)

        def one_round(carry: Carry, round: jax.Array) -> tuple[Carry, tuple[jax.Array, jax.Array]]:
            choices = engine.sample(arms, carry.state, rollout_keys(seed_key, round, rule.rollouts))
            rewards = jnp.asarray(arms.reward, carry.state.dtype)[choices]
            after = update(engine, rule, arms, carry, choices, rewards)
            return after, (engine.success(arms, carry.state), rewards.mean())

        _, curves = jax.lax.scan(one_round, start(engine, rule, arms), jnp.arange(rounds, dtype=jnp.uint32))
        return curves

    return jax.vmap(one_seed)(seeds)


@partial(jax.jit, static_argnames=("engine", "rule"))
def _replay(engine: Engine, rule: Rule, arms: AnyArms, choices: jax.Array, rewards: jax.Array) -> jax.Array:
    def one_round(carry: Carry, given: tuple[jax.Array, jax.Array]) -> tuple[Carry, jax.Array]:
        draws, paid = given
        after = update(engine, rule, arms, carry, draws, paid.astype(carry.state.dtype))
        return after, engine.success(arms, carry.state)

    def one_replica(draws: jax.Array, paid: jax.Array) -> jax.Array:
        return jax.lax.scan(one_round, start(engine, rule, arms), (draws, paid))[1]

    return jax.vmap(one_replica)(choices, rewards)


@partial(jax.jit, static_argnames=("engine", "rule"))
def _expected_step(engine: Engine, rule: Rule, arms: AnyArms) -> jax.Array:
    base = start(engine, rule, arms)
    before = engine.success(arms, base.state)
    reward = jnp.asarray(arms.reward, base.state.dtype)

    def change(arm: jax.Array) -> jax.Array:
        after = update(engine, rule, arms, base, arm[None], reward[arm][None])
        return engine.success(arms, after.state) - before

    changes = jax.lax.map(change, jnp.arange(reward.shape[0]), batch_size=64)
    mass = jnp.exp(engine.log_probabilities(arms, base.state))
    return jnp.where(mass > 0, mass * changes, 0).sum()
