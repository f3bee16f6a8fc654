"""Aggregations: how the tokens of a round are averaged into one objective.

Each aggregation is a frozen specification with one method, `scale(batch) -> (R, T)`: the factor on each
token's coefficient. Counts are of the rollouts and tokens present, so a masked rollout is a deleted one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from pydantic import Field

from theory.rules.batch import Array, Batch, PerToken
from theory.rules.spec import Spec


class SequenceSum(Spec):
    """Mean over rollouts of the sum over tokens: 1/R.

    Source: the policy gradient of the sequence policy. Valid when: always; with raw reward and the plain
    policy gradient it is the unbiased gradient of the expected reward.
    """

    kind: Literal["sequence_sum"] = "sequence_sum"

    def scale(self, batch: Batch) -> PerToken:
        return batch.mask / _at_least_one(_rollouts(batch))


class TokenMean(Spec):
    """Mean over all tokens of the batch: 1 / sum_i length_i.

    Source: DAPO (arXiv 2503.14476). Valid when: the whole batch is given at once; the divisor couples its
    rollouts, so it is not the gradient of the expected reward unless lengths are equal.
    """

    kind: Literal["token_mean"] = "token_mean"

    def scale(self, batch: Batch) -> PerToken:
        return batch.mask / _at_least_one(array_namespace(batch.mask).sum(batch.mask))


class MicroBatchTokenMean(Spec):
    """Mean over micro-batches of their own mean over tokens: 1 / (M tokens of i's micro-batch).

    Micro-batches are the M runs of `micro_batch` rollouts present, in the batch's order, the last one shorter.

    Arguments:
        micro_batch: >= 1, in rollouts.
    Source: verl 0.7 loss_agg_mode "token-mean" as its actor accumulates it; arXiv 2601.22532 runs it with 4.
    Valid when: that trainer is what is described. The update depends on the order and the partition of the
    batch, which no other aggregation does; 1 is sequence_mean_token_mean.
    """

    kind: Literal["micro_batch_token_mean"] = "micro_batch_token_mean"
    micro_batch: Annotated[int, Field(ge=1)]

    def scale(self, batch: Batch) -> PerToken:
        xp, dtype = array_namespace(batch.mask), batch.mask.dtype
        rank = xp.cumulative_sum(xp.astype(batch.present, dtype)) - 1
        number = xp.floor_divide(xp.clip(rank, 0.0, None), self.micro_batch)
        same = xp.astype(number[:, None] == number[None, :], dtype)  # an absent rollout brings no tokens
        tokens = same @ xp.sum(batch.mask, axis=1)
        return batch.mask / (_at_least_one(tokens) * (xp.max(number) + 1))[:, None]


class SequenceMeanTokenMean(Spec):
    """Mean over rollouts of the mean over tokens: 1 / (R length_i).

    Source: GRPO (arXiv 2402.03300). Valid when: lengths are equal, else short responses weigh more per token.
    """

    kind: Literal["sequence_mean_token_mean"] = "sequence_mean_token_mean"

    def scale(self, batch: Batch) -> PerToken:
        lengths = array_namespace(batch.mask).sum(batch.mask, axis=1)
        return batch.mask / (_at_least_one(lengths)[:, None] * _at_least_one(_rollouts(batch)))


class Constant(Spec):
    """Mean over rollouts of the sum over tokens divided by a constant: 1 / (R divisor).

    Arguments:
        divisor: > 0, in tokens; usually the response budget, never the padded width of a batch.
    Source: Dr. GRPO (arXiv 2503.20783). Valid when: always; sequence-sum with eta divided by the divisor.
    """

    kind: Literal["constant"] = "constant"
    divisor: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def scale(self, batch: Batch) -> PerToken:
        return batch.mask / (self.divisor * _at_least_one(_rollouts(batch)))


Aggregation = Annotated[
    SequenceSum | TokenMean | MicroBatchTokenMean | SequenceMeanTokenMean | Constant,
    Field(discriminator="kind"),
]


def _rollouts(batch: Batch) -> Array:
    """The number of rollouts present, in the batch's dtype."""
    xp = array_namespace(batch.mask)
    return xp.sum(xp.astype(batch.present, batch.mask.dtype))


def _at_least_one(count: Array) -> Array:
    """Avoids 0/0 where nothing is present; the mask is zero there."""
    return array_namespace(count).clip(count, 1.0, None)
