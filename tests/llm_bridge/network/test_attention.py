"""Attention behind a shared prompt: what PyTorch's attention gives of keys and values written out for every row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llm_bridge.network.attention import attend

SIZES = st.integers(1, 4)


def block(index: int) -> nn.Module:
    """A module that knows which block it is of, as transformers' attention does."""
    module: Any = nn.Identity()
    module.layer_idx = index
    return module


@given(data=st.data(), sizes=st.tuples(*[SIZES] * 7), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_it_is_attention_over_prompt_and_own_tokens(
    data: st.DataObject, sizes: tuple[int, ...], seed: int
) -> None:
    """One prompt for all rows or one for each, with and without tokens that are not attended to."""
    torch.manual_seed(seed)
    rows, groups, each, size, wide, prompt, own = sizes
    entries = data.draw(st.sampled_from([1, rows]))
    module = block(1)
    query = torch.randn(rows, groups * each, 1, size, dtype=torch.float64)
    key, value = (torch.randn(rows, groups, own, n, dtype=torch.float64) for n in (size, wide))
    first, values = (torch.randn(entries, groups, prompt, n, dtype=torch.float64) for n in (size, wide))
    seen = torch.rand(rows, 1, 1, prompt + own) < 0.7
    seen[..., -1] = True  # a token attends to itself
    mask = data.draw(st.sampled_from([None, seen]))
    got, _ = attend(module, query, key, value, mask, prompts=[(key, value), (first, values)], scaling=0.3)
    whole = [
        torch.cat([a.expand(rows, -1, -1, -1), b], dim=2).repeat_interleave(each, dim=1)
        for a, b in ((first, key), (values, value))
    ]
    want = F.scaled_dot_product_attention(query, *whole, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(got, want.transpose(1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_keeps_the_number_type(dtype: torch.dtype) -> None:
    module = block(0)
    query, key, value = torch.randn(3, 2, 1, 1, 4, dtype=dtype)
    got, weights = attend(module, query, key, value, None, prompts=[(key[:1], value[:1])], scaling=0.5)
    assert (got.dtype, weights) == (dtype, None)
