"""Signals whose mean or spread is that of the whole round, over all its queries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from theory.refusal import Refusal
from theory.rules.batch import SAMPLED, Batch, PerRollout
from theory.rules.signals.base import Grouped, Memory, SignalSpec, Singleton, settle
from theory.rules.signals.moments import (
    EpsPlace,
    Weighting,
    centred,
    count,
    divided,
    everyone,
    lengths,
)
from theory.rules.signals.scaled import Scaled


class BatchMean(SignalSpec):
    """Reward above the mean of the round: A_i = r_i - mean_B(r), whatever the query.

    Arguments:
        singleton: what the one rollout of a round gets: "raw" its reward, "zero" nothing, "error" is rejected
            for one query of one rollout (a round that masking leaves with one rollout then gives zero).
    Source: OpenRLHF `reinforce` with `no_advantage_std_norm`. Valid when: rounds hold at least 2 rollouts. With
    R rollouts its mean is (R-1)/R of the gradient, whatever the queries.
    """

    kind: Literal["batch_mean"] = "batch_mean"
    singleton: Singleton = "error"

    def accept(self, rollouts: int, queries: int | None = None) -> None:
        _accept_round(self, rollouts, queries)

    def check(self, batch: Batch, memory: Memory) -> None:
        _check_round(self, batch)

    def advantage(self, batch: Batch) -> PerRollout:
        member = everyone(batch)
        return settle(centred(batch.rewards, member), count(member, batch), batch, self.singleton)


class BatchMeanStd(Scaled):
    """Reward whitened over the round: A_i = (r_i - mean_B(r)) / scale_B(r); the scale as in `GroupMeanStd`.

    Arguments:
        weighting: moments over "token"s (a rollout counts once per token) or over "rollout"s.
        ddof, eps, eps_place: as in `Scaled`; ddof 1 subtracts one token or one rollout.
        singleton: as in `BatchMean`.
    Source: REINFORCE++ (arXiv 2501.03262), without its group baseline; verl and OpenRLHF weigh by tokens.
    Valid when: rounds hold at least 2 rollouts. A query's advantage depends on the other queries.
    """

    kind: Literal["batch_mean_std"] = "batch_mean_std"
    weighting: Weighting = "token"
    ddof: Literal[0, 1] = 0
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-8
    eps_place: EpsPlace = "sqrt(max(var,eps))"
    singleton: Singleton = "error"

    def accept(self, rollouts: int, queries: int | None = None) -> None:
        _accept_round(self, rollouts, queries)

    def check(self, batch: Batch, memory: Memory) -> None:
        _check_round(self, batch)

    def advantage(self, batch: Batch) -> PerRollout:
        whitened = _whitened(batch.rewards, batch, self)
        return settle(whitened, count(everyone(batch), batch), batch, self.singleton)


class GroupMeanWhitened(Scaled, Grouped):
    """The group-mean signal x whitened over the round: A_i = (x_i - mean_B(x)) / scale_B(x).

    Arguments:
        weighting, ddof, eps, eps_place: as in `BatchMeanStd`.
        extra, singleton: of the group mean, as in `Grouped`; whitening gives a round of one rollout zero.
    Source: REINFORCE++ with group baseline (arXiv 2501.03262, `reinforce_plus_plus_baseline` of verl,
    `reinforce_baseline` of OpenRLHF). Valid when: groups hold at least 2 rollouts, or rounds do and singleton
    is "raw".
    """

    kind: Literal["group_mean_whitened"] = "group_mean_whitened"
    weighting: Weighting = "token"
    ddof: Literal[0, 1] = 0
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-8
    eps_place: EpsPlace = "sqrt(max(var,eps))"

    def advantage(self, batch: Batch) -> PerRollout:
        member = self.member(batch)
        x = self.settle(centred(batch.rewards, member), count(member, batch), batch)
        return _whitened(x, batch, self)


class GroupMeanBatchStd(Scaled, Grouped):
    """The group-mean signal in standard deviations of the round: A_i = (r_i - mean_g(r)) / scale_B(r).

    Arguments:
        ddof, eps, eps_place: as in `Scaled`, of the rewards of the whole round.
        extra, singleton: of the group mean, as in `Grouped`.
    Source: TRL `scale_rewards="batch"` (arXiv 2508.08221). Valid when: groups hold at least 2 rollouts.
    """

    kind: Literal["group_mean_batch_std"] = "group_mean_batch_std"
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4

    def advantage(self, batch: Batch) -> PerRollout:
        member, all_of_it = self.member(batch), everyone(batch)
        deviation = centred(batch.rewards, all_of_it)
        scale = self.scale(deviation, all_of_it)
        return self.settle(divided(centred(batch.rewards, member), scale), count(member, batch), batch)


def _whitened(x: PerRollout, batch: Batch, signal: BatchMeanStd | GroupMeanWhitened) -> PerRollout:
    member = everyone(batch)
    weight = lengths(batch) if signal.weighting == "token" else None
    centre = centred(x, member, weight)
    return divided(centre, signal.scale(centre, member, weight))


def _accept_round(signal: BatchMean | BatchMeanStd, rollouts: int, queries: int | None) -> None:
    if queries is not None and rollouts * queries == 1 and signal.singleton == "error":
        raise Refusal(
            f"{signal.name} needs a round of at least 2 rollouts, got 1 query of 1 rollout; for one rollout use "
            f'raw, or say what a round of one gets: singleton "raw" or "zero"'
        )


def _check_round(signal: BatchMean | BatchMeanStd, batch: Batch) -> None:
    if signal.singleton == "error" and int(batch.having(SAMPLED).sum()) == 1:
        raise Refusal(
            f"the batch holds one rollout, {signal.name} needs at least 2 present; sample more, or set singleton"
        )
