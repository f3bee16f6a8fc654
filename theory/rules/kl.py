"""KL terms: the pull towards the reference model, in the loss or in the reward.

Each term is a frozen specification of an estimator k_it of the token's KL, from
d_it = log pi_ref(y_it) - log pi(y_it), with two methods, one of which is zero by its `place`:
`coefficient(batch) -> (R, T)`, the derivative of -beta k_it with respect to log pi, in the ascent direction;
`penalty(batch) -> (R,)`, beta sum_t k_it at sampling time, taken off the reward before the signal.

What the expected gradient is, on-policy and with the response's sum over tokens ("reverse" is the gradient of
KL(pi || pi_ref), the one usually meant, "forward" that of KL(pi_ref || pi)):

    | place  | k1      | k2      | k3      | abs     |
    | loss   | zero    | reverse | forward | neither |
    | reward | reverse | neither | neither | neither |
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from array_api_compat import array_namespace
from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.batch import Batch, PerRollout, PerToken
from theory.rules.spec import Spec


class NoKL(Spec):
    """No pull towards the reference model: coefficient and penalty 0."""

    kind: Literal["none"] = "none"
    refresh: ClassVar[None] = None

    @property
    def reads_reference(self) -> bool:
        """Whether any weight depends on the reference's log-probabilities; if not, they may be anything."""
        return False

    def coefficient(self, batch: Batch) -> PerToken:
        return array_namespace(batch.logprobs).zeros_like(batch.logprobs)

    def penalty(self, batch: Batch) -> PerRollout:
        return array_namespace(batch.rewards).zeros_like(batch.rewards)


class _Pull(Spec):
    """The fields and methods common to all estimators; a subclass gives `_value` and `_slope` of k in log pi.

    Arguments:
        beta: > 0, in units of reward per nat; for no KL use kind "none".
        place: "loss": beta k_it joins the loss, through the same aggregation as the objective. "reward": the
            reward becomes r_i - beta sum_t k_it, held constant through all epochs of the round.
        refresh: None: the reference is the base model throughout. An integer n >= 1: it becomes the current
            policy before rounds n, 2n, ... (rounds from 0; TR-DPO, arXiv 2404.09656). Whoever runs the rounds
            keeps the reference and passes its log-probabilities in the batch.
    """

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    place: Literal["loss", "reward"] = "loss"
    refresh: Annotated[int, Field(ge=1)] | None = None

    @property
    def reads_reference(self) -> bool:
        """Whether any weight depends on the reference's log-probabilities; if not, they may be anything."""
        return True

    def coefficient(self, batch: Batch) -> PerToken:
        if self.place == "reward":
            return array_namespace(batch.logprobs).zeros_like(batch.logprobs)
        return -self.beta * self._slope(batch.ref_logprobs - batch.logprobs)

    def penalty(self, batch: Batch) -> PerRollout:
        xp = array_namespace(batch.rewards)
        if self.place == "loss":
            return xp.zeros_like(batch.rewards)
        value = self._value(batch.ref_logprobs - batch.old_logprobs)
        return self.beta * xp.sum(value * batch.mask, axis=1)

    def _value(self, d: PerToken) -> PerToken:
        raise NotImplementedError

    def _slope(self, d: PerToken) -> PerToken:
        raise NotImplementedError


class K1(_Pull):
    """k1 = log pi - log pi_ref = -d: coefficient -beta. Arguments: those of every KL term.

    Source: http://joschu.net/blog/kl-approx.html. Valid when: in the reward, where with a signal linear in the
    reward it gives the gradient of KL(pi || pi_ref). In the loss its expected gradient is zero on-policy: it
    only adds noise, and does not read the reference, so `refresh` is refused there.
    """

    kind: Literal["k1"] = "k1"

    @model_validator(mode="after")
    def _in_the_loss_no_reference_is_read(self) -> K1:
        if self.place == "loss" and self.refresh is not None:
            raise Refusal(
                f"refresh = {self.refresh} changes nothing for k1 in the loss, whose gradient does not read the "
                'reference; leave refresh out, use place "reward", or use k2'
            )
        return self

    @property
    def reads_reference(self) -> bool:
        """Whether any weight depends on the reference's log-probabilities; if not, they may be anything."""
        return self.place == "reward"

    def _value(self, d: PerToken) -> PerToken:
        return -d

    def _slope(self, d: PerToken) -> PerToken:
        return array_namespace(d).ones_like(d)


class K2(_Pull):
    """k2 = d^2 / 2: coefficient beta d. Arguments: those of every KL term.

    Source: http://joschu.net/blog/kl-approx.html. Valid when: in the loss and on-policy, where its expected
    gradient is that of KL(pi || pi_ref); its value is biased.
    """

    kind: Literal["k2"] = "k2"

    def _value(self, d: PerToken) -> PerToken:
        return d**2 / 2

    def _slope(self, d: PerToken) -> PerToken:
        return -d


class K3(_Pull):
    """k3 = exp(d) - d - 1: coefficient beta (exp(d) - 1). Arguments: those of every KL term.

    Source: http://joschu.net/blog/kl-approx.html; used in the loss by GRPO (arXiv 2402.03300).
    Valid when: on-policy. In the loss its expected gradient is that of the forward KL(pi_ref || pi), not of
    the KL(pi || pi_ref) whose value it estimates.
    """

    kind: Literal["k3"] = "k3"

    def _value(self, d: PerToken) -> PerToken:
        return array_namespace(d).expm1(d) - d

    def _slope(self, d: PerToken) -> PerToken:
        return -array_namespace(d).expm1(d)


class KAbs(_Pull):
    """|d|: coefficient beta sign(d). Arguments: those of every KL term.

    Source: verl 0.7, kl_loss_type "abs". Valid when: as a bounded pull; it estimates no KL.
    """

    kind: Literal["abs"] = "abs"

    def _value(self, d: PerToken) -> PerToken:
        return array_namespace(d).abs(d)

    def _slope(self, d: PerToken) -> PerToken:
        xp = array_namespace(d)  # whose sign() torch.vmap cannot batch
        return xp.astype(d < 0, d.dtype) - xp.astype(d > 0, d.dtype)


KL = Annotated[NoKL | K1 | K2 | K3 | KAbs, Field(discriminator="kind")]
