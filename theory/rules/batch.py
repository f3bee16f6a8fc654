"""One round's rollouts, as arrays of one back end."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Bool, Float, Int, Num, Shaped

from theory.refusal import Refusal

Array = Any  # a NumPy array, a JAX array or tracer, or a torch tensor: whatever the engine holds
PerRollout = Float[Array, "R"]
PerToken = Float[Array, "R T"]
Rewards = Num[Array, "R"]
Groups = Int[Array, "R"]
Roles = Int[Array, "R"]
Mask = Shaped[Array, "R T"]
Present = Bool[Array, "R"]
Member = Bool[Array, "R R"]

SAMPLED, EXTRA, GREEDY = 0, 1, 2  # what a rollout is for; see `Batch.role`


class Batch(NamedTuple):
    """One round's rollouts of any number of queries (R rollouts, T tokens, padded).

    Arguments:
        logprobs: (R, T) log pi of each sampled token under the policy being trained.
        old_logprobs: (R, T) the same at sampling time.
        ref_logprobs: (R, T) the same under the reference model.
        rewards: (R,) verified reward of each rollout.
        groups: (R,) integer group ids; any labels, a rollout belongs to its id and never to its position.
        mask: (R, T) 1 on real response tokens, else 0; an all-zero row is a rollout that is not there.
        role: (R,) what each rollout is for: 0 sampled and trained on, 1 sampled for baselines only, 2 greedy
            (argmax), for a greedy baseline only. None: all 0. Only role 0 gets weight or counts in an average.

    Being a NamedTuple it passes through `jax.jit` and `jax.vmap` as it is; `torch.vmap` takes no None, so there
    `role` must be a tensor.
    Valid when: all arrays come from one back end; see `check_batch` for what no traced code can check.
    """

    logprobs: PerToken
    old_logprobs: PerToken
    ref_logprobs: PerToken
    rewards: Rewards
    groups: Groups
    mask: Mask
    role: Roles | None = None

    @property
    def present(self) -> Present:
        """(R,) boolean: the rollouts that have at least one real token."""
        return array_namespace(self.mask).any(self.mask != 0, axis=1)

    def having(self, *roles: int) -> Present:
        """(R,) boolean: the rollouts present that have one of these roles."""
        if self.role is None:
            return self.present & (SAMPLED in roles)
        matches = [self.role == role for role in roles]
        return self.present & reduce(or_, matches)

    def group_of(self, members: Present) -> Member:
        """(R, R) boolean: rollout j is one of `members` and in the group of rollout i."""
        return (self.groups[:, None] == self.groups[None, :]) & members[None, :]

    @property
    def member(self) -> Member:
        """(R, R) boolean: rollout j is present, trained on, and in the group of rollout i."""
        return self.group_of(self.having(SAMPLED))

    def trained(self) -> Batch:
        """The batch in which a rollout that only feeds a baseline is not there."""
        if self.role is None:
            return self
        xp = array_namespace(self.mask)
        mask = xp.where((self.role == SAMPLED)[:, None], self.mask, xp.zeros_like(self.mask))
        return self._replace(mask=mask, role=None).cleaned()

    def cleaned(self) -> Batch:
        """The batch with every number that must not matter set to zero, in the dtype of `logprobs`.

        Padding may hold anything (NaN, -inf, another token's log-probability); so may an absent rollout's
        reward. Zero times NaN is NaN, so these are replaced rather than multiplied by the mask.
        """
        xp, dtype = array_namespace(self.logprobs), self.logprobs.dtype
        real, present = self.mask != 0, self.present

        def keep(where: Array, values: Array) -> Array:
            return xp.where(where, xp.astype(values, dtype), xp.zeros_like(values, dtype=dtype))

        return Batch(
            keep(real, self.logprobs),
            keep(real, self.old_logprobs),
            keep(real, self.ref_logprobs),
            keep(present, self.rewards),
            self.groups,
            xp.astype(real, dtype),
            self.role,
        )


def check_batch(batch: Batch) -> None:
    """Reject a batch that no rule can use; for NumPy and torch callers (traced code cannot raise).

    Errors: Refusal naming the field, the rollout, the value and the fix: shapes that disagree, group ids or
    roles that are not integers, a role that is not 0, 1 or 2, a mask that is not 0/1, a reward or a real token's
    log-probability not finite.
    """
    fields = {name: _to_numpy(value) for name, value in batch._asdict().items() if value is not None}
    if fields["logprobs"].ndim != 2:
        raise Refusal(f"batch.logprobs has shape {fields['logprobs'].shape}; give it (rollouts, tokens)")
    shape = fields["logprobs"].shape
    for name, array in fields.items():
        wanted = shape[:1] if name in ("rewards", "groups", "role") else shape
        if array.shape != wanted:
            raise Refusal(f"batch.{name} has shape {array.shape}; logprobs {shape} needs {wanted}")
    if not np.issubdtype(fields["groups"].dtype, np.integer):
        raise Refusal(f"batch.groups has dtype {fields['groups'].dtype}; give integer group ids")
    role = fields.get("role", np.zeros(shape[0], dtype=int))
    for i in np.flatnonzero((role != SAMPLED) & (role != EXTRA) & (role != GREEDY)):
        raise Refusal(f"batch.role[{i}] = {role[i]}; give 0 (trained on), 1 (baselines only) or 2 (greedy)")
    if not np.issubdtype(role.dtype, np.integer):
        raise Refusal(f"batch.role has dtype {role.dtype}; give integer roles")
    mask = fields["mask"]
    odd = np.argwhere((mask != 0) & (mask != 1))
    if len(odd):
        i, t = odd[0]
        raise Refusal(f"batch.mask[{i}, {t}] = {mask[i, t]}; give 1 on real tokens and 0 elsewhere")
    absent = "or mask the rollout out with an all-zero mask row"
    for i in np.flatnonzero(mask.any(axis=1)):
        if not np.isfinite(fields["rewards"][i]):
            raise Refusal(
                f"batch.rewards[{i}] = {fields['rewards'][i]} is not finite; score it 0 or 1, {absent}"
            )
        for name in ("logprobs", "old_logprobs", "ref_logprobs"):
            for t in np.flatnonzero(mask[i] != 0):
                if not np.isfinite(fields[name][i, t]):
                    raise Refusal(
                        f"batch.{name}[{i}, {t}] = {fields[name][i, t]} is not finite on a real token; "
                        f"sample from the full vocabulary at temperature 1, {absent}"
                    )


def _to_numpy(values: Array) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
