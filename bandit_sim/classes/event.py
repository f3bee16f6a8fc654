"""Skip the rounds in which nothing moves: a run costs its eventful rounds, however long it waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes.blocks import BLOCK, FirstAlone, Floats, round_numbers, run_blocks
from bandit_sim.classes.cohorts import Cohorts, for_each, pick, start, step
from bandit_sim.classes.observables import (
    NAMES,
    best_gap,
    check_observe,
    distinct,
    in_order,
    of_policy,
    push_square,
    touched_in,
)
from bandit_sim.classes.pay import fixed_pay
from bandit_sim.classes.rows import WIDE, Classes, look_up, pin, total
from bandit_sim.classes.setup import set_up, until_it_fits
from bandit_sim.classes.uniforms import uniforms
from bandit_sim.classes.weigh import (
    Table,
    cannot_carry,
    check_rule,
    how_to_weigh,
    plain_sgd,
    table_of,
    weigh_by_table,
)
from bandit_sim.rounds.optimiser import realise
from theory.pay import PaySpec
from theory.refusal import Refusal
from theory.rules.rule import Rule


class Plan(NamedTuple):
    """What a compiled chunk is made for: a round is quiet if all its rewards are low (high) and `quiet` says so."""

    rule: Rule
    keys: tuple[str, ...]
    quiet: tuple[bool, bool]
    length: int


class Carry(NamedTuple):
    """What an event hands to the next: the policy, the round after it (S,) and the regret before that round (S,)."""

    policy: Cohorts
    clock: jax.Array
    lost: jax.Array


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
) -> dict[str, Floats]:
    """As `lumped.run`, at the cost of the rounds that move something. With q the probability of the high reward,

        P(round moves) = 1 - [low rounds are quiet] (1 - q)^n - [high rounds are quiet] q^n,

    the wait for the next such round is geometric, and its rewards are drawn given that it moves something.

    Arguments: those of `lumped.run`. Event e of every replica of a block uses draws (key, block, e), so no bit depends
        on which replicas are asked for; `at` and `slots` change no trajectory either.
    Errors: Refusal where no round is quiet: rewards that take more than two values or are left to chance, a weight
        that depends on log-probabilities or memory, an optimiser that moves without gradient, or a signal such
        as raw with rewards -1 and 1. Use `lumped.run` there.
    Valid when: as for `lumped.run`; rounds are counted in float64, exact to 2^53.
    """
    rounds, names = round_numbers(at), check_observe(observe, NAMES)
    check_rule(rule)
    _, quiet = _quiet_rounds(arms, rule, pay)
    setup = set_up(arms, rule, names, key, pay, dtype, slots, 2 + 2 * rule.rollouts)
    plan, classes, table = Plan(rule, setup.keys, quiet, setup.length), setup.classes, setup.table
    first_alone = FirstAlone()
    with jax.enable_x64(True):
        last = jnp.asarray(rounds[-1], jnp.float64)
        zero = jnp.zeros(BLOCK, jnp.float64)
        base = Carry(start(classes, setup.rows, BLOCK, realise(rule.optimiser)), zero, zero)

    def one_block(block: int) -> dict[str, Floats]:
        carry, block_key = base, jax.random.fold_in(setup.root, block)
        found = {name: np.full((BLOCK, len(rounds)), np.nan) for name in plan.keys}
        chunk, clock = 0, np.zeros(BLOCK)
        while clock.min() <= rounds[-1]:
            chunk_key = jax.random.fold_in(block_key, chunk)
            call = partial(_chunk, plan, classes, table, key=chunk_key, last=last)
            carry, due, outputs = until_it_fits(classes, carry, call, first_alone)
            _record(found, rounds, clock, np.asarray(due), {k: np.asarray(v) for k, v in outputs.items()})
            chunk, clock = chunk + 1, np.asarray(carry.clock)
        return found

    return in_order(run_blocks(seeds, one_block), setup.order)


def busy_share(arms: ArmClasses, rule: Rule, pay: PaySpec | None) -> float | None:
    """Probability that the first round moves something; None where this engine does not carry the rule."""
    if cannot_carry(rule) or never_quiet(arms, rule, pay):
        return None
    paid, (low, high) = _quiet_rounds(arms, rule, pay)
    q = float(arms.masses()[paid == table_of(rule, paid).high].sum())
    return 1 - low * (1 - q) ** rule.rollouts - high * q**rule.rollouts


def never_quiet(arms: ArmClasses, rule: Rule, pay: PaySpec | None) -> str:
    """Why no round of a rule is known to move nothing, so that none can be skipped; empty where some are."""
    if not plain_sgd(rule):
        return f"optimiser {rule.optimiser.kind} is not plain SGD and may move in every round; use the lumped engine"
    paid = fixed_pay(pay, arms.reward, arms.flip)
    if paid is None:
        return "rewards are left to chance; use the lumped engine"
    if how_to_weigh(rule, paid) != "table":
        return (
            f"signal {rule.signal.kind} needs at most two rewards, no memory and no log-probabilities to have "
            "quiet rounds; use the lumped engine"
        )
    if not any(_quiet(rule, paid)):
        return (
            f"signal {rule.signal.kind} moves the policy in every round (rewards {sorted(set(paid.tolist()))}); "
            "use the lumped engine"
        )
    return ""


def _quiet_rounds(
    arms: ArmClasses, rule: Rule, pay: PaySpec | None
) -> tuple[NDArray[np.float64], tuple[bool, bool]]:
    """(C,) what each class is paid, and whether a round of low, of high rewards only moves nothing.

    Errors: Refusal where no round is quiet.
    """
    if reason := never_quiet(arms, rule, pay):
        raise Refusal(reason)
    paid = fixed_pay(pay, arms.reward, arms.flip)
    assert paid is not None, "never_quiet has asked"
    return paid, _quiet(rule, paid)


def _quiet(rule: Rule, paid: NDArray[np.float64]) -> tuple[bool, bool]:
    value = table_of(rule, paid).value
    return bool(value[0, 0] == 0), bool(value[-1, 1] == 0)


def _record(
    found: dict[str, Floats],
    rounds: NDArray[np.int64],
    clock: Floats,
    due: Floats,
    outputs: dict[str, Floats],
) -> None:
    """Fill in the rounds of `at` that the chunk passed: event e shows the policy of all rounds up to due[e].

    Arguments: clock (S,) first round of the chunk; due (E, S) rounds of its events; outputs (E, S), the policy before
        event e; what is of the event's own round has a twin "quiet/...", of a quiet round before it. "regret" is as
        it was in round "since", and grows by "gap" a round.
    """
    for j in np.flatnonzero((rounds >= clock.min()) & (rounds <= due[-1].max())):
        event = (due < rounds[j]).sum(axis=0)
        seen = np.flatnonzero((rounds[j] >= clock) & (event < len(due)))
        for name, target in found.items():
            target[seen, j] = outputs[name][event[seen], seen]
            if name == "regret":
                waited = rounds[j] - outputs["since"][event[seen], seen]
                target[seen, j] += waited * outputs["gap"][event[seen], seen]
            if f"quiet/{name}" in outputs:
                quiet = seen[due[event[seen], seen] > rounds[j]]
                target[quiet, j] = outputs[f"quiet/{name}"][event[quiet], quiet]


@partial(jax.jit, static_argnums=0, compiler_options=WIDE)
def _chunk(
    plan: Plan, classes: Classes, table: Table, carry: Carry, key: jax.Array, last: jax.Array
) -> tuple[jax.Array, Carry, jax.Array, dict[str, jax.Array]]:
    """`length` events of every seed; events after round `last` move nothing."""
    dtype, n = classes.logit.dtype, plan.rule.rollouts
    optimiser = realise(plan.rule.optimiser)
    draws = uniforms(key, (plan.length, 2 + 2 * n, BLOCK), dtype)
    pays_high = (table.paid == table.high).astype(dtype)
    zero = jnp.zeros(BLOCK, dtype)

    def one_event(loop: tuple[Carry, jax.Array], uniform: jax.Array) -> Any:
        (cohorts, clock, lost), overflow = loop
        is_high = look_up(pays_high, cohorts.kind) == 1
        side = jnp.where(is_high, cohorts.mass, 0), jnp.where(is_high, 0, cohorts.mass)
        norm = pin(classes, total(cohorts.mass))
        q, r = (pin(classes, total(part)) / norm for part in side)
        busy, low_share, high_share = _busy(q, r, n, plan.quiet)
        wait = jnp.floor(jnp.log(1 - uniform[0]) / jnp.log1p(-jnp.minimum(busy, 1)))
        due = clock + jnp.where(busy > 0, wait, jnp.inf).astype(jnp.float64)
        wins = _rewards(pin(classes, q), pin(classes, r), n, plan.quiet, uniform[1 : 1 + n])

        def pull(win: jax.Array, where: jax.Array) -> Any:
            return pick(classes, cohorts, jnp.where(is_high == (win == 1), cohorts.mass, 0), where)

        rewards = jnp.where(wins == 1, table.high, table.low)
        weight = jnp.where(due <= last, weigh_by_table(table, rewards), 0)
        pulled = for_each(pull, wins, uniform[1 + n : 1 + 2 * n])
        outputs = {}
        for name in plan.keys:
            match name:
                case "reward":
                    all_low = uniform[-1] * (low_share + high_share) < low_share
                    outputs |= {
                        name: rewards.mean(axis=0),
                        f"quiet/{name}": jnp.where(all_low, table.low, table.high),
                    }
                case "zero_signal":
                    outputs |= {name: zero, f"quiet/{name}": zero + 1}
                case "gradient_norm":
                    outputs |= {
                        name: jnp.sqrt(push_square(classes, cohorts, pulled, weight)),
                        f"quiet/{name}": zero,
                    }
                case "regret":
                    gap = best_gap(classes, cohorts).astype(jnp.float64)
                    outputs |= {name: lost, "since": clock, "gap": gap}
                    lost = lost + (due + 1 - clock) * gap
                case "distinct":
                    outputs[name] = distinct(classes, cohorts, touched_in(classes, cohorts))
                case _:
                    outputs[name] = of_policy(name, classes, cohorts)
        after, short = step(classes, cohorts, pulled, weight, optimiser)
        return (Carry(after, due + 1, lost), overflow | short.any()), (due, outputs)

    (carry, overflow), (due, outputs) = jax.lax.scan(one_event, (carry, jnp.asarray(False)), draws)
    return overflow, carry, due, outputs


def _busy(
    q: jax.Array, r: jax.Array, n: int, quiet: tuple[bool, bool]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """P(round moves), P(quiet and low), P(quiet and high) for P(high) = q, P(low) = r = 1 - q; exact for small q, r."""
    # log r from whichever of q, r is small, so that neither 1 - q nor 1 - r cancels.
    log_r = jnp.where(q < 0.5, jnp.log1p(-jnp.minimum(q, 0.5)), jnp.log(r))
    log_q = jnp.where(r < 0.5, jnp.log1p(-jnp.minimum(r, 0.5)), jnp.log(q))
    low = jnp.exp(n * log_r) if quiet[0] else jnp.zeros_like(q)
    high = jnp.exp(n * log_q) if quiet[1] else jnp.zeros_like(q)
    if quiet == (True, True):
        busy = jnp.where(q < 0.5, -jnp.expm1(n * log_r) - high, -jnp.expm1(n * log_q) - low)
    else:
        busy = -jnp.expm1(n * (log_r if quiet[0] else log_q))
    return jnp.maximum(busy, 0), low, high


def _rewards(q: jax.Array, r: jax.Array, n: int, quiet: tuple[bool, bool], uniform: jax.Array) -> jax.Array:
    """(n, S) 1 for a high reward, given that the round moves something; one after the other.

    P(high | so far) = q f(so far, high) / (q f(so far, high) + r f(so far, low)), where f is the probability that the
    rollouts left still make the round move: 1 - r^left while all were low (if low is quiet), 1 - q^left while all
    were high (if high is quiet), else 1.
    """
    only_low = only_high = jnp.ones_like(q, dtype=bool)
    wins = []
    for i in range(n):
        left = n - 1 - i
        miss_low = (
            _busy(q, r, left, (True, False))[0] if left and quiet[0] else jnp.full_like(q, not quiet[0])
        )
        miss_high = (
            _busy(q, r, left, (False, True))[0] if left and quiet[1] else jnp.full_like(q, not quiet[1])
        )
        after_high = q * jnp.where(only_high, miss_high, 1)
        after_low = r * jnp.where(only_low, miss_low, 1)
        win = uniform[i] * (after_high + after_low) < after_high
        only_low, only_high = only_low & ~win, only_high & win
        wins.append(jnp.where(win, 1, 0).astype(q.dtype))
    return jnp.stack(wins)
