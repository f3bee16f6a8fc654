"""Sampling and scoring: the split, adapted, prefix-sharing path against the plain model."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from llm_bridge.models.language_model import LanguageModel
from llm_bridge.network.adapters import Factors
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.survey import PROBE_STREAM, SCREEN_STREAM
from llm_bridge.rollouts.rollouts import Prompt, draw, open_prompt, read_prompt, sample, score, uniforms
from tests.llm_bridge.conftest import shaken
from theory.refusal import Refusal

END = (12,)


def rolled(split: SplitModel, prompt: Prompt, factors: Factors, rows: torch.Tensor, seed: int = 0):
    draws = np.stack([uniforms(seed, int(r), 0, 0, i, 3) for i, r in enumerate(rows)])
    opening = open_prompt(split, prompt, factors, torch.arange(len(next(iter(factors.values()))[0])))
    return sample(split, prompt, opening, factors, rows, draws, [END])


def plain_logprobs(model: LanguageModel, split: SplitModel, factors: Factors, replica: int, prompt, tokens):
    """Full forward pass of a copy of the model with B A added to its weights: no split, no cache, no adapters."""
    merged = copy.deepcopy(model.model)
    first = len(merged.model.layers) - 1
    for name, (down, up) in factors.items():
        block, _, path = name.partition(".")
        linear = merged.model.layers[first + int(block)].get_submodule(path)
        scale = split.adapters.spec.scale / split.adapters.spec.rank
        linear.weight.data += scale * up[replica] @ down[replica]
    ids = torch.cat([prompt.tokens[0], torch.tensor(tokens)])[None]
    with torch.no_grad():
        logs = merged(ids).logits[0].log_softmax(-1)
    at = torch.arange(len(tokens)) + prompt.tokens.shape[1] - 1
    return logs[at, torch.tensor(tokens)].numpy()


def test_sampler_scorer_and_plain_model_agree(tiny, split, prompt) -> None:
    factors, rows = shaken(split, 3), torch.arange(3).repeat_interleave(5)
    got = rolled(split, prompt, factors, rows)
    scored = score(split, prompt, factors, rows, got.hidden, torch.from_numpy(got.tokens)).detach().numpy()
    np.testing.assert_allclose(scored * got.mask, got.logprobs * got.mask, atol=1e-10)
    for row, length, logs, replica in zip(got.tokens, got.lengths, got.logprobs, rows, strict=True):
        plain = plain_logprobs(tiny, split, factors, int(replica), prompt, row[:length].tolist())
        np.testing.assert_allclose(logs[:length], plain, atol=1e-9)


def test_base_adapters_leave_the_model_alone(tiny, split, prompt) -> None:
    got = rolled(split, prompt, split.adapters.fresh(1), torch.zeros(8, dtype=torch.long))
    for row, length, logs in zip(got.tokens, got.lengths, got.logprobs, strict=True):
        ids = torch.cat([prompt.tokens[0], torch.from_numpy(row[:length])])[None]
        with torch.no_grad():
            plain = tiny.model(ids).logits[0].log_softmax(-1)
        at = torch.arange(int(length)) + prompt.tokens.shape[1] - 1
        np.testing.assert_allclose(logs[:length], plain[at, row[:length]].numpy(), atol=1e-9)


def test_a_row_does_not_depend_on_its_batch(split, prompt) -> None:
    factors = shaken(split, 4)
    whole = rolled(split, prompt, factors, torch.arange(4))
    for s in range(4):
        own = {name: (a[s : s + 1], b[s : s + 1]) for name, (a, b) in factors.items()}
        draws = uniforms(0, s, 0, 0, s, 3)[None]
        alone = sample(
            split,
            prompt,
            open_prompt(split, prompt, own, torch.arange(1)),
            own,
            torch.zeros(1, dtype=torch.long),
            draws,
            [END],
        )
        np.testing.assert_array_equal(alone.tokens[0], whole.tokens[s])


def test_frequencies_follow_the_model() -> None:
    """Chi-square over 20,000 draws at a fixed key; false-alarm rate .001. Masses down to 1e-6 included."""
    from scipy import stats

    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.049, 0.000999, 1e-6]], dtype=torch.float64))
    u = torch.from_numpy(np.random.default_rng(0).random(20_000))
    token, logs = draw(logits, torch.zeros(20_000, dtype=torch.long), u)
    p = logits[0].exp().numpy()
    counts = np.bincount(token.numpy(), minlength=6)

    def pooled(x: np.ndarray) -> np.ndarray:
        return np.array([*x[:4], x[4:].sum()])

    assert stats.chisquare(pooled(counts), 20_000 * pooled(p) / p.sum()).pvalue > 0.001
    np.testing.assert_allclose(logs.numpy(), np.log(p / p.sum())[token.numpy()], atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "slack"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-6)]
)
@pytest.mark.parametrize("vocabulary", [3, 256, 1000])
def test_a_draw_is_the_inverse_of_the_cdf(dtype: torch.dtype, slack: float, vocabulary: int) -> None:
    """Of the exact softmax of the logits as they are, for vocabularies below, at and between whole blocks."""
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(5, vocabulary, generator=generator, dtype=torch.float64)).to(dtype)
    rows = torch.arange(5).repeat(200)
    u = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    token, logs = draw(logits, rows, u)
    exact = logits.double().log_softmax(-1)
    np.testing.assert_allclose(logs, exact[rows, token], atol=2 * slack)
    upper = exact.exp().cumsum(-1)[rows, token]
    assert ((upper - exact[rows, token].exp() - slack <= u) & (u <= upper + slack)).all()


NAMES = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1), *[st.integers(0, 2**40)] * 3)


@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
@example([(0, PROBE_STREAM, 0, 0, 0), (0, SCREEN_STREAM, 0, 0, 0)])
@example([(2**62, PROBE_STREAM, 0, 0, 0), (2**62 + 1, PROBE_STREAM, 0, 0, 0)])
def test_streams_of_different_names_differ(names: list[tuple[int, ...]]) -> None:
    first, second = (uniforms(*name, 4) for name in names)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, uniforms(*names[0], 4))


def test_streams_are_uniform_across_replicas_and_rounds() -> None:
    """The first number of 20,000 neighbouring streams, Kolmogorov-Smirnov at level .001; and of the probe."""
    from scipy import stats

    grid = [uniforms(0, s, t, 0, 0, 1)[0] for s, t in itertools.product(range(200), range(100))]
    probe = [uniforms(0, PROBE_STREAM, 0, 0, i, 1)[0] for i in range(5000)]
    assert stats.kstest(grid, "uniform").pvalue > 0.001
    assert stats.kstest(probe, "uniform").pvalue > 0.001


def test_blocks_beyond_the_model_are_an_error_and_all_are_all(tiny) -> None:
    with pytest.raises(
        ValueError, match=r"adapter.blocks is 3, but the model has 2 blocks; .*--adapter-blocks all"
    ):
        SplitModel(tiny.model, AdapterSpec(rank=2, blocks=3))
    split = SplitModel(tiny.model, AdapterSpec(rank=2, blocks="all"))
    assert len(split.trunk.blocks) == 0
    prompt = read_prompt(split, tiny.encode_prompt("3+4="))
    got = rolled(split, prompt, split.adapters.fresh(1), torch.zeros(3, dtype=torch.long))
    assert np.isfinite(got.logprobs).all()


def test_a_model_of_another_layout_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16))
    with pytest.raises(Refusal, match="Llama layout"):
        SplitModel(model, AdapterSpec())
