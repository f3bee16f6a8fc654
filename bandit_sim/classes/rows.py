"""Row arrays (R, S), seeds last: folds over rows, gathers, and how to keep XLA from computing a thing twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
WIDE = {"xla_cpu_prefer_vector_width": 512}
"""Compiler option of the chunks: every kernel is one long vector loop; a machine without such vectors ignores it."""
_GROUP = 16
_UNROLLED = 48


class Classes(NamedTuple):
    """The arms' classes as arrays of the run's dtype: logit, size, truth, flip (C,), log sum_K exp logit, and 1."""

    logit: Array
    size: Array
    truth: Array
    flip: Array
    normaliser: Array
    one: Array


def tables(logit: Any, count: Any, truth: Any, flip: Any, dtype: Any) -> Classes:
    """The arrays of `Classes` from NumPy (C,)."""
    logs = np.asarray(logit, np.float64) + np.log(np.asarray(count, np.float64))
    normaliser = np.logaddexp.reduce(logs)
    return Classes(
        *(jnp.asarray(np.asarray(x, np.float64), dtype) for x in (logit, count, truth, flip, normaliser, 1))
    )


def fold(body: Callable[..., Any], carry: Any, *arrays: Array) -> Any:
    """carry = body(carry, r, *[array[r] for arrays]) over the rows in order; unrolled while that is small."""
    rows = arrays[0].shape[0]
    if rows <= _UNROLLED:
        for r in range(rows):
            carry = body(carry, r, *(a[r] for a in arrays))
        return carry
    groups = rows // _GROUP

    def one_group(carry: Any, given: Any) -> tuple[Any, None]:
        first, parts = given
        for i in range(_GROUP):
            carry = body(carry, first + i, *(part[i] for part in parts))
        return carry, None

    parts = tuple(a.reshape(groups, _GROUP, *a.shape[1:]) for a in arrays)
    first = jnp.arange(groups, dtype=jnp.int32) * _GROUP
    return jax.lax.scan(one_group, carry, (first, parts))[0]


def rows_for(classes: int, slots: int) -> int:
    """R: rows for the classes and at least `slots` touched cohorts; whole groups where `fold` goes by groups."""
    rows = classes + slots
    return rows if rows <= _UNROLLED else -(-rows // _GROUP) * _GROUP


def look_up(table: Array, kind: Array) -> Array:
    """table[kind] for a table (C,); selects for few classes, since a gather would break the fusion."""
    if table.shape[0] > 8:
        return table[kind.astype(jnp.int32)]
    found = jnp.broadcast_to(table[0], kind.shape)
    for c in range(1, table.shape[0]):
        found = jnp.where(kind == c, table[c], found)
    return found


def total(mass: Array) -> Array:
    """(S,) sum over rows, in row order."""
    return fold(lambda sum_, _, m: sum_ + m, jnp.zeros_like(mass[0]), mass)


def at(classes: Classes, rows: Array, row: Array) -> Array:
    """(S,) rows[row] for rows (R, S) and row (S,), whole numbers in floating point."""
    index = row.astype(jnp.int32)[None]
    return pin(classes, jnp.take_along_axis(rows, index, axis=0, mode="promise_in_bounds")[0])


def pin(classes: Classes, x: Array) -> Array:
    """x, computed once. XLA would fuse a long chain of cheap operations into each of its consumers, and repeat it for
    each of their elements; it never repeats a division, and it cannot know that `one` is 1.
    """
    return x.astype(classes.one.dtype) / classes.one
