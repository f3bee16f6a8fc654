"""Verifiers of the simulator on text: what a verified response of a model is paid."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bandit_sim.verifiers import Clean, Format, Noisy, Shaped, Verifier
from llm_bridge.rollouts.draws import Pay
from theory.refusal import Refusal


def no_pay_on_text(verifier: Verifier) -> str | None:
    """Why a verifier cannot pay responses that are text, or None."""
    terms: tuple[Any, ...] = (
        tuple(term.pays for term in verifier.terms) if isinstance(verifier, Shaped) else (verifier,)
    )
    for term in terms:
        if isinstance(term, Format):
            return "format draws by chance whether a response is well-formed, which of a text is seen and not drawn"
        if isinstance(term, Noisy) and term.false_positive == term.false_negative == 0:
            return "noisy with rates 0 misjudges nothing; give rates, or use its `pays`"
    return None


def pay_of(verifier: Verifier) -> Pay | None:
    """The trainer's `pay`: the reward that a uniform number picks from the verifier's law; None for the reward itself.

    Errors: Refusal for a verifier that means nothing on text.
    """
    if isinstance(verifier, Clean):
        return None
    reason = no_pay_on_text(verifier)
    if reason is not None:
        raise Refusal(f"verifier {verifier.kind}: {reason}")

    def pay(uniform: Any, truth: Any, length: Any) -> Any:
        with jax.enable_x64(True):
            drawn, true, long = (jnp.asarray(x, jnp.float64) for x in (uniform, truth, length))
            return np.array(verifier.pay(drawn, true, long, jnp.zeros_like(true)))

    return pay
