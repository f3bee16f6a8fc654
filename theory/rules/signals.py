"""Learning signals (advantages): rewards of a round -> one number per rollout.

Each signal is a frozen specification with one method, `advantage(batch) -> (R,)`. Baselines are built from
the reward gaps r_i - r_j inside a group, so that a group of equal rewards gives exactly zero in any
floating-point format, and a shift of all rewards cancels before it is summed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from array_api_compat import array_namespace
from jaxtyping import Float
from pydantic import Field

from theory.rules.batch import Array, Batch, PerRollout
from theory.rules.spec import Spec

Singleton = Literal["error", "raw", "zero"]


class Raw(Spec):
    """The reward itself: A_i = r_i.

    Source: REINFORCE without baseline (Williams 1992). Valid when: always; one rollout is enough.
    """

    kind: Literal["raw"] = "raw"

    def advantage(self, batch: Batch) -> PerRollout:
        return batch.rewards


class GroupMean(Spec):
    """Reward above the mean of its own group: A_i = r_i - mean_g(r), the rollout itself included.

    Arguments:
        singleton: what a group of one gets: "raw" its reward, "zero" nothing, "error" is rejected when
            `rollouts` is 1 (a group that masking leaves with one rollout then gets zero).
    Source: Dr. GRPO (arXiv 2503.20783). Valid when: groups hold at least 2 rollouts; its mean is (n-1)/n of
    the leave-one-out signal's.
    """

    kind: Literal["group_mean"] = "group_mean"
    singleton: Singleton = "error"

    def advantage(self, batch: Batch) -> PerRollout:
        centred, count = _centred(batch)
        return _settle_singletons(centred, count, batch, self.singleton)


class GroupMeanStd(Spec):
    """Reward in standard deviations of its group: A_i = (r_i - mean_g(r)) / scale_g(r).

    With var = sum_g (r - mean)^2 / (n - ddof), the scale is sqrt(var) + eps ("std+eps") or
    sqrt(max(var, eps)) ("sqrt(max(var,eps))"). A zero scale gives A = 0.

    Arguments:
        ddof: 0 (population) or 1 (sample variance).
        eps: >= 0, in units of reward ("std+eps") or of squared reward ("sqrt(max(var,eps))").
        eps_place: where eps enters.
        singleton: as in `GroupMean`; "raw" is the reward itself.
    Source: GRPO (arXiv 2402.03300); trainers differ in ddof, eps and its place, see `PRESETS`.
    Valid when: groups hold at least 2 rollouts. |A| <= (n-1)/sqrt(n) for ddof 1, sqrt(n-1) for ddof 0.
    """

    kind: Literal["group_mean_std"] = "group_mean_std"
    ddof: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    eps_place: Literal["std+eps", "sqrt(max(var,eps))"] = "std+eps"
    singleton: Singleton = "error"

    def advantage(self, batch: Batch) -> PerRollout:
        xp = array_namespace(batch.rewards)
        centred, count = _centred(batch)
        squares = xp.sum(xp.where(batch.member, centred[None, :] ** 2, 0.0), axis=1)
        variance = squares / xp.clip(count - self.ddof, 1.0, None)
        if self.eps_place == "std+eps":
            scale = xp.sqrt(variance) + self.eps
        else:
            scale = xp.sqrt(xp.clip(variance, self.eps, None))
        scaled = xp.where(scale > 0, centred / xp.where(scale > 0, scale, 1.0), 0.0)
        return _settle_singletons(scaled, count, batch, self.singleton)


class LeaveOneOut(Spec):
    """Reward above the mean of the others of its group: A_i = r_i - mean_{j != i}(r_j).

    Equals n/(n-1) times the group-mean signal. A group that masking leaves with one rollout gets zero.
    Source: RLOO (Kool et al. 2019; arXiv 2402.14740). Valid when: rollouts >= 2; unbiased.
    """

    kind: Literal["leave_one_out"] = "leave_one_out"

    def advantage(self, batch: Batch) -> PerRollout:
        xp = array_namespace(batch.rewards)
        count = _count(batch)
        return xp.sum(_gaps(batch), axis=1) / xp.clip(count - 1.0, 1.0, None)


Signal = Annotated[Raw | GroupMean | GroupMeanStd | LeaveOneOut, Field(discriminator="kind")]


def _count(batch: Batch) -> PerRollout:
    """(R,) rollouts present in the group of each rollout."""
    xp = array_namespace(batch.rewards)
    return xp.sum(xp.astype(batch.member, batch.rewards.dtype), axis=1)


def _gaps(batch: Batch) -> Float[Array, "R R"]:
    """(R, R) r_i - r_j where j is present in the group of i, else zero."""
    xp = array_namespace(batch.rewards)
    return xp.where(batch.member, batch.rewards[:, None] - batch.rewards[None, :], 0.0)


def _centred(batch: Batch) -> tuple[PerRollout, PerRollout]:
    """(R,) reward minus its group's mean, and (R,) the group's count."""
    xp = array_namespace(batch.rewards)
    count = _count(batch)
    return xp.sum(_gaps(batch), axis=1) / xp.clip(count, 1.0, None), count


def _settle_singletons(
    advantage: PerRollout, count: PerRollout, batch: Batch, policy: Singleton
) -> PerRollout:
    """The declared value for groups of one; "error" was rejected at construction, so here it means zero."""
    xp = array_namespace(advantage)
    alone = batch.rewards if policy == "raw" else xp.zeros_like(advantage)
    return xp.where(count == 1, alone, advantage)
