"""Where pay means nothing: on which arms, and on responses that are text; and what such responses are paid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.pay.kinds import Format, Noisy, PaySpec, Shaped
from theory.refusal import Refusal


def check_pay(pay: PaySpec, reward: Any, flip: Any = None) -> None:
    """Reject pay and arms (reward (A,), flip (A,)) that leave a field without effect, or a law undefined.

    Errors: Refusal where `flip` meets pay that never misjudges, where noisy pay has nothing to misjudge with,
    or where its arms have a true reward other than 0 and 1.
    """
    noisy = [part for part in _parts(pay) if isinstance(part, Noisy)]
    reward = np.asarray(reward)
    if flip is not None and not noisy:
        raise Refusal(f"arms have flip, but {pay.name} never misjudges; use noisy, or flip None")
    odd = reward[(reward != 0) & (reward != 1)]
    for part in noisy:
        if odd.size:
            raise Refusal(f"reward {odd[0]} with noisy pay, which misjudges rewards of 0 and 1 alone")
        silent = flip is None or not np.any(np.asarray(flip))
        if part.false_positive == part.false_negative == 0 and silent:
            raise Refusal("noisy with rates 0 and no flip misjudges nothing; give rates, or use its `pays`")


def no_pay_on_text(pay: PaySpec) -> str | None:
    """Why responses that are text cannot be paid so, or None."""
    for part in _parts(pay):
        if isinstance(part, Format):
            return "format draws by chance whether a response is well-formed, which of a text is seen and not drawn"
        if isinstance(part, Noisy) and part.false_positive == part.false_negative == 0:
            return "noisy with rates 0 misjudges nothing; give rates, or use its `pays`"
    return None


def paid(pay: PaySpec, uniform: Any, reward: Any, length: Any) -> NDArray[np.float64]:
    """(n,) what responses that are text are paid, in float64.

    Arguments:
        uniform: (n,) numbers in [0, 1) that decide what is left to chance.
        reward: (n,) verified reward of each.
        length: (n,) in tokens.
    """
    drawn, truth, tokens = (np.asarray(x, np.float64) for x in (uniform, reward, length))
    return pay.pay(drawn, truth, tokens, np.zeros_like(truth))


def _parts(pay: PaySpec) -> list[PaySpec]:
    return [term.pays for term in pay.terms] if isinstance(pay, Shaped) else [pay]
