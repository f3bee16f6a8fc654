"""Rewards through a verifier, and the classes' rewards where the verifier leaves nothing to chance."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Verifier(Protocol):
    """Anything frozen and hashable that pays: (uniform, truth, length, flip) -> reward, arrays of one shape."""

    def pay(self, uniform: Any, truth: Any, length: Any, flip: Any) -> Any: ...


def fixed_pay(verifier: Verifier | None, truth: Any, flip: Any) -> NDArray[np.float64] | None:
    """(C,) what each class is paid, or None where that depends on the uniform.

    Seen by trying 1,026 uniforms, both ends among them: a verifier's chance is a threshold on the uniform, so any
    rate above 0 shows at an end.
    """
    truth, flip = np.asarray(truth, np.float64), np.asarray(flip, np.float64)
    if verifier is None:
        return truth
    uniform = np.append(np.arange(1025) / 1025, 1 - 2.0**-53)[:, None] + 0 * truth
    given = (uniform, truth + 0 * uniform, np.ones_like(uniform), flip + 0 * uniform)
    with jax.enable_x64(True):
        paid = np.asarray(verifier.pay(*(jnp.asarray(x) for x in given)), np.float64)
    return paid[0] if np.all(paid == paid[0]) else None
