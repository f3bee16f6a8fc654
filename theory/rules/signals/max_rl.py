"""MaxRL: the gradient of log p, truncated at the group's size."""

from __future__ import annotations

from typing import Literal

from theory.rules.batch import Batch, PerRollout
from theory.rules.signals.base import Grouped
from theory.rules.signals.moments import at_least_one, centred, count, divided, total


class MaxRL(Grouped):
    """Reward over the mean of its group: A_i = r_i / m ("none") or (r_i - m) / m ("mean"), m = mean_g(r).

    A group with m <= 0 gets zero. With 0/1 rewards and K successes of n, "none" gives each success n/K, so the
    average over rollouts divides by the number of successes.

    Arguments:
        baseline: "none" is the paper's estimator; "mean" is prime-rl's `max_rl`, r / m - 1.
        extra, singleton: as in `Grouped`.
    Source: MaxRL (arXiv 2602.02710). Valid when: rewards are 0/1. Over n rollouts "none" is unbiased for the
    gradient of -sum_{k=1..n} (1-p)^k / k, and "mean" for that of -sum_{k=1..n-1}: its baseline is dropped
    together with the groups without success, which costs exactly the last term.
    """

    kind: Literal["max_rl"] = "max_rl"
    baseline: Literal["none", "mean"] = "none"

    def advantage(self, batch: Batch) -> PerRollout:
        member = self.member(batch)
        number = count(member, batch)
        mean = total(member, batch.rewards) / at_least_one(number)
        above = batch.rewards if self.baseline == "none" else centred(batch.rewards, member)
        return self.settle(divided(above, mean), number, batch)
