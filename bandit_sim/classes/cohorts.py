"""Cohorts: arms of one class with exactly the same state move as one; what is pulled splits off.

A row is a cohort: its arms' class, logit and optimiser state, and how many arms it holds. The first C rows are the
untouched classes, the others are slots for touched arms. A round pulls rows, lets the pulled arms that get a
weight leave them, steps every row, and puts each arm that left into the slot of its equals or a free one. Row
arrays are (R, S), rollouts (n, S): seeds come last, so that a row is one contiguous vector. Sums over rows run in
row order and a free slot adds zero, so no result depends on how many slots there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bandit_sim.classes.rows import Classes, at, fold, pin, total

Array = jax.Array


class Cohorts(NamedTuple):
    """State of S seeds over R rows.

    Arguments:
        logit: (R, S) logit of each arm of the row.
        change: (R, S) arms in the row minus the class's initial count (0 for a slot): whole numbers that sum to
            0, so arms are conserved exactly at any count.
        kind: (R, S) class of the row's arms, like every index here in floating point: lanes of one width
            vectorise.
        top: (S,) the largest logit of a row that holds arms.
        unit: (R, S) exp(logit - top).
        mass: (R, S) arms times unit.
        optimiser: state of an elementwise optimiser; leaves (R, S), or scalars such as a step count.
    """

    logit: Array
    change: Array
    kind: Array
    top: Array
    unit: Array
    mass: Array
    optimiser: Any


class Pulled(NamedTuple):
    """Rollouts (n, S): the row, which of the row's arms, and that row's class, logit and unit."""

    row: Array
    member: Array
    kind: Array
    logit: Array
    unit: Array


def arms_in(classes: Classes, cohorts: Cohorts) -> Array:
    """(R, S) how many arms each row holds."""
    return _initial(classes, cohorts.logit.shape[0])[:, None] + cohorts.change


def start(classes: Classes, rows: int, seeds: int, optimiser: optax.GradientTransformation) -> Cohorts:
    """The base policy: every arm in its class, all slots free."""
    number, dtype = classes.logit.shape[0], classes.logit.dtype
    pad = jnp.zeros(rows - number, dtype)
    logit = jnp.broadcast_to(jnp.concatenate([classes.logit, pad])[:, None], (rows, seeds))
    kind = jnp.minimum(jnp.arange(rows, dtype=dtype), number - 1)
    blank = jnp.zeros((rows, seeds), dtype)
    cohorts = Cohorts(
        logit,
        blank,
        jnp.broadcast_to(kind[:, None], (rows, seeds)),
        blank[0],
        blank,
        blank,
        optimiser.init(logit),
    )
    return _weighed(classes, cohorts)


def grow(cohorts: Cohorts, rows: int) -> Cohorts:
    """The same state with more free slots."""
    old = cohorts.logit.shape

    def pad(x: Array) -> Array:
        return jnp.pad(x, ((0, rows - old[0]), (0, 0))) if x.shape == old else x

    return jax.tree.map(pad, cohorts)


def pick(classes: Classes, cohorts: Cohorts, mass: Array, uniform: Array) -> Pulled:
    """One arm (S,) per seed, by inverse CDF over the masses (R, S) of the rows; the remainder of the same uniform (S,)
    says which of the row's arms.
    """
    aim = uniform * pin(classes, total(mass))
    zero = jnp.zeros_like(aim)

    def pass_by(carry: tuple[Array, Array, Array], _: Any, m: Array) -> tuple[Array, Array, Array]:
        row, below, reached = carry
        reached = reached + m
        passed = reached <= aim
        return row + jnp.where(passed, 1.0, 0.0).astype(row.dtype), jnp.where(passed, reached, below), reached

    row, below, _ = fold(pass_by, (zero, zero, zero), mass)
    row = pin(classes, jnp.minimum(row, mass.shape[0] - 1))
    logit, number = at(classes, cohorts.logit, row), at(classes, arms_in(classes, cohorts), row)
    unit = pin(classes, jnp.exp(logit - cohorts.top))  # cheaper than to gather it
    member = pin(classes, jnp.minimum(jnp.floor((aim - below) / unit), number - 1))
    return Pulled(row, member, at(classes, cohorts.kind, row), logit, unit)


def for_each(pull: Callable[..., Pulled], *given: Array) -> Pulled:
    """pull for each rollout of given (n, S), one after another: less to compile, and faster than all at once."""
    if given[0].shape[0] == 1:
        return jax.tree.map(lambda x: x[None], pull(*(x[0] for x in given)))
    return jax.lax.map(lambda one: pull(*one), given)


def step(
    classes: Classes,
    cohorts: Cohorts,
    pulled: Pulled,
    weight: Array,
    optimiser: optax.GradientTransformation,
) -> tuple[Cohorts, Array]:
    """theta_b += optimiser(sum_i w_i (1[b = a_i] - pi_b)) for every arm b; the new state, and overflow (S,).

    Where overflow is True there were not enough free slots and the new state is worthless: grow and repeat.
    Valid when: the optimiser is elementwise, so that arms alike in state and gradient stay alike.
    """
    shape, rollouts = cohorts.logit.shape, weight.shape[0]
    weight = pin(classes, weight)
    push = pin(classes, net(weight) / pin(classes, total(cohorts.mass)))

    rows, rows_state = moved(classes, optimiser, cohorts.logit, -(push * cohorts.unit), cohorts.optimiser)
    index = jnp.arange(shape[0], dtype=rows.dtype)[:, None]

    def rehouse(
        i: Any, carry: tuple[Array, Array, Array, Any, Array]
    ) -> tuple[Array, Array, Array, Any, Array]:
        """Let the arm of rollout i move and find its slot; rollouts that hit an arm again have no weight left."""
        logit, change, kind, state, overflow = carry
        mine = Pulled(*(x[i] for x in pulled))
        own = pin(classes, own_of(pulled, weight, i)[0])
        leaves = own != 0
        single, single_state = moved(
            classes,
            optimiser,
            mine.logit,
            own - push * mine.unit,
            jax.tree.map(lambda x: at(classes, x, mine.row) if x.shape == shape else x, cohorts.optimiser),
        )
        change = change - jnp.where(leaves & (mine.row == index), 1.0, 0.0).astype(change.dtype)
        keys = [logit, kind, *(x for x in jax.tree.leaves(state) if x.shape == shape)]
        wanted = [single, mine.kind, *(x for x in jax.tree.leaves(single_state) if x.shape == single.shape)]
        match, free = _find(classes, change, keys, wanted)
        # One number says it all: the slot of its equals, R more for a free slot, -1 where no arm left its row.
        found = jnp.where(match >= 0, match, jnp.where(free >= 0, free + shape[0], -1))
        code = pin(classes, jnp.where(leaves, found, -1))
        filled = code == index + shape[0]

        def put(x: Array, new: Array) -> Array:
            return jnp.where(filled, new, x) if x.shape == shape else x

        return (
            put(logit, single),
            change + jnp.where(filled | (code == index), 1.0, 0.0).astype(change.dtype),
            put(kind, mine.kind),
            jax.tree.map(put, state, single_state),
            overflow | (leaves & (code < 0)),
        )

    carry = (rows, cohorts.change, cohorts.kind, rows_state, jnp.zeros(shape[1:], bool))
    carry = rehouse(0, carry) if rollouts == 1 else jax.lax.fori_loop(0, rollouts, rehouse, carry)
    logit, change, kind, state, overflow = carry
    return _weighed(
        classes, cohorts._replace(logit=logit, change=change, kind=kind, optimiser=state)
    ), overflow


def moved(
    classes: Classes, optimiser: optax.GradientTransformation, logit: Array, gradient: Array, state: Any
) -> tuple[Array, Any]:
    """(logit + optimiser(gradient), the optimiser's new state), each computed once."""
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes its integer step count with floats
        change, state = optimiser.update(-gradient, state, logit)
    return jax.tree.map(
        lambda x: pin(classes, x) if x.shape == logit.shape else x, (logit + jnp.asarray(change), state)
    )


def own_of(pulled: Pulled, weight: Array, i: Any) -> tuple[Array, Array]:
    """(S,) the whole weight of the arm of rollout i where it is the first to pull it, else 0; and whether it is."""
    own, first = jnp.zeros_like(weight[0]), jnp.ones_like(weight[0], dtype=bool)
    if weight.shape[0] == 1:
        return weight[0], first
    for j in range(weight.shape[0]):
        same = (pulled.row[i] == pulled.row[j]) & (pulled.member[i] == pulled.member[j])
        own = own + jnp.where(same, weight[j], 0)
        first = first & ~(same & (j < jnp.asarray(i)))
    return jnp.where(first, own, 0), first


def _initial(classes: Classes, rows: int) -> Array:
    """(R,) initial count of each row: the class's, and 0 for slots."""
    return jnp.pad(classes.size, (0, rows - classes.size.shape[0]))


def _weighed(classes: Classes, cohorts: Cohorts) -> Cohorts:
    """The cohorts with top, unit and mass brought up to date with logit and change."""
    held = arms_in(classes, cohorts)
    lowest = jnp.full_like(cohorts.top, -jnp.inf)
    top = fold(
        lambda top, _, logit, n: jnp.maximum(top, jnp.where(n > 0, logit, -jnp.inf)),
        lowest,
        cohorts.logit,
        held,
    )
    top = pin(classes, top)
    unit = jnp.exp(cohorts.logit - top)
    return cohorts._replace(top=top, unit=unit, mass=jnp.where(held > 0, held * unit, 0))


def net(weight: Array) -> Array:
    """(S,) sum of the weights; zero where it is zero up to rounding, so that zero-sum signals leave others alone."""
    rollouts = weight.shape[0]
    if rollouts == 1:
        return weight[0]
    net, size = weight[0], jnp.abs(weight[0])
    for i in range(1, rollouts):
        net, size = net + weight[i], size + jnp.abs(weight[i])
    return jnp.where(jnp.abs(net) <= 4 * rollouts * jnp.finfo(weight.dtype).eps * size, 0, net)


def _find(classes: Classes, change: Array, keys: list[Array], wanted: list[Array]) -> tuple[Array, Array]:
    """(S,) the slot whose keys equal the wanted ones, and the first free slot; -1 where there is none."""
    first_slot = classes.size.shape[0]
    none = jnp.full_like(change[0], -1)

    def search(carry: tuple[Array, Array], r: Any, held: Array, *key: Array) -> tuple[Array, Array]:
        match, free = carry
        if isinstance(r, int) and r < first_slot:
            return carry
        number = jnp.asarray(r, held.dtype)
        slot = True if isinstance(r, int) else r >= first_slot
        equal = (held > 0) & slot
        for row, want in zip(key, wanted, strict=True):
            equal = equal & (row == want)
        return jnp.where(equal, number, match), jnp.where((held == 0) & (free < 0) & slot, number, free)

    return fold(search, (none, none), change, *keys)  # a slot starts empty, so its change is what it holds
