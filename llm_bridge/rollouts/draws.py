"""What replicas draw in a round: their queries, their rollouts, and the chance in what these are paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm_bridge.network.adapters import Factors
from llm_bridge.rollouts.asked import Asked, sample_each
from llm_bridge.rollouts.rollouts import Rollouts, uniforms
from theory.pay import Clean, PaySpec, no_pay_on_text, paid
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.trees.prefix_tree import Tokens

PICK_STREAM = 2**63
"""Query number of the draws that choose a round's batch: no query can have it."""
HELPER_STREAM, PAY_STREAM = 2**61, 2**62
"""Added to a rollout's number: where the signal's helpers begin, and for the number that its pay is decided by."""


@dataclass(frozen=True)
class Draws:
    """The draws of S replicas; each is named by (seed, replica, round, query, rollout), and depends on nothing else.

    Rows are replica by replica, equally many each.

    Arguments:
        asked: the queries, those trained on first.
        training: Q, how many these are.
        batch: B of them a round, drawn uniformly without replacement by each replica for itself.
        pay: what a verified reward is paid.
    Errors: Refusal for pay that means nothing on text.
    """

    asked: Sequence[Asked]
    training: int
    replicas: int
    batch: int
    max_tokens: int
    seed: int
    pay: PaySpec

    def __post_init__(self) -> None:
        if (reason := no_pay_on_text(self.pay)) is not None:
            raise Refusal(f"pay {self.pay.name}: {reason}")

    def queries(self, turn: int) -> NDArray[np.int64]:
        """(S B) each replica's queries of a round, in order."""
        if self.batch == self.training:
            return np.tile(np.arange(self.training), self.replicas)
        keys = ([self.seed, s] for s in range(self.replicas))
        bits = (np.random.Philox(key=key, counter=[0, 0, PICK_STREAM, turn]) for key in keys)
        drawn = [np.random.Generator(b).permutation(self.training)[: self.batch] for b in bits]
        return np.sort(drawn, axis=1).ravel()

    def rollouts(
        self,
        factors: Factors,
        turn: int,
        query: NDArray[np.int64],
        number: NDArray[np.int64],
        greedy: NDArray[np.bool_] | None = None,
    ) -> Rollouts:
        """A response per row: rollout number[i] of query[i]; where greedy, of the most likely tokens."""
        replica = self._replica(query)
        draws = np.stack([
            uniforms(self.seed, int(s), turn, int(q), int(i), self.max_tokens)
            for s, q, i in zip(replica, query, number, strict=True)
        ])  # fmt: skip
        if greedy is not None:
            draws[greedy] = np.nan
        return sample_each(self.asked, factors, torch.from_numpy(query), torch.from_numpy(replica), draws)

    def rewards(self, query: NDArray[np.int64], responses: Sequence[Tokens]) -> NDArray[np.float64]:
        """Verified reward of each response."""
        return np.array([
            self.asked[q].question.reward_of(t) for q, t in zip(query, responses, strict=True)
        ])  # fmt: skip

    def paid(
        self,
        turn: int,
        query: NDArray[np.int64],
        number: NDArray[np.int64],
        lengths: NDArray[np.int64],
        rewards: NDArray[Any],
    ) -> NDArray[np.float64]:
        """What a round's rollouts are paid."""
        if self.pay == Clean():
            return rewards
        luck = [
            uniforms(self.seed, int(s), turn, int(q), PAY_STREAM + int(i), 1)[0]
            for s, q, i in zip(self._replica(query), query, number, strict=True)
        ]
        return paid(self.pay, luck, rewards, lengths)

    def _replica(self, query: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(query)) // (len(query) // self.replicas)


def numbers(rule: Rule) -> NDArray[np.int64]:
    """Rollout numbers of a query's round: those trained on from 0, so that no helper changes what they draw."""
    return np.concatenate([np.arange(rule.rollouts), HELPER_STREAM + np.arange(len(rule.signal.helpers))])
