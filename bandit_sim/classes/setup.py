"""The head of a run over arms in classes: everything that is checked, ordered and chosen before the first round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes.blocks import FirstAlone
from bandit_sim.classes.cohorts import grow
from bandit_sim.classes.observables import keys_of
from bandit_sim.classes.pay import fixed_pay
from bandit_sim.classes.rows import Classes, rows_for, tables
from bandit_sim.classes.weigh import How, Table, check_rule, how_to_weigh, table_of
from bandit_sim.rounds.keys import root_key
from theory.pay import PaySpec
from theory.refusal import Refusal
from theory.rules.rule import Rule


class Setup(NamedTuple):
    """What both engines work with.

    Arguments:
        arms: rarest class first, since uniforms resolve best near 0; the caller's class numbers are `order`.
        paid: (C,) what each class is always paid; None where that is left to chance.
        how: how weights are found; `table` holds them where that is "table".
        classes: the arms as arrays of the run's dtype.
        rows: rows to begin with.
        length: rounds per chunk for so many draws a round; fixed by the rule, since the draws of a chunk come
            from one counter.
        keys: names of the recorded arrays.
        root: the key.
    """

    arms: ArmClasses
    order: NDArray[np.intp]
    paid: NDArray[np.float64] | None
    how: How
    table: Table | None
    classes: Classes
    rows: int
    length: int
    keys: tuple[str, ...]
    root: jax.Array


def set_up(
    arms: ArmClasses,
    rule: Rule,
    names: Sequence[str],
    key: int | jax.Array,
    pay: PaySpec | None,
    dtype: Any,
    slots: int | None,
    draws: int,
) -> Setup:
    """Errors: Refusal naming the field and the fix."""
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise Refusal(f"dtype = {dtype}; give float64 or float32")
    # In a group of n, an arm pulled once has one of n - 1 weights (by how many were right); and a few more.
    slots = rule.rollouts + 3 if slots is None else slots
    if slots < 1:
        raise Refusal(f"slots = {slots}; give at least 1")
    check_rule(rule)
    arms, order = arms.rarest_first()
    paid = fixed_pay(pay, arms.reward, arms.flip)
    how, table = how_to_weigh(rule, paid), None
    with jax.enable_x64(True):
        classes = tables(arms.logit, arms.count, arms.reward, arms.flip, dtype)
        if how == "table" and paid is not None:
            table = Table(*(jnp.asarray(x, dtype) for x in table_of(rule, paid)))
    number = len(arms.logit)
    length = int(np.clip(256 // draws, 16, 128))
    return Setup(
        arms,
        order,
        paid,
        how,
        table,
        classes,
        rows_for(number, slots),
        length,
        keys_of(names, number),
        root_key(key),
    )


def until_it_fits(classes: Classes, carry: Any, chunk: partial[Any], first_alone: FirstAlone) -> Any:
    """chunk(carry) = (overflow, ...), repeated with twice the slots and the same draws while a seed ran out of them.

    The first argument that `chunk` holds is the plan it is compiled for.
    """
    number = classes.logit.shape[0]
    while True:
        rows = carry.policy.logit.shape[0]
        overflow, *results = first_alone((rows, chunk.args[0]), partial(chunk, carry))
        if not overflow:
            return results
        carry = carry._replace(policy=grow(carry.policy, rows_for(number, 2 * (rows - number))))
