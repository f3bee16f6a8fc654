"""KL terms: the pull towards the reference model, as a coefficient on grad log pi of each token.

Each term is a frozen specification with one method, `coefficient(batch) -> (R, T)`, in the ascent direction.
"""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.rules.batch import Batch, PerToken
from theory.rules.spec import Spec


class NoKL(Spec):
    """No pull towards the reference model: coefficient 0."""

    kind: Literal["none"] = "none"

    def coefficient(self, batch: Batch) -> PerToken:
        return array_namespace(batch.logprobs).zeros_like(batch.logprobs)


class K3(Spec):
    """Loss term beta k3, k3 = exp(d) - d - 1, d = log pi_ref - log pi: coefficient beta (exp(d) - 1).

    Arguments:
        beta: > 0, in units of reward; for no KL use kind "none".
    Source: http://joschu.net/blog/kl-approx.html; used in the loss by GRPO (arXiv 2402.03300).
    Valid when: on-policy. Its expected gradient is that of the forward KL(pi_ref || pi), not of the
    KL(pi || pi_ref) whose value it estimates.
    """

    kind: Literal["k3"] = "k3"
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def coefficient(self, batch: Batch) -> PerToken:
        xp = array_namespace(batch.logprobs)
        return self.beta * xp.expm1(batch.ref_logprobs - batch.logprobs)


KL = Annotated[NoKL | K3, Field(discriminator="kind")]
