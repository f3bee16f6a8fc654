"""The split model against the model's own forward, for every layout it is said to hold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from llm_bridge.network.plain import PlainModel
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.rollouts import (
    open_prompt,
    opened_together,
    read_prompt,
    read_responses,
    response_logits,
    sample,
    score,
    side_by_side,
    uniforms,
)
from tests.llm_bridge.conftest import shaken

VOCABULARY, PROMPT, TOKENS, WINDOW = 40, 9, 8, 5
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
LAYOUTS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen2-sliding": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, **SLIDING, use_sliding_window=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"})),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **SLIDING, query_pre_attn_scalar=4)),
}


def random_model(layout: str) -> PreTrainedModel:
    """Weights large enough that attention is far from uniform, so that a wrong window is seen."""
    torch.manual_seed(0)
    model = LAYOUTS[layout]().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.normal_(std=0.4)
    return model


def own_logprobs(model: PreTrainedModel, prompt: torch.Tensor, tokens: torch.Tensor) -> np.ndarray:
    """(R, T) log probabilities from the model's own forward over the whole sequence, without a cache."""
    whole = torch.cat([prompt.expand(len(tokens), -1), tokens], dim=1)
    with torch.no_grad():
        logs = model(input_ids=whole, use_cache=False).logits.log_softmax(-1)
    return logs[:, prompt.shape[1] - 1 : -1].gather(2, tokens[:, :, None])[:, :, 0].numpy()


@pytest.mark.parametrize("blocks", [1, 3, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sampler_scorer_and_own_forward_agree(layout: str, blocks: int) -> None:
    """float32, adapters off the base model; prompt and response are each longer than the window."""
    model = random_model(layout)
    split = SplitModel(copy.deepcopy(model), AdapterSpec(rank=2, blocks=blocks))
    factors, rows = shaken(split, 2, size=0.1), torch.tensor([0, 0, 1])
    prompt = read_prompt(split, torch.arange(3, 3 + PROMPT)[None])
    draws = np.stack([uniforms(0, 0, 0, 0, i, TOKENS) for i in range(len(rows))])
    opening = open_prompt(split, prompt, factors, torch.arange(2))
    got = sample(split, prompt, opening, factors, rows, draws, [()])
    tokens = torch.from_numpy(got.tokens)
    assert tokens.shape == (3, TOKENS)

    scored = score(split, prompt, factors, rows, got.hidden, tokens).detach().numpy()
    np.testing.assert_allclose(scored, got.logprobs, atol=1e-4)
    reread = read_responses(split, prompt, tokens)
    np.testing.assert_allclose(reread.numpy(), got.hidden.numpy(), atol=1e-4)
    for replica in (0, 1):
        merged, mine = copy.deepcopy(model), rows == replica
        blocks_of_head = merged.base_model.layers[4 - blocks :]  # pyright: ignore[reportIndexIssue]
        for name, (down, up) in factors.items():
            block, _, path = name.partition(".")
            linear = blocks_of_head[int(block)].get_submodule(path)
            linear.weight.data += split.adapters.spec.scale / 2 * up[replica] @ down[replica]
        own = own_logprobs(merged, prompt.tokens, tokens[mine])
        np.testing.assert_allclose(got.logprobs[mine.numpy()], own, atol=1e-4)


@pytest.mark.parametrize("path", [SplitModel, PlainModel])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_beside_one_another_are_each_alone(layout: str, path: type[SplitModel]) -> None:
    """Two replicas, three prompts of different lengths and end tokens, in one padded batch; float32."""
    split = path(random_model(layout), AdapterSpec(rank=2, blocks=3))
    factors, two = shaken(split, 2, size=0.1), torch.arange(2)
    prompts = [read_prompt(split, torch.arange(3, 3 + length)[None]) for length in (PROMPT, 2, PROMPT - 1)]
    openings = [open_prompt(split, prompt, factors, two) for prompt in prompts]
    entries, ends = torch.tensor([5, 0, 3, 1, 4, 2, 4]), [range(10), (), range(30, VOCABULARY)]
    draws = np.stack([uniforms(0, 0, 0, 0, i, TOKENS) for i in range(len(entries))])
    got = sample(
        split, side_by_side(prompts), opened_together(openings), factors, entries, draws, ends
    )  # fmt: skip
    for i, entry in enumerate(entries):
        q = int(entry) // 2
        alone = sample(split, prompts[q], openings[q], factors, entry[None] % 2, draws[i : i + 1], [ends[q]])
        np.testing.assert_array_equal(got.tokens[i], alone.tokens[0])
        np.testing.assert_allclose(got.logprobs[i], alone.logprobs[0], atol=1e-4)
        np.testing.assert_allclose(got.hidden[i].numpy(), alone.hidden[0].numpy(), atol=1e-4)
        assert (got.lengths[i], got.ended[i]) == (alone.lengths[0], alone.ended[0])
    assert set(got.ended) == {True, False}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_read_once_for_all_responses_of_a_replica(layout: str) -> None:
    """Logits and gradient as where every response reads it again; float32, prompt and response beyond the window."""
    split = SplitModel(random_model(layout), AdapterSpec(rank=2, blocks=3))
    prompt, rows = read_prompt(split, torch.arange(3, 3 + PROMPT)[None]), torch.tensor([1, 0, 1, 1])
    tokens = torch.tensor(
        [range(10, 10 + TOKENS), range(20, 20 + TOKENS), [5, *[-1] * 7], [7, 8, 9, *[-1] * 5]]
    )
    hidden = read_responses(split, prompt, tokens)
    found = []
    for continues in (True, False):
        split.head.continues = continues
        factors = shaken(split, 2, size=0.1)
        leaves = split.adapters.trainable(factors)
        logits = response_logits(split, prompt, factors, rows, hidden, tokens)
        found.append((logits, torch.autograd.grad(logits.sin().sum(), leaves)))
    (once, its), (again, others) = found
    assert once.shape == (2 * TOKENS + 4, VOCABULARY)
    np.testing.assert_allclose(once.detach(), again.detach(), atol=1e-4)
    for ours, theirs in zip(its, others, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize("layout", ["gemma3", "qwen2-sliding"])
def test_the_window_matters_to_these_models(layout: str) -> None:
    """Else the agreement above could not see a window that is lost."""
    model = random_model(layout)
    wide = copy.deepcopy(model)
    for module in wide.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = 1000  # pyright: ignore[reportAttributeAccessIssue]
    wide.config.sliding_window = 1000
    prompt, tokens = torch.arange(3, 3 + PROMPT)[None], torch.arange(20, 20 + TOKENS)[None]
    assert np.abs(own_logprobs(model, prompt, tokens) - own_logprobs(wide, prompt, tokens)).max() > 0.01
