"""What the kinds of arms check at construction. Each error names the field, the value and the fix."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import numpy as np
from numpy.typing import ArrayLike

from theory.refusal import Refusal

Array = Any  # NumPy at construction, a JAX tracer inside the compiled simulation


def concrete(*arrays: Array) -> bool:
    """Whether the values can be looked at: a tracer (or a tree mapping's placeholder) cannot be validated."""
    return all(isinstance(a, np.ndarray | jax.Array) and not isinstance(a, jax.core.Tracer) for a in arrays)


def floats(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def check_reward(reward: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(reward)))
    if bad.size:
        raise Refusal(
            f"reward of arm {bad[0]} is {np.asarray(reward)[bad[0]]}; give every arm a finite reward, "
            "and score an unparsable answer by an explicit policy (for example 0)"
        )


def check_mass(mass: Array) -> None:
    values = np.asarray(mass)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise Refusal(f"mass of arm {bad[0]} is {values[bad[0]]}; masses are finite and not negative")
    if not values.sum() > 0:
        raise Refusal("the masses sum to 0; at least one arm needs a positive mass")


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise Refusal(f"{name} has shape {np.shape(array)}, expected {shape}")


def check_flip(flip: Array | None, reward: Array) -> None:
    """A chance per arm, or none."""
    if flip is None or not concrete(flip):
        return
    check_shape("flip", flip, np.shape(reward))
    values = np.asarray(flip)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        raise Refusal(f"flip of arm {bad[0]} is {values[bad[0]]}; give a chance in [0, 1]")
