"""Entropy bonus: beta times the mean entropy of the policy's next token, over the tokens of the batch.

The bonus is the mean over tokens whatever the rule's aggregation, so that beta means the same for all of them
(as in TRL's GRPO). A token's entropy is that of pi(. | prefix) with the sampled prefix held fixed: the bonus
does not look for prefixes of high entropy.

Each bonus is a frozen specification with two methods, one of which is zero by its kind:
`weights(batch) -> (R, T)`, weights on grad log pi of the sampled tokens, added to those of the rule;
`exact_weights(batch) -> (R, T)`, factors on grad H(pi(. | prefix_it)), for whoever holds the distribution.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from array_api_compat import array_namespace
from jaxtyping import Float
from pydantic import Field

from theory.rules.aggregation import TokenMean
from theory.rules.batch import Array, Batch, PerToken
from theory.rules.spec import Spec

LogMasses = Float[Array, "K"]
Bonus = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class NoEntropy(Spec):
    """No bonus."""

    kind: Literal["none"] = "none"
    reads_logprobs: ClassVar[bool] = False

    def weights(self, batch: Batch) -> PerToken:
        return array_namespace(batch.logprobs).zeros_like(batch.logprobs)

    def exact_weights(self, batch: Batch) -> PerToken:
        return array_namespace(batch.logprobs).zeros_like(batch.logprobs)


class ExactEntropy(Spec):
    """Bonus beta mean_it H(pi(. | prefix_it)), differentiated through the whole distribution.

    Arguments:
        beta: > 0, in units of reward per nat.
    Source: Williams and Peng 1991; entropy_coeff of the trainers. Valid when: the distribution of the next
    token is at hand; a tabular engine adds sum(exact_weights) * `entropy_gradient`.
    """

    kind: Literal["exact"] = "exact"
    reads_logprobs: ClassVar[bool] = False
    beta: Bonus

    def weights(self, batch: Batch) -> PerToken:
        return array_namespace(batch.logprobs).zeros_like(batch.logprobs)

    def exact_weights(self, batch: Batch) -> PerToken:
        return self.beta * TokenMean().scale(batch)


class SampledEntropy(Spec):
    """The score-function estimate of the same bonus: weight beta / tokens * rho_it (-log pi_it - c_i).

    Unbiased for the sampled prefixes, on-policy and off (rho_it, the token's ratio, is then not 1), for any
    c_i that does not depend on rollout i: d H = -E[(log pi + c) grad log pi].

    Arguments:
        beta: > 0, in units of reward per nat.
        centre: what c_i is: "none" 0; "group" the mean of -log pi over the tokens of the other rollouts of the
            group (0 for one alone), which lowers the variance and needs `rollouts` >= 2.
    Source: score-function form of Williams and Peng 1991. Valid when: sampled at temperature 1 from the full
    vocabulary; every engine takes it, since it is a weight like any other.
    """

    kind: Literal["sampled"] = "sampled"
    reads_logprobs: ClassVar[bool] = True
    beta: Bonus
    centre: Literal["none", "group"] = "none"

    def weights(self, batch: Batch) -> PerToken:
        xp = array_namespace(batch.logprobs)
        surprise, ratio = -batch.logprobs, xp.exp(batch.logprobs - batch.old_logprobs)
        if self.centre == "group":
            itself = xp.arange(batch.logprobs.shape[0])
            others = xp.astype(batch.member & (itself[:, None] != itself[None, :]), batch.logprobs.dtype)
            lengths, total = xp.sum(batch.mask, axis=1), xp.sum(surprise * batch.mask, axis=1)
            surprise = surprise - (others @ total / xp.clip(others @ lengths, 1.0, None))[:, None]
        return self.beta * TokenMean().scale(batch) * ratio * surprise

    def exact_weights(self, batch: Batch) -> PerToken:
        return array_namespace(batch.logprobs).zeros_like(batch.logprobs)


Entropy = Annotated[NoEntropy | ExactEntropy | SampledEntropy, Field(discriminator="kind")]


def entropy_gradient(log_probabilities: LogMasses) -> LogMasses:
    """(K,) dH/dtheta = pi (-log pi - H) of a tabular softmax with logits theta; it sums to zero.

    Arguments:
        log_probabilities: (K,) log pi, normalised, in nats; -inf is an arm of mass zero, which gets zero.
    Source: Williams and Peng 1991. Valid when: every logit is a parameter of its own.
    """
    xp = array_namespace(log_probabilities)
    pi = xp.exp(log_probabilities)
    surprise = xp.where(pi > 0, -log_probabilities, 0.0)
    return pi * (surprise - xp.sum(pi * surprise))
