"""The classes' rewards where the verifier leaves nothing to chance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bandit_sim.verifiers import VerifierSpec


def fixed_pay(verifier: VerifierSpec | None, truth: Any, flip: Any) -> NDArray[np.float64] | None:
    """(C,) what each class is always paid, responses having length 1; None where that is left to chance."""
    truth, flip = np.asarray(truth, np.float64), np.asarray(flip, np.float64)
    if verifier is None:
        return truth
    with jax.enable_x64(True):
        law = verifier.law(jnp.asarray(truth), jnp.ones_like(truth), jnp.asarray(flip))
        reward, chance = (np.stack([np.broadcast_to(x, truth.shape) for x in part]) for part in law)
    certain = chance == 1
    return np.sum(np.where(certain, reward, 0), axis=0) if certain.any(axis=0).all() else None
