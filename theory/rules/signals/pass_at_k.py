"""Pass@k: only the best response of a group learns, by its lead."""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace

from theory.rules.batch import Batch, PerRollout
from theory.rules.signals.base import Grouped
from theory.rules.signals.moments import centred, count, divided, gaps
from theory.rules.signals.scaled import Scaled


class PassAtK(Scaled, Grouped):
    """The lead of the best response: A_i = max(r_i - max_{j != i} r_j, 0) / scale_g(r); the scale as in
    `GroupMeanStd`.

    The best gets r_max - r_2nd, every other nothing, and two best responses nothing.

    Arguments:
        ddof, eps, eps_place: as in `Scaled`.
        extra, singleton: as in `Grouped`.
    Source: arXiv 2503.19595, `grpo_passk` of verl. Valid when: groups hold at least 2 rollouts; k is the group's
    size. With 0/1 rewards only a lone success learns.
    """

    kind: Literal["pass_at_k"] = "pass_at_k"

    def advantage(self, batch: Batch) -> PerRollout:
        xp = array_namespace(batch.rewards)
        member = self.member(batch)
        place = xp.cumulative_sum(xp.ones_like(batch.rewards))
        other = member & (place[:, None] != place[None, :])
        lead = xp.min(xp.where(other, gaps(batch.rewards, member), xp.inf), axis=1)
        lead = xp.where(xp.any(other, axis=1), xp.clip(lead, 0.0, None), 0.0)
        scale = self.scale(centred(batch.rewards, member), member)
        return self.settle(divided(lead, scale), count(member, batch), batch)
