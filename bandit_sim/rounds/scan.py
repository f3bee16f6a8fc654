"""The compiled part of `simulate`: every round of every seed of every case."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bandit_sim.engines.engine import Engine
from bandit_sim.rounds.keys import VIRTUAL, key_at
from bandit_sim.rounds.observe import Observable, Seen
from bandit_sim.rounds.step import Carry, Knobs, Luck, batch_of, draw, luck_of, push, start, update
from theory.pay import PaySpec
from theory.rules.batch import SAMPLED
from theory.rules.rule import Rule


class Plan(NamedTuple):
    """What a run is compiled for; `structure` is that of the arms, whose arrays are given apart."""

    engine: Engine
    rule: Rule
    pay: PaySpec
    observe: tuple[tuple[str, Observable], ...]
    every: int
    records: int
    structure: Any


@partial(jax.jit, static_argnums=0)
def run_seeds(
    plan: Plan, stacked: list[jax.Array], knobs: Knobs, root: jax.Array, seeds: jax.Array
) -> dict[str, jax.Array]:
    """Each observable as (cases, seeds, records)."""
    engine, rule, pay, observe, every, records, structure = plan

    def one_seed(arms: Any, knobs: Knobs, seed: jax.Array) -> dict[str, jax.Array]:
        seed_key = jax.random.fold_in(root, seed)
        begin = start(engine, rule, arms, knobs)

        def luck_at(round: jax.Array) -> Luck:
            return luck_of(engine, rule, pay, arms, seed_key, round, begin.state.dtype)

        def advance(
            held: tuple[Carry, list[Any]], now: tuple[jax.Array, Luck]
        ) -> tuple[tuple[Carry, list[Any]], Seen]:
            (carry, memories), (round, luck) = held, now
            draws = draw(engine, rule, pay, arms, carry.state, luck, knobs)
            after, pushed = update(engine, rule, arms, carry, draws, knobs)

            def again(number: jax.Array) -> jax.Array:
                virtual = key_at(seed_key, round, VIRTUAL)
                chance = luck_of(engine, rule, pay, arms, virtual, number, begin.state.dtype)
                drawn = draw(engine, rule, pay, arms, carry.state, chance, knobs)
                batch = batch_of(engine, rule, arms, carry, drawn)
                return push(engine, rule, arms, carry.state, carry.memory, batch, drawn)[0].direction

            copies = len(draws.choices) // rule.drawn
            trained = draws.present & (jnp.tile(jnp.asarray(rule.roles), copies) == SAMPLED)
            seen = Seen(engine, arms, carry, draws, trained, pushed, again)
            kept = [
                memory if row.remember is None else row.remember(seen, memory)
                for (_, row), memory in zip(observe, memories, strict=True)
            ]
            return (after, kept), seen

        def record(
            held: tuple[Carry, list[Any]], now: tuple[jax.Array, Luck]
        ) -> tuple[Any, dict[str, jax.Array]]:
            """One recorded round, and the others up to the next; now holds (gap,) rounds and their luck."""
            after, seen = advance(held, jax.tree.map(lambda x: x[0], now))
            noted = {
                name: row.value(seen, memory) for (name, row), memory in zip(observe, held[1], strict=True)
            }
            if gap > 1:
                others = jax.tree.map(lambda x: x[1:], now)
                after, _ = jax.lax.scan(lambda h, x: (advance(h, x)[0], None), after, others)
            if every > gap:
                later = now[0][0] + jnp.arange(gap, every, dtype=jnp.uint32)
                after, _ = jax.lax.scan(lambda h, r: (advance(h, (r, luck_at(r)))[0], None), after, later)
            return after, noted

        def several(held: tuple[Carry, list[Any]], block: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
            index = block * jnp.uint32(together) + jnp.arange(together, dtype=jnp.uint32)
            rounds = index[:, None] * jnp.uint32(every) + jnp.arange(gap, dtype=jnp.uint32)
            return jax.lax.scan(record, held, (rounds, jax.vmap(jax.vmap(luck_at))(rounds)))

        # Random numbers are made for about 64 rounds at once: `together` records of the first `gap` rounds of each.
        gap = every if every <= 64 else 1
        blocks = -(-records * gap // 64)
        together = -(-records // blocks)
        memories = [None if row.start is None else row.start(engine, arms, begin.state) for _, row in observe]
        _, noted = jax.lax.scan(several, (begin, memories), jnp.arange(blocks, dtype=jnp.uint32))
        return jax.tree.map(lambda x: x.reshape(blocks * together)[:records], noted)

    def one_case(leaves: list[jax.Array], knobs: Knobs) -> dict[str, jax.Array]:
        arms = jax.tree.unflatten(structure, leaves)
        return jax.vmap(lambda seed: one_seed(arms, knobs, seed))(seeds)

    return jax.vmap(one_case)(stacked, knobs)
