"""The state of rows that are sampled: room for tokens to come, so that a step writes its own and copies nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from llm_bridge.split import Stage, State, cached, state_of


class Growing:
    """The rows of a stage that are run token by token, from a given state on, which stays as it is.

    Arguments:
        stage: what runs.
        past: its state where the rows begin.
        room: tokens that will be run at most.
    """

    def __init__(self, stage: Stage, past: State, room: int) -> None:
        self.stage, self.room = stage, room
        self._begin: State | None = past
        self._cache = cached([])

    def select(self, rows: Tensor) -> None:
        """Go on with these rows; nothing is copied where they are all of them in order, as long responses soon are."""
        past = self._begin
        if past is None:
            past = state_of(self._cache)
            if past and torch.equal(rows, torch.arange(len(past[0][0]), device=rows.device)):
                return
        self._cache = cached([_Roomy(keys, values, rows, self.room) for keys, values in past])
        self._begin = None

    def run(
        self, *, tokens: Tensor | None = None, hidden: Tensor | None = None, padding: Tensor | None = None
    ) -> Tensor:
        """(rows, 1, D) hidden states of one more token for each selected row."""
        self.room -= 1
        return self.stage.through(self._cache, tokens=tokens, hidden=hidden, padding=padding)


class _Roomy(DynamicLayer):
    """Some rows of given keys and values, and room behind them."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._whole, self._length = [_with_room(x, rows, room) for x in (keys, values)], 0
        self._grown(keys.shape[2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start, count = self._length, key_states.shape[2]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, start : start + count] = new
        return self._grown(count)

    def _grown(self, count: int) -> tuple[Tensor, Tensor]:
        self._length += count
        self.keys, self.values = keys, values = [whole[:, :, : self._length] for whole in self._whole]
        return keys, values


def _with_room(x: Tensor, rows: Tensor, room: int) -> Tensor:
    """(rows, heads, tokens + room, size): x of these rows, then whatever is there."""
    whole = x.new_empty(len(rows), x.shape[1], x.shape[2] + room, x.shape[3])
    whole[:, :, : x.shape[2]] = x[rows]
    return whole
