"""Rollouts of many queries on the base model, of any query at any time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from llm_bridge.models.language_model import LanguageModel
from llm_bridge.network.plain import open_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.queries.query import Query
from llm_bridge.rollouts.rollouts import (
    Prompt,
    open_prompt,
    opened_together,
    read_prompt,
    sample,
    side_by_side,
    uniforms,
)
from theory.refusal import Refusal
from theory.trees.prefix_tree import Tokens

KEPT = 8192
"""Tokens of prompts whose keys and values are kept for the next visit; beyond that the oldest are read again."""


class Visit(NamedTuple):
    """Rollouts `first` to first + rollouts - 1 of query number `number`."""

    number: int
    query: Query
    first: int
    rollouts: int


class BaseRollouts:
    """Rollout i of query number q is the draw of (seed, stream, q, i), whatever was drawn before it.

    Arguments:
        max_tokens: longest response.
        stream: replica number of the draws, as of `uniforms`; another than that of the probe and of training, so
            that what a query was chosen by is not what it is then measured by.
    """

    def __init__(self, model: LanguageModel, *, max_tokens: int, seed: int, stream: int) -> None:
        self.model, self.max_tokens, self.seed, self.stream = model, max_tokens, seed, stream
        self.split = open_model(model.model, AdapterSpec(blocks=1))
        self.ends = cache(model.ends)
        self._prompts: dict[int, Prompt] = {}

    def draw(self, visits: Sequence[Visit]) -> list[list[Tokens]]:
        """Responses of each visit, as token ids; the visits are sampled in one padded batch.

        Errors: Refusal of the model's, with the query's name, where its prompt cannot be read.
        """
        prompts = [self._prompt(visit.number, visit.query) for visit in visits]
        nobody = torch.zeros(1, dtype=torch.long)
        openings = [open_prompt(self.split, prompt, None, nobody) for prompt in prompts]
        draws = [
            uniforms(self.seed, self.stream, 0, visit.number, visit.first + i, self.max_tokens)
            for visit in visits
            for i in range(visit.rollouts)
        ]
        made = sample(
            self.split, side_by_side(prompts), opened_together(openings), None,
            torch.arange(len(visits)).repeat_interleave(torch.tensor([visit.rollouts for visit in visits])),
            np.stack(draws), [self.ends(visit.query.stop) for visit in visits],
        )  # fmt: skip
        tokens = iter(
            tuple(int(x) for x in row[:length]) for row, length in zip(made.tokens, made.lengths, strict=True)
        )
        return [list(islice(tokens, visit.rollouts)) for visit in visits]

    def _prompt(self, number: int, query: Query) -> Prompt:
        prompt = self._prompts.pop(number, None)
        if prompt is None:
            try:
                tokens = self.model.encode_prompt(query.prompt, self.max_tokens)
            except Refusal as error:
                raise Refusal(f"query {query.name or number}: {error}") from error
            prompt = read_prompt(self.split, tokens)
        self._prompts[number] = prompt  # the newest stands last
        while len(self._prompts) > 1 and sum(p.tokens.shape[1] for p in self._prompts.values()) > KEPT:
            del self._prompts[next(iter(self._prompts))]
        return prompt
