"""A query as it is asked of S replicas: its prompt is read by the trunk once, by a replica's head when that moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.network.adapters import Factors
from llm_bridge.network.split import SplitModel, select
from llm_bridge.rollouts.rollouts import (
    Opening,
    Prompt,
    Rollouts,
    open_prompt,
    opened_together,
    read_prompt,
    sample,
    side_by_side,
)
from theory.trees.prefix_tree import Tokens


class Question(NamedTuple):
    """A query in a model's tokens.

    Arguments:
        prompt: (1, P) token ids.
        reward_of: verified reward of a response given as token ids.
        end_tokens: ids that close a response.
    """

    prompt: Tensor
    reward_of: Callable[[Tokens], float]
    end_tokens: tuple[int, ...]


class Asked:
    """One question before S replicas; what a replica's head makes of the prompt is kept until that replica moves."""

    def __init__(self, split: SplitModel, question: Question, replicas: int) -> None:
        self.split, self.question = split, question
        self.prompt: Prompt = read_prompt(split, question.prompt)
        self._opening: Opening | None = None
        self._stale = torch.ones(replicas, dtype=torch.bool)

    def moved(self, replicas: Tensor) -> None:
        """These replicas have other parameters than before."""
        self._stale[replicas] = True

    def open(self, factors: Factors, rows: Tensor) -> tuple[Opening, Tensor]:
        """The prompt through the head of each replica in `rows`, and the entry of each row in it."""
        asked, entry = rows.unique(return_inverse=True)
        moved = asked[self._stale[asked]]
        if len(moved):
            new = open_prompt(self.split, self.prompt, factors, moved)
            if self._opening is None:
                self._opening = _room(new, len(self._stale))
            for old, fresh in zip(self._opening.past, new.past, strict=True):
                for kept, read in zip(old, fresh, strict=True):
                    kept[moved] = read
            self._opening.logits[moved] = new.logits
            self._stale[moved] = False
        assert self._opening is not None
        if len(asked) == len(self._stale):
            return self._opening, entry
        whole = self._opening
        return Opening(select(whole.past, asked), whole.logits[asked], asked, torch.zeros_like(asked)), entry


def sample_each(
    asked: Sequence[Asked], factors: Factors, query: Tensor, replica: Tensor, draws: NDArray[np.float64]
) -> Rollouts:
    """One response per row, all of them beside one another, to question query[i] (R,) by replica[i] (R,)."""
    mine, slot = query.unique(return_inverse=True)
    questions = [asked[int(q)] for q in mine]
    openings: list[Opening] = []
    entry, before = torch.zeros_like(query), 0
    for i, question in enumerate(questions):
        opening, place = question.open(factors, replica[slot == i])
        openings.append(opening)
        entry[slot == i] = place + before
        before += len(opening.replicas)
    return sample(
        questions[0].split, side_by_side([q.prompt for q in questions]), opened_together(openings), factors,
        entry, draws, [q.question.end_tokens for q in questions],
    )  # fmt: skip


def _room(opening: Opening, replicas: int) -> Opening:
    """An opening with a place for every replica."""

    def wide(x: Tensor) -> Tensor:
        return x.new_zeros(replicas, *x.shape[1:])

    past = [(wide(keys), wide(values)) for keys, values in opening.past]
    every = torch.arange(replicas)
    return Opening(past, wide(opening.logits), every, torch.zeros_like(every))
