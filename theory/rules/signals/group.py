"""Signals that compare a rollout with its own group by mean and spread."""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace

from theory.rules.batch import Batch, PerRollout
from theory.rules.signals.base import Grouped
from theory.rules.signals.moments import at_least_one, centred, count, divided, gaps
from theory.rules.signals.scaled import Scaled


class GroupMean(Grouped):
    """Reward above the mean of its own group: A_i = r_i - mean_g(r), the rollout itself included.

    Arguments: `extra` and `singleton` as in `Grouped`.
    Source: Dr. GRPO (arXiv 2503.20783). Valid when: groups hold at least 2 rollouts; its mean is (n-1)/n of
    the leave-one-out signal's.
    """

    kind: Literal["group_mean"] = "group_mean"

    def advantage(self, batch: Batch) -> PerRollout:
        member = self.member(batch)
        return self.settle(centred(batch.rewards, member), count(member, batch), batch)


class GroupMeanStd(Scaled, Grouped):
    """Reward in standard deviations of its group: A_i = (r_i - mean_g(r)) / scale_g(r).

    With var = sum_g (r - mean)^2 / (n - ddof), the scale is sqrt(var) + eps ("std+eps"), sqrt(var + eps) or
    sqrt(max(var, eps)). A zero scale gives A = 0. With `extra` the mean and the scale are those of all the
    query's rollouts, and one trained rollout is enough (`onerpo` of arXiv 2601.22532).

    Arguments:
        ddof, eps, eps_place: as in `Scaled`.
        extra, singleton: as in `Grouped`.
    Source: GRPO (arXiv 2402.03300); trainers differ in ddof, eps and its place, see `dialects`.
    Valid when: groups hold at least 2 rollouts. |A| <= (n-1)/sqrt(n) for ddof 1, sqrt(n-1) for ddof 0.
    """

    kind: Literal["group_mean_std"] = "group_mean_std"

    def advantage(self, batch: Batch) -> PerRollout:
        member = self.member(batch)
        centre = centred(batch.rewards, member)
        return self.settle(divided(centre, self.scale(centre, member)), count(member, batch), batch)


class LeaveOneOut(Grouped):
    """Reward above the mean of the others of its group: A_i = r_i - mean_{j != i}(r_j).

    Equals n/(n-1) times the group-mean signal.

    Arguments: `extra` and `singleton` as in `Grouped`.
    Source: RLOO (Kool et al. 2019; arXiv 2402.14740). Valid when: groups hold at least 2 rollouts; unbiased.
    """

    kind: Literal["leave_one_out"] = "leave_one_out"

    def advantage(self, batch: Batch) -> PerRollout:
        member = self.member(batch)
        number = count(member, batch)
        total = array_namespace(batch.rewards).sum(gaps(batch.rewards, member), axis=1)
        return self.settle(total / at_least_one(number - 1.0), number, batch)
