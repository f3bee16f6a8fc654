"""Attention of rows that go on from a shared prompt: keys and values of it are read once for all, copied for none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BEHIND_PROMPT = "behind_prompt"
"""The name under which transformers finds `attend`."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prompts: list[tuple[Tensor, Tensor]] | None = None,
    scaling: float,
    **rest: Any,
) -> tuple[Tensor, None]:
    """softmax(q [K_prompt, K]^T scale) [V_prompt, V] for one new token per row; without `prompts`, PyTorch's attention.

    A prompt that all rows share is one matrix product of as many rows, and not as many products of one.

    Arguments:
        module: the block's attention, which knows its `layer_idx`.
        query: (rows, heads, 1, size).
        key, value: (rows, groups, tokens, size), what each row has behind its prompt; heads of a group share them.
        attention_mask: (rows, 1, 1, prompt + tokens), true where attended to; None is everywhere.
        prompts: keys and values of the prompt per block, (1 or rows, groups, prompt, size).
        scaling: of the scores.
        rest: what PyTorch's attention is given; with `prompts` nothing of it is looked at.
    Returns: (rows, 1, heads, size of a value), and no weights.
    Valid when: no dropout, cap or bias of the scores, and numbers of float32 at least, as scores are rounded to them.
    """
    if prompts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    first, first_values = prompts[module.layer_idx]  # pyright: ignore[reportArgumentType, reportCallIssue]
    rows, heads, _, size = query.shape
    query = query.reshape(rows, key.shape[1], -1, size)
    scores = torch.cat([_each(query, first.mT), query @ key.mT], dim=-1) * scaling
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    shares = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value)
    seen = first.shape[2]
    mixed = _each(shares[..., :seen], first_values) + shares[..., seen:] @ value
    return mixed.reshape(rows, 1, heads, -1), None


def _each(x: Tensor, shared: Tensor) -> Tensor:
    """x (rows, groups, heads, m) @ shared (1 or rows, groups, m, n)."""
    if not len(shared) == 1 < len(x):
        return x @ shared
    rows, groups, heads, m = x.shape
    # `@` would copy what is shared for every row.
    flat = x.transpose(0, 1).reshape(groups, rows * heads, m) @ shared[0]
    return flat.view(groups, rows, heads, -1).transpose(0, 1)


AttentionInterface.register(BEHIND_PROMPT, attend)
AttentionMaskInterface.register(BEHIND_PROMPT, sdpa_mask)
