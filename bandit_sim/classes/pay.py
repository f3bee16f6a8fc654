"""What classes of arms are paid where nothing of it is left to chance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.pay import PaySpec


def fixed_pay(pay: PaySpec | None, truth: Any, flip: Any) -> NDArray[np.float64] | None:
    """(C,) what each class is always paid, responses having length 1; None where that is left to chance."""
    truth, flip = np.asarray(truth, np.float64), np.asarray(flip, np.float64)
    if pay is None:
        return truth
    reward, chance = map(np.stack, pay.law(truth, np.ones_like(truth), flip))
    certain = chance == 1
    return np.sum(np.where(certain, reward, 0), axis=0) if certain.any(axis=0).all() else None
