"""GPG: the group mean, scaled up by the share of rewards that are not zero."""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace

from theory.rules.batch import SAMPLED, Batch, PerRollout
from theory.rules.signals.base import Grouped
from theory.rules.signals.moments import centred, count


class GPG(Grouped):
    """A_i = alpha (r_i - mean_g(r)), alpha = rollouts of the round / rollouts with a reward that is not zero.

    Arguments: `extra` and `singleton` as in `Grouped`; alpha scales a group of one too ("raw", as verl does).
    Source: GPG (arXiv 2504.02546), as verl computes it (f_norm = 1). Valid when: rewards are 0/1 and groups hold
    at least 2 rollouts. Alpha couples the queries of a round.
    """

    kind: Literal["gpg"] = "gpg"

    def advantage(self, batch: Batch) -> PerRollout:
        xp = array_namespace(batch.rewards)
        trained = xp.astype(batch.having(SAMPLED), batch.rewards.dtype)
        paid = xp.sum(xp.where(batch.rewards != 0, trained, 0.0))
        alpha = xp.sum(trained) / xp.clip(paid, 1.0, None)
        member = self.member(batch)
        return alpha * self.settle(centred(batch.rewards, member), count(member, batch), batch)
