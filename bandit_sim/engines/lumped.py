"""Exact sampled runs at any number of arms: untouched arms move as classes, touched ones as cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from bandit_sim.arm_classes import ArmClasses
from bandit_sim.engines import birth
from bandit_sim.engines._blocks import BLOCK, FirstAlone, Floats, round_numbers, run_blocks
from bandit_sim.engines._observables import check_observe, in_order, keys_of, read
from bandit_sim.engines._pay import Verifier, fixed_pay
from bandit_sim.engines._rows import WIDE, Classes, look_up, rows_for, tables, total
from bandit_sim.engines._uniforms import uniforms
from bandit_sim.engines._weigh import How, Table, check_rule, how_to_weigh, table_of, weigh, weigh_by_table
from bandit_sim.engines.cohorts import Cohorts, for_each, grow, pick, start, step
from bandit_sim.keys import root_key
from bandit_sim.optimiser import realise
from theory.rules.rule import Rule


class Plan(NamedTuple):
    """What a compiled chunk is made for."""

    rule: Rule
    verifier: Verifier | None
    how: How
    keys: tuple[str, ...]
    length: int
    """Rounds per chunk: fixed by the rule, for the draws of a chunk come from one counter."""


class Carry(NamedTuple):
    cohorts: Cohorts
    memory: Any


def run(
    arms: ArmClasses,
    rule: Rule,
    at: ArrayLike,
    seeds: int | range,
    key: int | jax.Array,
    *,
    verifier: Verifier | None = None,
    observe: Sequence[str] = ("success",),
    dtype: Any = jnp.float64,
    slots: int = 4,
    special: bool = True,
) -> dict[str, Floats]:
    """Observables of independent replicas at the rounds `at`; exact in distribution, cost independent of K.

    Arguments:
        arms: C classes of alike arms; the cost of a round grows with C and with the touched cohorts, never with K.
        rule: the update rule, one query per round; its optimiser must be elementwise (SGD, Adam).
        at: (A,) strictly increasing round numbers; column j is the policy before the update of round at[j],
            so 0 is the base policy.
        seeds: number of replicas, or the range of replica numbers. Replica s is always column s % 1024 of block
            s // 1024, and a block's draws come from a counter keyed by (key, block, chunk of rounds): no
            bit depends on which replicas are asked for, on `at`, or on `slots`.
        key: integer or JAX key.
        verifier: pay(uniform, truth, length, flip) -> reward; None pays the true reward. A response has length 1.
        observe: "success" sum of pi times true reward; "reward" mean paid reward of that round's rollouts;
            "entropy" nats, over single arms; "winner_share" the likeliest correct arm's share of the correct mass;
            "distinct" arms of positive reward that ever got a weight; "class_mass" pi of each class, touched
            arms included, as "class_mass/0", ... Only what is asked for is computed, and only at `at`.
        dtype: float64, or float32 where no class's mass below 1e-6 matters.
        slots: touched cohorts to begin with; where a block needs more, its chunk is repeated with twice the
            rows and the same draws.
        special: use the birth chain where it applies (`birth.applies`).

    Returns: name -> (seeds, A) float64.
    Errors: ValueError naming the field and the fix.
    Valid when: arms share no parameters. An arm is told from the others of its row by the 53 bits of its uniform:
        two rollouts meet in one arm of a class of n with a probability that is 1/n up to 1e-16.
    """
    rounds, names = round_numbers(at), check_observe(observe)
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise ValueError(f"dtype = {dtype}; give float64 or float32")
    if slots < 1:
        raise ValueError(f"slots = {slots}; give at least 1")
    check_rule(rule)
    if special and birth.applies(arms, rule, verifier, rounds):
        return birth.run(arms, rule, rounds, seeds, key, observe=names)
    arms, order = arms.rarest_first()
    paid = fixed_pay(verifier, arms.reward, arms.flip)
    how = how_to_weigh(rule, paid)
    draws = rule.rollouts * (1 if verifier is None else 2)
    plan = Plan(rule, verifier, how, keys_of(names, len(arms.logit)), int(np.clip(256 // draws, 16, 128)))
    root, first_alone = root_key(key), FirstAlone()

    with jax.enable_x64(True):
        classes = tables(arms.logit, arms.count, arms.reward, arms.flip, dtype)
        table = None
        if how == "table" and paid is not None:
            table = Table(*(jnp.asarray(x, dtype) for x in table_of(rule, paid)))
        first_rows = rows_for(len(arms.logit), slots)
        memory = jax.tree.map(
            lambda x: jnp.broadcast_to(jnp.asarray(x)[..., None], (*np.shape(x), BLOCK)), rule.init(jnp)
        )
        base = Carry(start(classes, first_rows, BLOCK, realise(rule.optimiser)), memory)

    def one_block(block: int) -> dict[str, Floats]:
        rows, carry = first_rows, base
        block_key = jax.random.fold_in(root, block)
        found: dict[str, list[np.ndarray]] = {name: [] for name in plan.keys}
        for chunk in range(int(rounds[-1]) // plan.length + 1):
            begin = chunk * plan.length
            wanted = rounds[(rounds >= begin) & (rounds < begin + plan.length)] - begin
            steps = min(plan.length, int(rounds[-1]) + 1 - begin)
            record = np.zeros(plan.length, bool)
            record[wanted] = True
            chunk_key = jax.random.fold_in(block_key, chunk)
            while True:
                after, overflow, outputs = first_alone(
                    rows, partial(_chunk, plan, classes, table, carry, chunk_key, steps, record)
                )
                if not overflow:
                    break
                rows = rows_for(len(arms.logit), 2 * (rows - len(arms.logit)))
                carry = carry._replace(cohorts=grow(carry.cohorts, rows))
            carry = after
            if len(wanted):
                for name, values in outputs.items():
                    found[name].append(np.asarray(values)[wanted])
        return {name: np.concatenate(parts).T.astype(np.float64) for name, parts in found.items()}

    return in_order(run_blocks(seeds, one_block), order)


@partial(jax.jit, static_argnums=0, compiler_options=WIDE)
def _chunk(
    plan: Plan, classes: Classes, table: Table | None, carry: Carry, key: jax.Array, steps: Any, record: Any
) -> tuple[Carry, jax.Array, dict[str, jax.Array]]:
    """`steps` rounds; the new carry, whether a seed ran out of slots, and observables (length, S) where recorded."""
    dtype, n = classes.logit.dtype, plan.rule.rollouts
    optimiser = realise(plan.rule.optimiser)
    draws = uniforms(key, (plan.length, n * (1 if plan.verifier is None else 2), BLOCK), dtype)
    record = jnp.asarray(record)
    reference = classes.logit - classes.normaliser

    def one_round(t: Any, loop: tuple[Carry, jax.Array, dict[str, jax.Array]]) -> Any:
        (cohorts, memory), overflow, outputs = loop
        pulled = for_each(lambda u: pick(classes, cohorts, cohorts.mass, u), draws[t, :n])
        truth = look_up(classes.truth, pulled.kind)
        rewards = truth
        if plan.verifier is not None:
            flip = look_up(classes.flip, pulled.kind)
            rewards = jnp.asarray(plan.verifier.pay(draws[t, n:], truth, jnp.ones_like(truth), flip), dtype)
        if table is not None:
            weight = weigh_by_table(table, rewards)
        else:
            logs = base = jnp.zeros_like(rewards)
            if plan.how == "full":
                logs = pulled.logit - cohorts.top - jnp.log(total(cohorts.mass))
                base = look_up(reference, pulled.kind)
            weight, memory = weigh(plan.rule, rewards, logs, base, memory)
        if outputs:
            fresh = jax.lax.cond(
                record[t],
                lambda: {
                    k: rewards.mean(axis=0) if k == "reward" else read(k, classes, cohorts) for k in outputs
                },
                lambda: {k: jnp.zeros(BLOCK, dtype) for k in outputs},
            )
            outputs = {k: jax.lax.dynamic_update_index_in_dim(v, fresh[k], t, 0) for k, v in outputs.items()}
        after, short = step(classes, cohorts, pulled, weight, optimiser)
        return Carry(after, memory), overflow | short.any(), outputs

    blank = {k: jnp.zeros((plan.length, BLOCK), dtype) for k in plan.keys}
    return jax.lax.fori_loop(0, steps, one_round, (carry, jnp.asarray(False), blank))
