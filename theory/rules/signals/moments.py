"""Means and spreads over members, written so that equal values give exactly zero.

Everything is built from the gaps x_i - x_j: a group of equal rewards gives exactly zero in any floating-point
format, and a shift of all rewards cancels before it is summed.
"""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace
from jaxtyping import Float

from theory.rules.batch import SAMPLED, Array, Batch, Member, PerRollout

EpsPlace = Literal["std+eps", "sqrt(var+eps)", "sqrt(max(var,eps))"]
Weighting = Literal["rollout", "token"]


def everyone(batch: Batch) -> Member:
    """(R, R) boolean: rollout j is present and trained on, whatever the group."""
    trained = batch.having(SAMPLED)
    return array_namespace(trained).broadcast_to(trained[None, :], (trained.shape[0], trained.shape[0]))


def lengths(batch: Batch) -> PerRollout:
    """(R,) real tokens of each rollout."""
    return array_namespace(batch.mask).sum(batch.mask, axis=1)


def total(member: Member, weight: PerRollout) -> PerRollout:
    """(R,) summed weight of the members of each rollout; with weights of one, their count."""
    xp = array_namespace(weight)
    return xp.sum(xp.where(member, weight[None, :], 0.0), axis=1)


def count(member: Member, batch: Batch) -> PerRollout:
    """(R,) members of each rollout, in the batch's dtype."""
    return total(member, array_namespace(batch.rewards).ones_like(batch.rewards))


def gaps(values: PerRollout, member: Member) -> Float[Array, "R R"]:
    """(R, R) x_i - x_j where j is a member of i, else zero."""
    return array_namespace(values).where(member, values[:, None] - values[None, :], 0.0)


def centred(values: PerRollout, member: Member, weight: PerRollout | None = None) -> PerRollout:
    """(R,) x_i - sum_j u_j x_j / sum_j u_j over the members j of i, u = 1 without `weight`."""
    xp = array_namespace(values)
    u = xp.ones_like(values) if weight is None else weight
    return xp.sum(gaps(values, member) * u[None, :], axis=1) / at_least_one(total(member, u))


def spread(
    centre: PerRollout,
    member: Member,
    ddof: int,
    eps: float,
    eps_place: EpsPlace,
    weight: PerRollout | None = None,
) -> PerRollout:
    """(R,) root of var = sum_j u_j c_j^2 / (sum_j u_j - ddof) over the members j of i, with eps in its place."""
    xp = array_namespace(centre)
    u = xp.ones_like(centre) if weight is None else weight
    squares = xp.sum(xp.where(member, (u * centre**2)[None, :], 0.0), axis=1)
    return rooted(squares / at_least_one(total(member, u) - ddof), eps, eps_place)


def rooted(variance: PerRollout, eps: float, eps_place: EpsPlace) -> PerRollout:
    """sqrt(var) + eps, sqrt(var + eps) or sqrt(max(var, eps))."""
    xp = array_namespace(variance)
    if eps_place == "std+eps":
        return xp.sqrt(variance) + eps
    if eps_place == "sqrt(var+eps)":
        return xp.sqrt(variance + eps)
    return xp.sqrt(xp.clip(variance, eps, None))


def divided(values: PerRollout, scale: PerRollout) -> PerRollout:
    """x / s where s > 0, else zero."""
    xp = array_namespace(values)
    return xp.where(scale > 0, values / xp.where(scale > 0, scale, 1.0), 0.0)


def at_least_one(number: PerRollout) -> PerRollout:
    """Avoids 0/0 where nothing is there to count."""
    return array_namespace(number).clip(number, 1.0, None)
