"""Rollouts of many queries on the base model, of any query at any time."""

from __future__ import annotations

from functools import cache

from llm_bridge.adapters import AdapterSpec
from llm_bridge.models import LanguageModel
from llm_bridge.probe import draw_rollouts
from llm_bridge.queries import Query
from llm_bridge.rollouts import Prompt, read_prompt
from llm_bridge.split import SplitModel
from theory.prefix_tree import Tokens

KEPT = 8192
"""Tokens of prompts whose keys and values are kept for the next visit; beyond that the oldest are read again."""


class BaseRollouts:
    """Rollout i of query number q is the draw of (seed, stream, q, i), whatever was drawn before it.

    Arguments:
        max_tokens: longest response.
        stream: replica number of the draws, as of `uniforms`; another than that of the probe and of training, so
            that what a query was chosen by is not what it is then measured by.
    """

    def __init__(self, model: LanguageModel, *, max_tokens: int, seed: int, stream: int) -> None:
        self.model, self.max_tokens, self.seed, self.stream = model, max_tokens, seed, stream
        self.split = SplitModel(model.model, AdapterSpec(blocks=1))
        self.ends = cache(model.ends)
        self._prompts: dict[int, Prompt] = {}

    def draw(self, number: int, query: Query, first: int, count: int) -> list[Tokens]:
        """Responses `first` to first + count - 1 of the query, as token ids.

        Errors: ValueError of the model's, with the query's name, where its prompt cannot be read.
        """
        (part,) = draw_rollouts(
            self.split,
            self._prompt(number, query),
            count,
            self.max_tokens,
            self.ends(query.stop),
            seed=self.seed,
            batch=count,
            stream=self.stream,
            query=number,
            first=first,
        )
        return [
            tuple(int(x) for x in row[:length]) for row, length in zip(part.tokens, part.lengths, strict=True)
        ]

    def _prompt(self, number: int, query: Query) -> Prompt:
        prompt = self._prompts.pop(number, None)
        if prompt is None:
            try:
                tokens = self.model.encode_prompt(query.prompt, self.max_tokens)
            except ValueError as error:
                raise ValueError(f"query {query.name or number}: {error}") from error
            prompt = read_prompt(self.split, tokens)
        self._prompts[number] = prompt  # the newest stands last
        while len(self._prompts) > 1 and sum(p.tokens.shape[1] for p in self._prompts.values()) > KEPT:
            del self._prompts[next(iter(self._prompts))]
        return prompt
