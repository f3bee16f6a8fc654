"""The state of rows that are sampled: room for tokens to come, so that a step writes its own and copies nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from llm_bridge.network.split import Stage, State, cached, select, state_of


class Growing:
    """The rows of a stage that are run token by token, from a given state on, which stays as it is.

    Arguments:
        stage: what runs.
        past: its state where the rows begin.
        room: tokens that will be run at most.
    """

    def __init__(self, stage: Stage, past: State, room: int) -> None:
        self.stage, self.room = stage, room
        self._prompts = past if stage.shares else None
        self._before = past[0][0].shape[2] if stage.shares and past else 0
        self._begin: State | None = past
        self._cache = cached([])

    def select(self, rows: Tensor) -> None:
        """Go on with these rows; nothing is copied where they are all of them in order, as long responses soon are."""
        past = self._begin
        if past is None:
            past = state_of(self._cache)
            if past and torch.equal(rows, torch.arange(len(past[0][0]), device=rows.device)):
                return
        elif self._prompts is not None:
            past = [(keys[:, :, :0], values[:, :, :0]) for keys, values in past]
        self._cache = cached([_Roomy(keys, values, rows, self.room, self._before) for keys, values in past])
        self._begin = None
        if self._prompts and len(self._prompts[0][0]) > 1:
            self._prompts = select(self._prompts, rows)

    def run(self, x: Tensor, *, padding: Tensor | None = None) -> Tensor:
        """(rows, 1, D) hidden states of one more token for each selected row."""
        self.room -= 1
        return self.stage.through(self._cache, x, padding=padding, prompts=self._prompts)


class _Roomy(DynamicLayer):
    """Some rows of given keys and values, room behind them, and tokens before them that are held elsewhere."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, room: int, before: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._whole, self._length = [_with_room(x, rows, room) for x in (keys, values)], 0
        self._before = before
        self._grown(keys.shape[2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start, count = self._length, key_states.shape[2]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, start : start + count] = new
        return self._grown(count)

    def get_seq_length(self) -> int:
        return self._before + self._length

    def _grown(self, count: int) -> tuple[Tensor, Tensor]:
        self._length += count
        self.keys, self.values = keys, values = [whole[:, :, : self._length] for whole in self._whole]
        return keys, values


def _with_room(x: Tensor, rows: Tensor, room: int) -> Tensor:
    """(rows, heads, tokens + room, size): x of these rows, then whatever is there."""
    whole = x.new_empty(len(rows), x.shape[1], x.shape[2] + room, x.shape[3])
    whole[:, :, : x.shape[2]] = x[rows]
    return whole
