"""Exact sampled runs at any number of arms: untouched arms move as classes, touched ones as cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import birth, listed
from bandit_sim.classes.blocks import BLOCK, FirstAlone, Floats, round_numbers, run_blocks
from bandit_sim.classes.cohorts import Cohorts, Pulled, for_each, pick, start, step
from bandit_sim.classes.listed import Listed, Rows
from bandit_sim.classes.observables import Seen, best_gap, check_observe, in_order, read, touched_in
from bandit_sim.classes.rows import WIDE, Classes, look_up, total
from bandit_sim.classes.setup import set_up, until_it_fits
from bandit_sim.classes.uniforms import uniforms
from bandit_sim.classes.weigh import How, Table, weigh, weigh_by_table
from bandit_sim.rounds.observe import VIRTUAL
from bandit_sim.rounds.optimiser import realise
from theory.pay import PaySpec
from theory.rules.rule import Rule


class Plan(NamedTuple):
    """What a compiled chunk is made for."""

    rule: Rule
    pay: PaySpec | None
    how: How
    keys: tuple[str, ...]
    length: int
    """Rounds per chunk: fixed by the rule, for the draws of a chunk come from one counter."""


class Carry(NamedTuple):
    """What a round hands to the next: the policy, the rule's state, and the regret so far (None where nobody asks)."""

    policy: Cohorts | Listed
    memory: Any
    lost: jax.Array | None


def run(
    arms: ArmClasses,
    rule: Rule,
    at: ArrayLike,
    seeds: int | range,
    key: int | jax.Array,
    *,
    pay: PaySpec | None = None,
    observe: Sequence[str] = ("success",),
    dtype: Any = jnp.float64,
    slots: int | None = None,
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
        pay: what a pull is paid; None pays the true reward. A response has length 1.
        observe: "success" sum of pi times true reward; "reward" mean paid reward of that round's rollouts;
            "entropy" nats, over single arms; "winner_share" the likeliest correct arm's share of the correct mass;
            "distinct" arms of positive reward that ever got a weight; "class_mass" pi of each class, touched
            arms included, as "class_mass/0", ...; "regret", "gradient_norm", "zero_signal", "signal" and "noise" as
            `bandit_sim.rounds.observe` says. Only what is asked for is computed, and only at `at`.
        dtype: float64, or float32 where no class's mass below 1e-6 matters.
        slots: touched cohorts to begin with, default by the rule; where a block needs more, its chunk is
            repeated with twice the rows and the same draws.
        special: use the birth chain where it applies (`birth.applies`), and rows for single arms (`listed.rows_of`).

    Returns: name -> (seeds, A) float64.
    Errors: Refusal naming the field and the fix.
    Valid when: arms share no parameters. An arm is told from the others of its row by the 53 bits of its uniform:
        two rollouts meet in one arm of a class of n with a probability that is 1/n up to 1e-16.
    """
    rounds, names = round_numbers(at), check_observe(observe)
    if special and birth.applies(arms, rule, pay, rounds):
        return birth.run(arms, rule, rounds, seeds, key, observe=names)
    draws = rule.rollouts * (1 if pay is None else 2)
    setup = set_up(arms, rule, names, key, pay, dtype, slots, draws)
    plan, classes = Plan(rule, pay, setup.how, setup.keys, setup.length), setup.classes
    optimiser, first_alone = realise(rule.optimiser), FirstAlone()
    rows = listed.rows_of(setup.arms, setup.table, rule.rollouts) if special else None
    with jax.enable_x64(True):
        memory = jax.tree.map(
            lambda x: jnp.broadcast_to(jnp.asarray(x)[..., None], (*np.shape(x), BLOCK)), rule.init(jnp)
        )
        if rows is None:
            policy = start(classes, setup.rows, BLOCK, optimiser)
        else:
            rows = Rows(*(jnp.asarray(x, dtype) for x in rows))
            policy = listed.begin(classes, rows, BLOCK, optimiser, "distinct" in names)
        base = Carry(policy, memory, jnp.zeros(BLOCK, dtype) if "regret" in names else None)

    def one_block(block: int) -> dict[str, Floats]:
        carry, block_key = base, jax.random.fold_in(setup.root, block)
        found: dict[str, list[np.ndarray]] = {name: [] for name in plan.keys}
        chunks = int(rounds[-1]) // plan.length + 1
        for chunk in range(chunks):
            begin = chunk * plan.length
            wanted = rounds[(rounds >= begin) & (rounds < begin + plan.length)] - begin
            steps = min(plan.length, int(rounds[-1]) + 1 - begin)
            record = np.zeros(plan.length, bool)
            record[wanted] = True
            chunk_key = jax.random.fold_in(block_key, chunk)
            # Even asking whether to record costs a fifth of a cheap round, so most chunks are compiled without.
            this = plan if len(wanted) or chunks < 8 else plan._replace(keys=())
            call = partial(
                _chunk, this, classes, setup.table, rows, key=chunk_key, steps=steps, record=record
            )
            carry, outputs = until_it_fits(classes, carry, call, first_alone)
            if len(wanted):
                for name, values in outputs.items():
                    found[name].append(np.asarray(values)[wanted])
        return {name: np.concatenate(parts).T.astype(np.float64) for name, parts in found.items()}

    return in_order(run_blocks(seeds, one_block), setup.order)


@partial(jax.jit, static_argnums=0, compiler_options=WIDE)
def _chunk(
    plan: Plan,
    classes: Classes,
    table: Table | None,
    rows: Rows | None,
    carry: Carry,
    key: jax.Array,
    steps: Any,
    record: Any,
) -> tuple[jax.Array, Carry, dict[str, jax.Array]]:
    """`steps` rounds: whether a seed ran out of slots, the new carry, observables (length, S) where recorded."""
    dtype, n = classes.logit.dtype, plan.rule.rollouts
    optimiser = realise(plan.rule.optimiser)
    drawn = n * (1 if plan.pay is None else 2)
    draws = uniforms(key, (plan.length, drawn, BLOCK), dtype)
    record = jnp.asarray(record)

    def looked_at(policy: Cohorts | Listed) -> tuple[Classes, Cohorts, jax.Array]:
        if not isinstance(policy, Listed):
            return classes, policy, touched_in(classes, policy)
        assert rows is not None
        view, cohorts = listed.as_cohorts(classes, rows, policy)
        return view, cohorts, cohorts.change if policy.touched is None else policy.touched

    def note(t: Any, carry: Carry) -> dict[str, jax.Array]:
        view, cohorts, touched = looked_at(carry.policy)

        def again() -> tuple[Pulled, jax.Array]:
            fresh = jax.random.fold_in(jax.random.fold_in(key, 2**32 - 2), t)
            fine = uniforms(fresh, (VIRTUAL, drawn, BLOCK), dtype)
            pulled, _, weight, _ = jax.lax.map(
                lambda u: _pull(plan, view, table, cohorts, carry.memory, u), fine
            )
            return jax.tree.map(lambda x: x.reshape(VIRTUAL * n, BLOCK), (pulled, weight))

        pulled, rewards, weight, _ = _pull(plan, view, table, cohorts, carry.memory, draws[t])
        lost = jnp.zeros(BLOCK, dtype) if carry.lost is None else carry.lost
        seen = Seen(cohorts, rewards, pulled, weight, touched, lost, again)
        return {k: read(k, view, seen) for k in plan.keys}

    def one_round(t: Any, loop: tuple[Carry, jax.Array, dict[str, jax.Array]]) -> Any:
        carry, overflow, outputs = loop
        policy, memory, lost = carry
        if outputs:
            fresh = jax.lax.cond(
                record[t], lambda: note(t, carry), lambda: {k: jnp.zeros(BLOCK, dtype) for k in outputs}
            )
            outputs = {k: jax.lax.dynamic_update_index_in_dim(v, fresh[k], t, 0) for k, v in outputs.items()}
        if lost is not None:
            lost = lost + best_gap(*looked_at(policy)[:2])
        if isinstance(policy, Listed):
            assert rows is not None
            return (
                Carry(listed.one_round(classes, rows, policy, draws[t, 0], optimiser), memory, lost),
                overflow,
                outputs,
            )
        pulled, _, weight, memory = _pull(plan, classes, table, policy, memory, draws[t])
        after, short = step(classes, policy, pulled, weight, optimiser)
        return Carry(after, memory, lost), overflow | short.any(), outputs

    blank = {k: jnp.zeros((plan.length, BLOCK), dtype) for k in plan.keys}
    carry, overflow, outputs = jax.lax.fori_loop(0, steps, one_round, (carry, jnp.asarray(False), blank))
    return overflow, carry, outputs


def _pull(
    plan: Plan, classes: Classes, table: Table | None, cohorts: Cohorts, memory: Any, draws: jax.Array
) -> tuple[Pulled, jax.Array, jax.Array, Any]:
    """One round's rollouts, rewards (n, S), weights (n, S), and the rule's state after it."""
    n = plan.rule.rollouts
    pulled = for_each(lambda u: pick(classes, cohorts, cohorts.mass, u), draws[:n])
    rewards = truth = look_up(classes.truth, pulled.kind)
    if plan.pay is not None:
        flip = look_up(classes.flip, pulled.kind)
        paid = plan.pay.pay(draws[n:], truth, jnp.ones_like(truth), flip)
        rewards = jnp.asarray(paid, truth.dtype)
    if table is not None:
        return pulled, rewards, weigh_by_table(table, rewards), memory
    logs = base = jnp.zeros_like(rewards)
    if plan.how == "full":
        logs = pulled.logit - cohorts.top - jnp.log(total(cohorts.mass))
        base = look_up(classes.logit - classes.normaliser, pulled.kind)
    weight, memory = weigh(plan.rule, rewards, logs, base, memory)
    return pulled, rewards, weight, memory
