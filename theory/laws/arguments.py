"""Arguments of laws: checked once, with the value and the fix in the message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.refusal import Refusal

Floats = NDArray[np.float64]
# What an elementwise law returns: NumPy turns a result without axes into a scalar.
Values = NDArray[np.float64] | np.float64


def open_unit(name: str, values: ArrayLike) -> Floats:
    """The values as float64. Errors: Refusal for one outside (0, 1); 0 and 1 are absorbing, no law moves them."""
    return _checked(name, values, lambda x: (x > 0) & (x < 1), "strictly between 0 and 1")


def closed_unit(name: str, values: ArrayLike) -> Floats:
    """The values as float64. Errors: Refusal for one outside [0, 1]."""
    return _checked(name, values, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")


def positive(name: str, values: ArrayLike) -> Floats:
    """The values as float64. Errors: Refusal for one that is not finite and above 0."""
    return _checked(name, values, lambda x: np.isfinite(x) & (x > 0), "finite and above 0")


def whole(name: str, value: int, least: int) -> int:
    """The value. Errors: Refusal for one below `least`."""
    if value < least:
        raise Refusal(f"{name} = {value}; give at least {least}")
    return value


def shares(name: str, values: ArrayLike) -> Floats:
    """(K,) shares of one class, summing to one. Errors: Refusal for a share not above 0, or a sum not 1."""
    array = positive(name, np.atleast_1d(values))
    if abs(array.sum() - 1) > 1e-9:
        raise Refusal(f"{name} sums to {array.sum():.6g}; give shares within the class, which sum to 1")
    return array


def _checked(name: str, values: ArrayLike, good: Callable[[Floats], Any], wanted: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    bad = array[~good(array)]
    if bad.size:
        raise Refusal(f"{name} = {bad.flat[0]:g}; give a value {wanted}")
    return array
