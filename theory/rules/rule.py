"""The update rule: a map from a round's rollouts to weights on grad log pi. Named rules are in `dialects`."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from array_api_compat import array_namespace
from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.aggregation import Aggregation, SequenceSum
from theory.rules.batch import SAMPLED, Batch, PerToken, check_batch
from theory.rules.entropy import Entropy, NoEntropy, SampledEntropy
from theory.rules.kl import KL, NoKL
from theory.rules.objectives import Objective, PolicyGradient
from theory.rules.optimiser import Optimiser
from theory.rules.signals import Raw, Signal
from theory.rules.signals.base import Memory
from theory.rules.spec import Spec

State = Memory


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
        rollouts: rollouts per query and round that are trained on, >= 1; `roles` adds the signal's helpers.
        epochs: optimiser steps per round, >= 1, on the same rollouts: `logprobs` move, `old_logprobs`, rewards
            and the state that `weights` is given stay those of sampling time; the state returned is kept once.

    Errors: Refusal naming the field and the fix; a signal or a centring that
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
    def _signal_accepts_the_rollouts(self) -> Rule:
        self.signal.accept(self.rollouts)
        return self

    @model_validator(mode="after")
    def _no_part_is_without_effect(self) -> Rule:
        if self.rollouts == 1 and isinstance(self.entropy, SampledEntropy) and self.entropy.centre == "group":
            raise Refusal(
                'entropy centre "group" needs rollouts >= 2, got 1: there is no other rollout to centre by; '
                'use centre "none"'
            )
        if self.kl.refresh == 1:
            if self.kl.place == "reward":
                raise Refusal(
                    'kl refresh = 1 in place "reward": the reference is the sampling policy, so every penalty is '
                    "0; give refresh >= 2, or leave it out"
                )
            if self.epochs == 1:
                raise Refusal(
                    "kl refresh = 1 with epochs = 1: the reference is the policy itself, so the pull is 0; "
                    "give refresh >= 2 or epochs >= 2, or leave it out"
                )
        return self

    @property
    def roles(self) -> tuple[int, ...]:
        """`Batch.role` of the rollouts that a query draws in a round: those trained on, then the helpers."""
        return (SAMPLED,) * self.rollouts + self.signal.helpers

    @property
    def drawn(self) -> int:
        """Rollouts that a query draws in a round."""
        return len(self.roles)

    @property
    def reads_logprobs(self) -> bool:
        """Whether on-policy weights depend on log-probabilities; objectives read their ratios alone, which are 1."""
        return self.signal.reads_logprobs or self.kl.reads_reference or self.entropy.reads_logprobs

    @property
    def hash(self) -> str:
        """12 hex digits of the SHA-256 of the rule's canonical JSON; the same on every machine."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def init(self, xp: Any, queries: int = 1) -> State:
        """The state before the first round, in arrays of namespace `xp`: () for a rule without memory.

        Arguments:
            queries: number Q of queries; a signal with memory reads `batch.groups` as indices 0..Q-1.
        Errors: Refusal for a signal over the whole round, where a round is one rollout.
        """
        if queries < 1:
            raise Refusal(f"queries = {queries}; give at least 1")
        self.signal.accept(self.rollouts, queries)
        return self.signal.init(xp, queries)

    def weights(self, batch: Batch, state: State = ()) -> tuple[PerToken, State]:
        """(w, state): w (R, T), zero off the mask and on rollouts of role 1 and 2, and the state for the next round.

        Traced code cannot raise, so a bad value is not reported here: call `check` where one can occur.
        """
        xp = array_namespace(batch.logprobs)
        batch = batch.cleaned()
        paid = batch._replace(rewards=batch.rewards - self.kl.penalty(batch))
        advantage, state = self.signal.advance(paid, state)
        batch = batch.trained()  # to all but the signal, a helper rollout is not there
        token = self.objective.coefficient(batch, advantage) + self.kl.coefficient(batch)
        w = self.aggregation.scale(batch) * token + self.entropy.weights(batch)
        return xp.where(batch.mask != 0, w, 0.0), state

    def entropy_weights(self, batch: Batch) -> PerToken:
        """(R, T) factors on grad H(pi(. | prefix_it)), the exact entropy bonus; all zero for other bonuses.

        Valid when: whoever calls it holds the whole distribution; on one-token arms their sum times
        `theory.rules.entropy.entropy_gradient(log pi)` joins the direction.
        """
        return self.entropy.exact_weights(batch.cleaned().trained())

    def check(self, batch: Batch, state: State = ()) -> None:
        """Reject a batch this rule cannot use; for NumPy and torch callers, before `weights`.

        Errors: those of `check_batch`, and Refusal naming the rollout for which the signal lacks something:
        left alone in its group where that is an error (unchecked, it gets advantage zero), no greedy rollout,
        a query out of the memory's range.
        """
        check_batch(batch)
        self.signal.check(batch, state)
