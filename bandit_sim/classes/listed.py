"""Few arms that can move by themselves: each has a row of its own, the other classes stay whole for good.

With one rollout a round and rewards fixed by the class, an arm whose class gets weight 0 never leaves its class. Where
the other arms are few, no cohort splits or merges: a round is one pull from the rows and one step of their logits,

    theta_r += optimiser(w_a (1[r = a] - pi_r)),   pi_r = exp(theta_r) / sum_q held_q exp(theta_q).

Valid when: `rows_of` gives rows; the law is that of the cohorts, at a third of the price.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes.cohorts import Cohorts, moved
from bandit_sim.classes.rows import Classes, fold, pin
from bandit_sim.classes.weigh import Table

Array = jax.Array
MOST = 32
"""Rows up to which listing is the cheaper way."""


class Rows(NamedTuple):
    """Class, arms and weight of each row (R,); the classes keep their order, since uniforms resolve best near 0."""

    kind: Any
    held: Any
    weight: Any


class Listed(NamedTuple):
    """State of S seeds: logit and exp(logit - top) (R, S), top (S,), the optimiser's state, and touched (R, S), 1 for
    an arm that ever got a weight (None where nobody asks).
    """

    logit: Array
    top: Array
    unit: Array
    optimiser: Any
    touched: Array | None


def rows_of(arms: ArmClasses, table: Table | None, rollouts: int) -> Rows | None:
    """The rows, or None where the arms cannot be listed."""
    if table is None or rollouts != 1:
        return None
    value = np.asarray(table.value)
    weight = np.where(np.asarray(table.paid == table.high), value[1, 1], value[0, 0])
    count = np.asarray(arms.count)
    alone = weight != 0
    number = np.where(alone, count, 1)
    if sum(int(n) for n in number) > MOST:
        return None
    kind = np.repeat(np.arange(len(count)), number)
    return Rows(kind, np.where(alone, 1, count)[kind].astype(np.float64), weight[kind])


def begin(
    classes: Classes, rows: Rows, seeds: int, optimiser: optax.GradientTransformation, touched: bool
) -> Listed:
    """The base policy."""
    logit = jnp.broadcast_to(classes.logit[rows.kind.astype(jnp.int32)][:, None], (len(rows.kind), seeds))
    top, unit = _weighed(classes, logit)
    return Listed(logit, top, unit, optimiser.init(logit), jnp.zeros_like(logit) if touched else None)


def one_round(
    classes: Classes, rows: Rows, state: Listed, uniform: Array, optimiser: optax.GradientTransformation
) -> Listed:
    """Pull one arm by inverse CDF, uniform (S,), and take the step."""
    mass = rows.held[:, None] * state.unit
    whole = fold(lambda sum_, _, m: sum_ + m, jnp.zeros_like(uniform), mass)
    aim = uniform * whole

    def pass_by(carry: tuple[Array, Array], _: Any, m: Array) -> tuple[Array, Array]:
        row, reached = carry
        reached = reached + m
        return row + jnp.where(reached <= aim, 1.0, 0.0).astype(row.dtype), reached

    row, _ = fold(pass_by, (jnp.zeros_like(aim), jnp.zeros_like(aim)), mass)
    row = pin(classes, jnp.minimum(row, mass.shape[0] - 1))
    weight = jnp.broadcast_to(rows.weight[0], row.shape)
    for r in range(1, mass.shape[0]):
        weight = jnp.where(row == r, rows.weight[r], weight)
    push = pin(classes, weight / pin(classes, whole))
    hit = row == jnp.arange(mass.shape[0], dtype=row.dtype)[:, None]
    gradient = jnp.where(hit, rows.weight[:, None], 0) - push * state.unit
    logit, moments = moved(classes, optimiser, state.logit, gradient, state.optimiser)
    touched = state.touched
    if touched is not None:
        touched = jnp.where(hit & (rows.weight[:, None] != 0), 1, touched)
    return Listed(logit, *_weighed(classes, logit), moments, touched)


def as_cohorts(classes: Classes, rows: Rows, state: Listed) -> tuple[Classes, Cohorts]:
    """The same state as cohorts, to be looked at: every row begins with the arms that it has."""
    kind = jnp.broadcast_to(rows.kind[:, None], state.logit.shape)
    mass = rows.held[:, None] * state.unit
    change = jnp.zeros_like(state.logit)
    cohorts = Cohorts(state.logit, change, kind, state.top, state.unit, mass, state.optimiser)
    return classes._replace(size=rows.held), cohorts


def _weighed(classes: Classes, logit: Array) -> tuple[Array, Array]:
    """top and unit; every row holds arms."""
    top = pin(classes, fold(lambda top, _, x: jnp.maximum(top, x), logit[0], logit))
    return top, jnp.exp(logit - top)
