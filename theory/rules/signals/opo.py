"""OPO: the baseline of least variance, where a response's score has variance in proportion to its length."""

from __future__ import annotations

from typing import Literal

from theory.rules.batch import Batch, PerRollout
from theory.rules.signals.base import Grouped
from theory.rules.signals.moments import centred, count, lengths


class OPO(Grouped):
    """Reward above the length-weighted mean of its group: A_i = r_i - sum_g(length r) / sum_g(length).

    Arguments: `extra` and `singleton` as in `Grouped`; verl gives a group of one its reward.
    Source: OPO (arXiv 2505.23585). Valid when: groups hold at least 2 rollouts. At equal lengths it is the group
    mean.
    """

    kind: Literal["opo"] = "opo"

    def advantage(self, batch: Batch) -> PerRollout:
        member = self.member(batch)
        return self.settle(centred(batch.rewards, member, lengths(batch)), count(member, batch), batch)
