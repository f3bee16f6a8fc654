"""The update rule: a map from a round's rollouts to weights on grad log pi. Named rules are in `PRESETS`."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from array_api_compat import array_namespace
from pydantic import Field, model_validator

from theory.rules.aggregation import Aggregation, Constant, SequenceSum, TokenMean
from theory.rules.batch import Batch, PerToken, check_batch
from theory.rules.entropy import Entropy, NoEntropy, SampledEntropy
from theory.rules.kl import KL, NoKL
from theory.rules.objectives import Objective, PolicyGradient, PPOClip
from theory.rules.optimiser import SGD, Optimiser
from theory.rules.signals import GroupMean, GroupMeanStd, LeaveOneOut, Raw, Signal
from theory.rules.spec import Spec

State = tuple[Any, ...]


class Rule(Spec):
    """Update direction (ascent) = sum_it w_it grad log pi(y_it | x_i, y_i,<t), with w held constant.

        w_it = scale_it * (objective_it(A_i) + kl_it) + entropy_it

    Arguments:
        signal: rewards -> advantage A_i of each rollout.
        objective: advantage -> coefficient of each token.
        aggregation: how tokens and rollouts are averaged.
        kl: pull towards the reference model, in the loss through the same aggregation or in the reward.
        entropy: bonus on the mean entropy per token, whatever the aggregation.
        optimiser: what is done with the direction; holds the step size eta.
        rollouts: rollouts per query and round, >= 1.
        epochs: optimiser steps per round, >= 1, on the same rollouts: `logprobs` move, `old_logprobs`, rewards
            and the state that `weights` is given stay those of sampling time; the state returned is kept once.

    Errors: pydantic ValidationError (a ValueError) naming the field and the fix; a signal or a centring that
    needs a group is rejected for one rollout, a reference that is always the policy itself is rejected.
    Valid when: the engine differentiates log pi only (w detached). Written with array-API operations: the
    same lines run on NumPy, on JAX inside jit and vmap, and on torch, in the dtype of `batch.logprobs`.
    """

    signal: Signal = Raw()
    objective: Objective = PolicyGradient()
    aggregation: Aggregation = SequenceSum()
    kl: KL = NoKL()
    entropy: Entropy = NoEntropy()
    optimiser: Optimiser
    rollouts: Annotated[int, Field(ge=1)] = 1
    epochs: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _one_rollout_needs_a_policy(self) -> Rule:
        if self.rollouts == 1 and isinstance(self.signal, LeaveOneOut):
            raise ValueError("leave_one_out needs rollouts >= 2; for one rollout use raw")
        if self.rollouts == 1 and getattr(self.signal, "singleton", None) == "error":
            raise ValueError(
                f'{self.signal.kind} with singleton "error" needs rollouts >= 2, got 1; for one rollout use '
                f'raw, or say what a group of one gets: singleton "raw" or "zero"'
            )
        return self

    @model_validator(mode="after")
    def _no_part_is_without_effect(self) -> Rule:
        if self.rollouts == 1 and isinstance(self.entropy, SampledEntropy) and self.entropy.centre == "group":
            raise ValueError(
                'entropy centre "group" needs rollouts >= 2, got 1: there is no other rollout to centre by; '
                'use centre "none"'
            )
        if self.kl.refresh == 1:
            if self.kl.place == "reward":
                raise ValueError(
                    'kl refresh = 1 in place "reward": the reference is the sampling policy, so every penalty is '
                    "0; give refresh >= 2, or leave it out"
                )
            if self.epochs == 1:
                raise ValueError(
                    "kl refresh = 1 with epochs = 1: the reference is the policy itself, so the pull is 0; "
                    "give refresh >= 2 or epochs >= 2, or leave it out"
                )
        return self

    @property
    def hash(self) -> str:
        """12 hex digits of the SHA-256 of the rule's canonical JSON; the same on every machine."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def init(self, xp: Any) -> State:
        """The state before the first round, in arrays of namespace `xp`: () for a rule without memory."""
        return ()

    def weights(self, batch: Batch, state: State = ()) -> tuple[PerToken, State]:
        """(w, state): w (R, T), zero wherever the mask is, and the state for the next round.

        Traced code cannot raise, so a bad value is not reported here: call `check` where one can occur.
        """
        xp = array_namespace(batch.logprobs)
        batch = batch.cleaned()
        paid = batch._replace(rewards=batch.rewards - self.kl.penalty(batch))
        token = self.objective.coefficient(batch, self.signal.advantage(paid)) + self.kl.coefficient(batch)
        w = self.aggregation.scale(batch) * token + self.entropy.weights(batch)
        return xp.where(batch.mask != 0, w, 0.0), state

    def entropy_weights(self, batch: Batch) -> PerToken:
        """(R, T) factors on grad H(pi(. | prefix_it)), the exact entropy bonus; all zero for other bonuses.

        Valid when: whoever calls it holds the whole distribution; on one-token arms their sum times
        `theory.rules.entropy.entropy_gradient(log pi)` joins the direction.
        """
        return self.entropy.exact_weights(batch.cleaned())

    def check(self, batch: Batch) -> None:
        """Reject a batch this rule cannot use; for NumPy and torch callers, before `weights`.

        Errors: those of `check_batch`, and ValueError naming a rollout left alone in its group where the
        signal makes that an error (unchecked, it gets advantage zero).
        """
        check_batch(batch)
        if isinstance(self.signal, LeaveOneOut) or getattr(self.signal, "singleton", None) == "error":
            lonely = (batch.member.sum(1) == 1) & batch.present
            for i in range(len(lonely)):
                if lonely[i]:
                    raise ValueError(
                        f"batch.groups[{i}] = {int(batch.groups[i])} holds one rollout, {self.signal.kind} "
                        f"needs at least 2 present; sample more, or use a signal that settles singletons"
                    )


def _clipped(signal: Signal, clip_high: float = 0.2) -> Rule:
    return Rule(
        signal=signal,
        objective=PPOClip(clip_low=0.2, clip_high=clip_high),
        aggregation=TokenMean(),
        optimiser=SGD(eta=0.05),
        rollouts=8,
    )


# The optimiser is a layer of its own: every preset starts from SGD, whatever its trainer pairs it with.
PRESETS: dict[str, Rule] = {
    # Raw reward, policy gradient of the whole response, no KL, SGD, one rollout: the papers' bottom layer.
    "minimalist": Rule(optimiser=SGD(eta=0.05)),
    # arXiv 2402.14740: each rollout against the mean of the others, on-policy.
    "rloo": Rule(signal=LeaveOneOut(), optimiser=SGD(eta=0.05), rollouts=4),
    # arXiv 2503.20783: no std, and a constant in place of the length (3,000 tokens in its published runs).
    "dr-grpo": Rule(
        signal=GroupMean(),
        objective=PPOClip(),
        aggregation=Constant(divisor=3000),
        optimiser=SGD(eta=0.05),
        rollouts=8,
    ),
    # TRL 1.10 GRPOConfig(): scale_rewards "group", loss_type "dapo", beta 0.
    "grpo-trl": _clipped(GroupMeanStd(ddof=1, eps=1e-4)),
    # verl 0.7 adv_estimator=grpo, token-mean; a group of one falls back to the reward.
    "grpo-verl": _clipped(GroupMeanStd(ddof=1, eps=1e-6, singleton="raw")),
    # open-instruct (2026-08) "standard" normalisation, clip-higher.
    "grpo-open-instruct": _clipped(GroupMeanStd(ddof=0, eps=1e-8), clip_high=0.272),
}


def preset(name: str, *, eta: float | None = None, rollouts: int | None = None) -> Rule:
    """The named rule, with its step size or its number of rollouts changed.

    Arguments:
        name: a key of `PRESETS`.
        eta: step size; the preset's own where not given.
        rollouts: rollouts per query and round; the preset's own where not given.
    Errors: ValueError for an unknown name, or for a value that the rule cannot use.
    """
    if name not in PRESETS:
        raise ValueError(f"rule {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    fields = dict(PRESETS[name])
    if eta is not None:
        fields["optimiser"] = {**dict(fields["optimiser"]), "eta": eta}
    if rollouts is not None:
        fields["rollouts"] = rollouts
    return Rule(**fields)
