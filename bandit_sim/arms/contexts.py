"""Contexts: many queries that share features, trained on in batches, some of them held out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import ArrayLike

from bandit_sim.arms.checks import Array, check_flip, check_reward, check_shape, concrete, floats
from theory.refusal import Refusal
from theory.trees.synthetic_tree import check_gram, overlap_kernel


@register_dataclass
@dataclass(frozen=True)
class Contexts:
    """Batched contextual bandit: Q training queries and H held-out ones, K arms each, pi_q = softmax(f_q).

    A weight w on arm a of query q moves every query q' by
        f_q' += eta w [(1 - overlap) 1[q' = q] + overlap] (kinds[:, a] - kinds pi_q),
    the kernel of logits that are the sum of a part of the query's own and a part all queries share. A round
    trains on `batch` queries, drawn uniformly without replacement, anew in every round.

    Arguments (N = Q + H, training queries first; choice q K + a is arm a of query q):
        logits: (N K,) base logits.
        reward: (N K,) true reward.
        overlap: () share of features that all queries have in common: 0 separate bandits, 1 a single one.
        kinds: (K, K) Gram matrix of the arms' features; identity is no overlap between arms.
        flip: (N K,) chance that noisy pay misjudges the choice; None is 0 for all.
        training: Q.
        batch: B, queries per round.
    Errors: Refusal naming the field, its value and the fix; kinds that is no Gram matrix.
    Source: batched contextual bandit, arXiv 2601.22532; difficulty as a spectrum of p0, arXiv 2602.14872.
    Valid when: queries are alike in their coupling; one overlap for every pair.
    """

    logits: Array
    reward: Array
    overlap: Array
    kinds: Array
    flip: Array | None = None
    training: int = field(default=1, metadata={"static": True})
    batch: int = field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if concrete(self.logits, self.reward, self.kinds):
            arms = len(self.kinds)
            check_gram("kinds", np.asarray(self.kinds))
            check_shape("reward", self.reward, np.shape(self.logits))
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            if len(self.logits) % arms or len(self.logits) < self.training * arms:
                raise Refusal(
                    f"{len(self.logits)} logits for {self.training} training queries of {arms} arms; give all arms "
                    "of every query"
                )
            if not np.all(np.isfinite(np.asarray(self.logits))):
                raise Refusal("logits holds a value that is not finite; every arm of every query is possible")
            if not 0 <= float(self.overlap) <= 1:
                raise Refusal(f"overlap = {self.overlap}; give a share in [0, 1]")
            if not 1 <= self.batch <= self.training:
                raise Refusal(
                    f"batch = {self.batch} of {self.training} training queries; give 1 to all of them"
                )

    @property
    def queries(self) -> int:
        """Q + H."""
        return len(self.logits) // len(self.kinds)

    @classmethod
    def spectrum(
        cls,
        p0: ArrayLike,
        *,
        held_out: ArrayLike | None = None,
        arms: int,
        correct: int = 1,
        batch: int = 1,
        overlap: float = 0.0,
        within: float = 0.0,
        cross: float = 0.0,
        wrong: float = 0.0,
        near: int | None = None,
    ) -> Contexts:
        """Queries by their difficulty: the first `correct` arms share p0 evenly, the others share the rest.

        Arguments:
            p0: (Q,) success probability of each training query.
            held_out: (H,) the same of the queries never trained on; none by default.
            arms: K arms of each query.
            correct: how many of them are correct.
            batch: queries per round.
            overlap: share of features that queries have in common.
            within: overlap of correct arms, beside the feature of its own (1) that each arm has.
            cross: overlap of a correct arm with a wrong one.
            wrong: overlap of wrong arms.
            near: how many wrong arms (the first) overlap with others at all; default all.
        """
        if not 0 < correct < arms:
            raise Refusal(f"correct = {correct} of arms = {arms}; give 1 <= correct <= arms - 1")
        training, other = (np.atleast_1d(np.zeros(0) if x is None else floats(x)) for x in (p0, held_out))
        chances = np.concatenate([training, other])
        bad = chances[~((chances > 0) & (chances < 1))]
        if bad.size:
            raise Refusal(f"p0 holds {bad[0]}; give success probabilities strictly between 0 and 1")
        right = np.arange(arms) < correct
        each = np.where(right, chances[:, None] / correct, (1 - chances[:, None]) / (arms - correct))
        return cls(
            logits=np.log(each).ravel(),
            reward=np.tile(right.astype(np.float64), len(chances)),
            overlap=np.float64(overlap),
            kinds=overlap_kernel(right, within=within, cross=cross, wrong=wrong, near=near),
            training=len(training),
            batch=batch,
        )
