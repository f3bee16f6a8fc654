"""The plain path: any causal LM, read whole every time. Reference for the split model, and fallback in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from llm_bridge.network.adapters import Adapters, Factors
from llm_bridge.network.full import FullParameters
from llm_bridge.network.growing import Growing
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.network.split import (
    SplitModel,
    Stage,
    State,
    UnknownLayout,
    depth_of,
    seen_by,
    vocabulary_of,
)
from llm_bridge.rollouts.rollouts import Prompt, Rollouts, read_responses
from theory.refusal import Refusal

LIMIT = 1e-3
"""Gap of logits, of the largest, up to which the split model is the model."""


class PlainModel(SplitModel):
    """A split model that is cut before its first layer: the trunk hands tokens on, the head is the whole model.

    Every step is the model's own `forward` over prompt and response from their first token: no cache, no shared
    trunk, and the model's own logits, whatever it does to them. "Hidden states" of its trunk are token ids, those
    of its head are logits; so sampler, scorer, probe and trainer take it where they take a `SplitModel`.

    Arguments:
        reason: why it stands in for the split model; one line for the user.
    Errors: Refusal where the model keeps its blocks in no list.
    Valid when: the model is causal and needs nothing but `input_ids`. It costs a whole forward pass per token.
    """

    def __init__(self, model: PreTrainedModel, spec: AdapterSpec | FullSpec, reason: str = "") -> None:
        self.reason = reason
        self.vocabulary = vocabulary_of(model)
        blocks = blocks_of(model)
        self.trunk = _Tokens()
        self.head = _Whole(model)
        if isinstance(spec, FullSpec):
            self.adapters = FullParameters(model, spec)
        else:
            self.adapters = Adapters(blocks[len(blocks) - spec.of(len(blocks)) :], spec)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


class FullModel(SplitModel):
    """A split model whose trunk hands tokens on, since the embeddings move too; the head keeps keys and values.

    Errors: `UnknownLayout` for a model that `SplitModel` cannot split.
    """

    def __init__(self, model: PreTrainedModel, spec: FullSpec) -> None:
        self.vocabulary = vocabulary_of(model)
        self.trunk = _Tokens()
        self.head = _FromTokens(model, 0, depth_of(model), closing=True)
        self.output: Any = model.get_output_embeddings()
        self.adapters = FullParameters(model, spec)


class _FromTokens(Stage):
    """All blocks, from (rows, tokens, 1) token ids to hidden states."""

    def through(
        self,
        cache: DynamicCache,
        x: Tensor,
        *,
        padding: Tensor | None = None,
        prompts: State | None = None,
    ) -> Tensor:
        return super().through(cache, x[:, :, 0], padding=padding, prompts=prompts)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.body(input_ids=hidden[:, :, 0], use_cache=False).last_hidden_state


class _Tokens(Stage):
    """A trunk of no layers: its output (rows, tokens, 1) and its state are the token ids themselves."""

    def __init__(self) -> None:
        self.blocks = nn.ModuleList()

    def through(
        self,
        cache: DynamicCache,
        x: Tensor,
        *,
        padding: Tensor | None = None,
        prompts: State | None = None,
    ) -> Tensor:
        return x[:, :, None]


class _Whole(Stage):
    """A head that is the whole model: (rows, tokens, 1) token ids -> (rows, tokens, V) logits."""

    continues = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.body = model
        self.blocks = blocks_of(model)

    def through(
        self,
        cache: DynamicCache,
        x: Tensor,
        *,
        padding: Tensor | None = None,
        prompts: State | None = None,
    ) -> Tensor:
        """As in `Stage`; the cache, in place of keys and values, holds all tokens so far (rows, 1, tokens, 1)."""
        so_far, _ = cache.update(x[:, None], x[:, None], 0)
        seen = {} if padding is None else seen_by(padding, 0, so_far.shape[2])
        return self.body(input_ids=so_far[:, 0, :, 0], use_cache=False, **seen).logits[:, -x.shape[1] :]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.body(input_ids=hidden[:, :, 0], use_cache=False).logits


def open_model(model: PreTrainedModel, spec: AdapterSpec | FullSpec) -> SplitModel:
    """The model split where its layout is known and the two halves give its own logits; else the plain path.

    Errors: Refusal where neither can be: the model keeps its blocks in no list, or has no linear maps there.
    """
    try:
        split = FullModel(model, spec) if isinstance(spec, FullSpec) else SplitModel(model, spec)
    except UnknownLayout as error:
        return PlainModel(model, spec, f"{error} Until then every token costs a whole forward pass.")
    # Some models do more between the last layer and the logits (a cap, a scale) than a split model knows of, or more in
    # their attention than can be shared.
    if (gap := _gap(split, model)) > LIMIT:
        split.trunk.unshare()
        split.head.unshare()
        gap = _gap(split, model)
    if gap <= LIMIT:
        return split
    return PlainModel(
        model,
        spec,
        f"model type {model.config.model_type!r}: logits of the split model differ from its own by {gap:.2g} of the "
        "largest; it is run whole, so that every token costs a whole forward pass.",
    )


@torch.no_grad()
def _gap(split: SplitModel, model: PreTrainedModel) -> float:
    """How far the second of two tokens' logits are from the model's own, of the largest: read together, and, where rows
    share a prompt, one token behind a prompt of one."""
    tokens = torch.arange(2, device=model.device)[None] % split.vocabulary
    own = model(input_ids=tokens, use_cache=False).logits[:, -1]
    whole = step = tokens
    for stage in (split.trunk, split.head):
        if stage.shares:
            _, past = stage.run(whole[:, :1])
            growing = Growing(stage, past, 1)
            growing.select(torch.zeros(1, dtype=torch.long, device=model.device))
            try:
                step = growing.run(step[:, -1:])
            except RuntimeError:  # keys are not held in the form in which they are attended to
                return math.inf
        whole, _ = stage.run(whole)
        step = step if stage.shares else whole
    gaps = [(split.logits(x[:, -1]) - own).abs().max() for x in (whole, step)]
    largest = own.abs().max().clamp(min=torch.finfo(own.dtype).tiny)
    return float(torch.stack(gaps).max() / largest)


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """The model's list of blocks: the first list as long as its configuration says it has layers.

    Errors: Refusal where there is none.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise Refusal(
        f"model type {model.config.model_type!r} keeps its {depth} layers in no torch.nn.ModuleList; "
        "use another model"
    )


@torch.no_grad()
def generate(
    split: SplitModel,
    model: PreTrainedModel,
    prompt: Prompt,
    factors: Factors | None,
    rows: Tensor,
    *,
    max_tokens: int,
    end_tokens: Sequence[int],
) -> Rollouts:
    """One response per row by transformers' own `generate`, at temperature 1 over the full vocabulary.

    Draws come from torch's global generator. `hidden` is filled in for the split model that is given, so that
    the result may be scored like any other.
    Arguments:
        split: whose adapters `model` carries.
        rows, end_tokens: as in `llm_bridge.rollouts.rollouts.sample`.
    """
    whole = prompt.tokens.expand(len(rows), -1)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=max_tokens,
        eos_token_id=list(end_tokens), pad_token_id=end_tokens[0],
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    with split.adapters.use(factors, rows):
        seen = torch.ones_like(whole)
        out: Any = model.generate(input_ids=whole, attention_mask=seen, generation_config=config)  # pyright: ignore[reportCallIssue]
    drawn = out.sequences[:, whole.shape[1] :]
    steps = [z.double().log_softmax(-1).gather(1, drawn[:, t, None]) for t, z in enumerate(out.logits)]
    logs, ids = torch.cat(steps, dim=1).cpu().numpy(), drawn.cpu().numpy()
    # A response goes up to and with its first end token; after it `generate` pads, with a token like any other.
    ends = np.isin(ids, list(end_tokens))
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, ids.shape[1])
    real = np.arange(ids.shape[1])[None] < lengths[:, None]
    tokens, logprobs = np.full((len(rows), max_tokens), -1, dtype=np.int64), np.zeros((len(rows), max_tokens))
    tokens[:, : ids.shape[1]], logprobs[:, : ids.shape[1]] = np.where(real, ids, -1), np.where(real, logs, 0)
    hidden = read_responses(split, prompt, torch.from_numpy(tokens).to(whole.device))
    return Rollouts(tokens, logprobs, lengths, np.asarray(ends.any(axis=1)), hidden)
