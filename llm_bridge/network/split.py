"""A causal language model cut in two: the frozen trunk, computed once for all replicas, and the adapted head."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from llm_bridge.network.adapters import Adapters
from llm_bridge.network.attention import BEHIND_PROMPT
from llm_bridge.network.full import FullParameters
from llm_bridge.network.specs import AdapterSpec
from theory.refusal import Refusal

State = list[tuple[Tensor, Tensor]]
TILE = 16
"""Rows of a tile in the processor's matrix product: 5 to 15 rows take up to twice as long as 16."""


class Stage:
    """Consecutive blocks of the model, run by the model's own code on a view that shares its weights.

    `run(x, past)` takes token ids (rows, tokens) or hidden states (rows, tokens, D), and returns hidden states and the
    keys and values so far; `past` is a list over blocks of (rows, heads, tokens, size) pairs and is never changed in
    place. Its first `padding` (rows,) tokens are nobody's: they are not attended to, and the positions count from
    behind them. `continues`: whether going on from a state saves work, and can be differentiated. `shares`: whether
    rows can go on from keys and values that are not in their cache.
    """

    continues, shares = True, False

    def __init__(self, model: PreTrainedModel, first: int, last: int, *, closing: bool) -> None:
        # transformers types its modules' attributes as Tensor | Module; what they are is checked in SplitModel.
        body: Any = model.base_model
        view: Any = _view(body)
        config = copy.deepcopy(body.config)
        config.num_hidden_layers = last - first
        if getattr(config, "layer_types", None):
            config.layer_types = list(config.layer_types[first:last])
        fine = next(model.parameters()).dtype.itemsize >= 4
        self.shares = fine and config._attn_implementation == "sdpa"
        if self.shares:
            config._attn_implementation = BEHIND_PROMPT
        view.config = config
        view._modules["layers"] = nn.ModuleList(
            _renumber(block, i, config) for i, block in enumerate(body.layers[first:last])
        )
        if not closing:
            view._modules["norm"] = nn.Identity()
        self.body = view
        self.blocks: nn.ModuleList = view._modules["layers"]

    def unshare(self) -> None:
        """Copy keys and values of a prompt for every row: for a model whose attention cannot be told of them."""
        if self.shares:
            self.shares, self.body.config._attn_implementation = False, "sdpa"

    def run(
        self, x: Tensor, *, past: State | None = None, padding: Tensor | None = None
    ) -> tuple[Tensor, State]:
        cache = cached([_layer(keys, values) for keys, values in past or []])
        out = self.through(cache, x, padding=padding)
        return out, state_of(cache)

    def through(
        self,
        cache: DynamicCache,
        x: Tensor,
        *,
        padding: Tensor | None = None,
        prompts: State | None = None,
    ) -> Tensor:
        """Hidden states; keys and values are added to the cache, which holds none of `prompts` where they are given."""
        more: dict[str, Any] = {} if prompts is None else {"prompts": prompts}
        if padding is not None:
            more |= seen_by(padding, cache.get_seq_length(), x.shape[1])
        given = "inputs_embeds" if x.is_floating_point() else "input_ids"
        return self.body(**{given: x}, past_key_values=cache, use_cache=True, **more).last_hidden_state

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states without a cache: the differentiable pass."""
        return self.body(inputs_embeds=hidden, use_cache=False).last_hidden_state

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Keep only what goes into each block for the backward pass, which runs the block again (checkpointing)."""
        before = [block.training for block in self.blocks]
        for block in self.blocks:
            # transformers' own switch; `training` of the block alone, so that no dropout below it wakes up.
            set_up: Any = block
            set_up._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            set_up.gradient_checkpointing, block.training = True, True
        continues = self.continues
        self.continues = False  # a block that runs again would add to its cache again
        try:
            yield
        finally:
            self.continues = continues
            for block, training in zip(self.blocks, before, strict=True):
                set_up = block
                set_up.gradient_checkpointing, block.training = False, training


class UnknownLayout(Refusal):
    """The model's parts are not where a split model looks for them."""


class SplitModel:
    """Trunk, head and output map of a causal LM; the head carries the adapters.

    vocabulary: tokens that it chooses from, V.
    Valid when: the model is of the Llama layout (`base_model.layers`, `base_model.norm`, `lm_head`); windows of
    sliding attention and scaled embeddings are the model's own code and stay as they are.
    Errors: Refusal for a model of another layout, or with fewer blocks than are to be adapted.
    """

    def __init__(self, model: PreTrainedModel, spec: AdapterSpec) -> None:
        depth = depth_of(model)
        self.vocabulary = vocabulary_of(model)
        first = depth - spec.of(depth)
        self.trunk = Stage(model, 0, first, closing=False)
        self.head = Stage(model, first, depth, closing=True)
        self.output: Any = model.get_output_embeddings()
        self.adapters: Adapters | FullParameters = Adapters(self.head.blocks, spec)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        count = len(hidden)
        if hidden.dim() == 2 and hidden.device.type == "cpu" and 4 < count < TILE:
            return self.output(F.pad(hidden, (0, 0, 0, TILE - count)))[:count]
        return self.output(hidden)


def depth_of(model: PreTrainedModel) -> int:
    """Blocks of a model of the Llama layout. Errors: `UnknownLayout` for another."""
    body: Any = model.base_model
    if not (isinstance(getattr(body, "layers", None), nn.ModuleList) and hasattr(body, "norm")):
        raise UnknownLayout(
            f"model type {model.config.model_type!r} has no `layers` and `norm`; "
            "use a model of the Llama layout (Llama, Qwen2, SmolLM2, OLMo-2, Gemma 3, ...)"
        )
    return len(body.layers)


def vocabulary_of(model: PreTrainedModel) -> int:
    """Tokens that a model chooses from."""
    return int(model.config.get_text_config().vocab_size)


def seen_by(padding: Tensor, before: int, new: int) -> dict[str, Tensor]:
    """What transformers wants of rows with `padding` (rows,) tokens on the left: mask and positions.

    Arguments:
        before, new: tokens of the state, padding included, and tokens that are run.
    """
    place = torch.arange(before + new, device=padding.device)[None] - padding[:, None]
    # A padded token runs at some position; what it makes is attended to by nobody.
    return {"attention_mask": (place >= 0).long(), "position_ids": place[:, before:].clamp(min=0)}


def pad_left(x: Tensor, dim: int, length: int) -> Tensor:
    """Zeros before x along `dim`, up to a length."""
    missing = list(x.shape)
    missing[dim] = length - x.shape[dim]
    return torch.cat([x.new_zeros(missing), x], dim=dim) if missing[dim] else x


def beside(states: Sequence[State]) -> State:
    """The rows of several states in one, each padded on the left to the longest."""
    longest = max(state[0][0].shape[2] for state in states) if states[0] else 0
    return [
        (
            torch.cat([pad_left(keys, 2, longest) for keys, _ in block]),
            torch.cat([pad_left(values, 2, longest) for _, values in block]),
        )
        for block in zip(*states, strict=True)
    ]


def repeat(state: State, rows: int) -> State:
    """A state of batch one seen by `rows` rows, without a copy."""
    return [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in state]


def select(state: State, rows: Tensor) -> State:
    """The state of some rows."""
    return [(k[rows], v[rows]) for k, v in state]


def cached(layers: Sequence[DynamicLayer]) -> DynamicCache:
    """transformers' cache of these layers."""
    cache = DynamicCache()
    own: Any = list(layers)
    cache.layers = own
    return cache


def state_of(cache: DynamicCache) -> State:
    """Keys and values of every layer of a cache."""
    layers: Any = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def _layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    """A cache layer that starts from given tensors; `DynamicLayer.update` would copy them first."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def _view(module: nn.Module) -> nn.Module:
    """A module that shares parameters and children with `module` but owns its attributes."""
    new = copy.copy(module)
    new.__dict__["_modules"] = dict(module._modules)
    return new


def _renumber(block: nn.Module, index: int, config: Any) -> Any:
    """A view of a block, all the way down, with this configuration, whose cache slot is `index`."""
    new: Any = _view(block)
    for name, child in list(new._modules.items()):
        if child is not None:
            new._modules[name] = _renumber(child, index, config)
    if hasattr(new, "layer_idx"):
        new.layer_idx = index
    if hasattr(new, "config"):
        new.config = config
    return new
