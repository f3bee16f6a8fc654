"""The plain path and the split model hold each other: same draws, same log probabilities, same gradients."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import (
    AttentionInterface,
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.models.wheels import GEMMA3, SMOLLM2, Wheel
from llm_bridge.network.adapters import Factors
from llm_bridge.network.attention import BEHIND_PROMPT
from llm_bridge.network.plain import PlainModel, blocks_of, generate, open_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.measure import measure
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.queries.query import Query
from llm_bridge.rewards.verifiers import verify
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import open_prompt, read_prompt, read_responses, sample, score, uniforms
from llm_bridge.train import Trainer
from tests.llm_bridge.conftest import shaken
from tests.llm_bridge.models.test_wheels import installed
from tests.llm_bridge.network.test_layouts import LAYOUTS, random_model
from theory.rules.dialects import preset

SPEC = AdapterSpec(rank=2, blocks=2)
PROMPT, TOKENS, END = 9, 8, (2, 3)
OTHERS = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(n_layer=3, n_head=2, n_embd=8, vocab_size=40, n_positions=64, bos_token_id=1, eos_token_id=2)
    ),
    "gpt-neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(
            num_hidden_layers=3, num_attention_heads=2, hidden_size=8, intermediate_size=16, vocab_size=40,
            max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        )
    ),
}  # fmt: skip
"""Layouts that the split model does not know: GPT-2 in blocks `h` of `Conv1D`, GPT-NeoX without `norm`."""


def random_other(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = OTHERS[name]().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() > 1:
            parameter.normal_(std=0.4)
    return model


def rolled(
    split: SplitModel, tokens: torch.Tensor, factors: Factors | None, rows: torch.Tensor, limit: int, end=END
):
    prompt = read_prompt(split, tokens)
    draws = np.stack([uniforms(0, 0, 0, 0, i, limit) for i in range(len(rows))])
    opening = open_prompt(split, prompt, factors, torch.arange(int(rows.max()) + 1))
    return prompt, sample(split, prompt, opening, factors, rows, draws, [end])


def gradients(split: SplitModel, prompt, factors: Factors, rows, tokens, mask) -> torch.Tensor:
    """Gradient of a weighted sum of log probabilities: a weight of its own on every token."""
    leaves = split.adapters.trainable(
        {name: (down.clone(), up.detach().clone()) for name, (down, up) in factors.items()}
    )
    names = list(factors)
    own = {name: (factors[name][0], leaf) for name, leaf in zip(names, leaves, strict=True)}
    logs = score(split, prompt, own, rows, read_responses(split, prompt, tokens), tokens)
    weight = torch.linspace(-1, 2, logs.numel()).reshape(logs.shape) * mask
    grads = torch.autograd.grad((weight.to(logs) * logs).sum(), leaves)
    return torch.cat([g.flatten() for g in grads])


def hold_together(fast: SplitModel, plain: PlainModel, tokens, factors, rows, limit: int, end) -> None:
    prompt, got = rolled(fast, tokens, factors, rows, limit, end)
    whole = read_prompt(plain, tokens)
    ids, mask = torch.from_numpy(got.tokens), got.mask
    logs = score(plain, whole, factors, rows, read_responses(plain, whole, ids), ids).detach().numpy()
    np.testing.assert_allclose(logs * mask, got.logprobs * mask, atol=1e-4)
    a = gradients(fast, prompt, factors, rows, ids, torch.from_numpy(mask))
    b = gradients(plain, whole, factors, rows, ids, torch.from_numpy(mask))
    assert float((a - b).norm()) <= 1e-4 * float(b.norm())
    assert float(b.norm()) > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_and_split_agree_on_every_layout(layout: str) -> None:
    """float32: log probabilities within 1e-4, gradients within 1e-4 relative, adapters off the base model."""
    model = random_model(layout)
    fast, plain = (
        SplitModel(copy.deepcopy(model), SPEC), PlainModel(copy.deepcopy(model), SPEC)
    )  # fmt: skip
    factors, rows = shaken(fast, 2, size=0.1), torch.tensor([0, 0, 1])
    assert shaken(plain, 2, size=0.1).keys() == factors.keys()
    hold_together(fast, plain, torch.arange(3, 3 + PROMPT)[None], factors, rows, TOKENS, END)


def test_plain_and_split_draw_the_same_responses(tiny: LanguageModel, split: SplitModel) -> None:
    """float64 and the same uniforms: token for token, through a sampler without cache, trunk or shared prefixes."""
    plain = PlainModel(copy.deepcopy(tiny.model), split.adapters.spec)
    factors, rows = shaken(split, 3), torch.arange(3).repeat_interleave(20)
    prompt, fast = rolled(split, tiny.encode_prompt("3+4="), factors, rows, 3, (12,))
    _, slow = rolled(plain, tiny.encode_prompt("3+4="), factors, rows, 3, (12,))
    np.testing.assert_array_equal(fast.tokens, slow.tokens)
    np.testing.assert_allclose(fast.logprobs, slow.logprobs, atol=1e-12)
    for i, row in enumerate(rows.tolist()):
        own = {name: (down[row : row + 1], up[row : row + 1]) for name, (down, up) in factors.items()}
        ids, draws = prompt.tokens, uniforms(0, 0, 0, 0, i, 3)
        for t in range(3):
            with torch.no_grad(), plain.adapters.use(own):
                p = plain.head.body(input_ids=ids, use_cache=False).logits[0, -1].softmax(-1)
            token = int(torch.searchsorted(p.cumsum(0), float(draws[t] * p.sum()), right=True))
            assert token == fast.tokens[i, t]
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            if token == 12:
                break


@pytest.mark.parametrize("name", OTHERS)
def test_a_layout_that_cannot_be_split_falls_back_and_says_so(name: str) -> None:
    """Sampler and scorer are one, and the adapter of a replica is W + scale / rank B A in the model's own code."""
    model = random_other(name)
    plain = open_model(copy.deepcopy(model), SPEC)
    assert isinstance(plain, PlainModel)
    assert "whole forward pass" in plain.reason and "\n" not in plain.reason
    factors, rows = shaken(plain, 2, size=0.1), torch.tensor([0, 0, 1])
    prompt, got = rolled(plain, torch.arange(3, 3 + PROMPT)[None], factors, rows, TOKENS)
    ids = torch.from_numpy(got.tokens)
    logs = score(plain, prompt, factors, rows, read_responses(plain, prompt, ids), ids).detach().numpy()
    np.testing.assert_allclose(logs * got.mask, got.logprobs * got.mask, atol=1e-4)
    for replica in (0, 1):
        merged, mine = copy.deepcopy(model), rows == replica
        for key, (down, up) in factors.items():
            block, _, path = key.partition(".")
            linear = blocks_of(merged)[1 + int(block)].get_submodule(path)
            delta = SPEC.scale / SPEC.rank * up[replica] @ down[replica]
            linear.weight.data += delta.T if name == "gpt2" else delta
        whole = torch.cat([prompt.tokens.expand(int(mine.sum()), -1), ids[mine].clamp(min=0)], dim=1)
        with torch.no_grad():
            own = merged(input_ids=whole, use_cache=False).logits.log_softmax(-1)[:, PROMPT - 1 : -1]
        own = own.gather(2, ids[mine].clamp(min=0)[:, :, None])[:, :, 0].numpy()
        kept = got.mask[mine.numpy()]
        np.testing.assert_allclose(got.logprobs[mine.numpy()] * kept, own * kept, atol=1e-4)


def test_a_known_layout_is_split_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not isinstance(open_model(random_model("gemma3"), SPEC), PlainModel)


def test_a_cap_on_the_logits_that_the_split_model_does_not_know_is_found() -> None:
    """Gemma 2 caps its logits after the output map: of the known layout, and yet not to be split."""
    model = random_model("gemma3")
    model.config.final_logit_softcapping = 2.0
    plain = open_model(model, SPEC)
    assert isinstance(plain, PlainModel) and "differ from its own" in plain.reason


def test_a_shared_prompt_that_attention_forgets_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a model which hands its attention function less than it was given."""

    def forgetful(*given: object, prompts: object = None, **rest: object) -> object:
        return sdpa_attention_forward(*given, **rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setitem(AttentionInterface._global_mapping, BEHIND_PROMPT, forgetful)
    check_copies(random_model("llama"))


def test_keys_that_are_held_in_another_form_are_copied() -> None:
    """DeepSeek's latent attention expands what its cache holds."""
    sizes = {
        "vocab_size": 13, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "q_lora_rank": None, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4,
        "v_head_dim": 6, "first_k_dense_replace": 2,
    }  # fmt: skip
    check_copies(DeepseekV2ForCausalLM(DeepseekV2Config(**sizes)).eval().requires_grad_(False))


def check_copies(model: PreTrainedModel) -> None:
    """It is split, its prompts are copied for every row, and a step is that of the model's own forward."""
    split = open_model(model, SPEC)
    assert not isinstance(split, PlainModel)
    assert not split.trunk.shares and not split.head.shares
    prompt, got = rolled(
        split, torch.arange(3, 3 + PROMPT)[None], None, torch.zeros(3, dtype=torch.long), TOKENS
    )
    whole = torch.cat([prompt.tokens.expand(3, -1), torch.from_numpy(got.tokens).clamp(min=0)], dim=1)
    with torch.no_grad():
        own = model(input_ids=whole, use_cache=False).logits.log_softmax(-1)[:, PROMPT - 1 : -1]
    own = own.gather(2, whole[:, PROMPT:, None])[:, :, 0].numpy()
    np.testing.assert_allclose(got.logprobs * got.mask, own * got.mask, atol=1e-4)


def test_trainer_and_probe_run_on_the_plain_path() -> None:
    """On GPT-2: a round moves exactly the replicas that were paid; the probe's p0 is near the exact one (200
    rollouts: a standard error of at most .036, so .15 is more than four)."""
    plain = open_model(random_other("gpt2"), SPEC)

    def paid(tokens: tuple[int, ...]) -> float:
        return float(tokens[0] % 2)

    tokens = torch.arange(3, 3 + PROMPT)[None]
    run = Trainer(
        plain,
        [Question(tokens, paid, tuple(END))],
        preset("minimalist", eta=0.05),
        replicas=6,
        max_tokens=3,
        seed=1,
    )
    turn = run.step()
    moved = [any(bool((up[s] != 0).any()) for _, up in run.factors.values()) for s in range(6)]
    assert moved == [reward > 0 for reward in turn.rewards] and 0 < sum(moved) < 6
    run.step()
    question = Question(tokens, paid, tuple(END))
    spec = ProbeSpec(rollouts=200, cut=2)
    (probe,) = measure(plain, [question], spec, max_tokens=2, seed=0, keep="correct").probes
    with torch.no_grad():
        exact = float(plain.head.body(input_ids=tokens).logits[0, -1].softmax(-1)[1::2].sum())
    assert abs(probe.p0 - exact) < 0.15


def test_transformers_own_generate_draws_from_the_same_distribution(tiny: LanguageModel, split) -> None:
    """Homogeneity of 4,000 responses each, classes of fewer than 10 pooled: chi-square at level .001; and what
    `generate` says of its log probabilities is what the scorer says."""
    model = copy.deepcopy(tiny.model)
    plain = PlainModel(model, split.adapters.spec)
    factors, rows = shaken(plain, 1), torch.zeros(4000, dtype=torch.long)
    prompt, ours = rolled(plain, tiny.encode_prompt("3+4="), factors, rows, 3, (12,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = generate(plain, model, prompt, factors, rows, max_tokens=3, end_tokens=(12,))
    ids = torch.from_numpy(theirs.tokens)
    logs = score(plain, prompt, factors, rows, theirs.hidden, ids).detach().numpy()
    np.testing.assert_allclose(logs * theirs.mask, theirs.logprobs, atol=1e-5)
    kinds: dict[tuple[int, ...], list[int]] = {}
    for column, tokens in enumerate((ours.tokens, theirs.tokens)):
        for row in tokens.tolist():
            kinds.setdefault(tuple(row), [0, 0])[column] += 1
    table = np.array(sorted(kinds.values(), key=sum))
    rare = table.sum(axis=1) < 10
    table = np.vstack([table[~rare], table[rare].sum(axis=0)])
    assert stats.chi2_contingency(table).pvalue > 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wheel", "text", "answer", "limit"),
    [
        (SMOLLM2, "What is 3 times 4? Reply with only the number.", "12", 10),
        (GEMMA3, "3 + 4 = 7\n5 + 4 =", "9", 3),
    ],
    ids=["smollm2", "gemma3"],
)
def test_plain_and_split_agree_on_real_models(wheel: Wheel, text: str, answer: str, limit: int) -> None:
    """float32: 1e-4 in log probability, 1e-4 relative in gradients; and the success of 48 responses by each
    sampler, on draws of their own, is equal by Fisher's exact test of two proportions at level .001."""
    if not installed(wheel):
        pytest.skip(f"the wheels of {wheel.name} are not installed")
    model = load_model(wheel.name, source="wheel")
    fast = SplitModel(copy.deepcopy(model.model), AdapterSpec())
    plain = PlainModel(model.model, AdapterSpec())
    tokens = model.encode_prompt(text)
    hold_together(
        fast, plain, tokens, shaken(fast, 2, size=0.02), torch.tensor([0, 1, 1]), limit, model.end_tokens
    )
    rows = torch.zeros(48, dtype=torch.long)
    _, ours = rolled(fast, tokens, fast.adapters.fresh(1), rows, limit, model.end_tokens)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = read_prompt(plain, tokens)
        theirs = generate(
            plain, model.model, whole, None, rows, max_tokens=limit, end_tokens=model.end_tokens
        )
    query = Query(prompt=text, answer=answer, verifier="last_number")
    paid = [
        sum(verify(query, model.decode(row[row >= 0].tolist())) == 1 for row in rollouts.tokens)
        for rollouts in (ours, theirs)
    ]
    assert min(paid) > 0 and stats.fisher_exact([paid, [48 - n for n in paid]]).pvalue > 0.001
