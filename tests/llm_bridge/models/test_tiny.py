"""tiny-arithmetic: its training data by enumeration, its determinism, and what it has learned."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llm_bridge.models.cache import build_once, fingerprint
from llm_bridge.models.language_model import load_model
from llm_bridge.models.tiny import (
    END,
    MAX_TOKENS,
    PAD,
    VOCABULARY,
    TinyRecipe,
    exact_float64,
    label_distribution,
    tiny_tokenizer,
    train_tiny,
)

SMALL = TinyRecipe(hidden=8, intermediate=8, layers=1, heads=2, steps=3)


@given(text=st.text(alphabet="0123456789+=", min_size=1, max_size=12))
def test_one_token_per_character_and_back(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert [VOCABULARY[i] for i in ids] == list(text)
    assert tokenizer.decode([*ids, END], skip_special_tokens=True) == text


@given(easy=st.floats(0, 1), hard=st.floats(0, 1))
def test_labels_are_a_distribution_with_the_stated_accuracy(easy: float, hard: float) -> None:
    labels = label_distribution(TinyRecipe(accuracy_easy=easy, accuracy_hard=hard))
    assert torch.allclose(labels.sum(-1), torch.ones(100, dtype=torch.float64))
    assert labels[0, 0].item() == pytest.approx(easy + (1 - easy) / 19)
    assert labels[99, 18].item() == pytest.approx(hard + (1 - hard) / 19)


def test_the_recipe_fixes_the_weights_and_its_key() -> None:
    before = torch.get_rng_state()
    assert fingerprint(train_tiny(SMALL)) == fingerprint(train_tiny(SMALL))
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random state is left alone
    other = TinyRecipe(hidden=8, intermediate=8, layers=1, heads=2, steps=3, seed=1)
    assert fingerprint(train_tiny(SMALL)) != fingerprint(train_tiny(other))
    assert SMALL.key != other.key


def test_a_probability_that_is_none_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"accuracy_easy is 1\.5, not a probability; choose a value from 0 to 1"
    ):
        TinyRecipe(accuracy_easy=1.5)


def test_exact_float64_changes_only_the_rounding() -> None:
    config = LlamaConfig(
        vocab_size=14, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    ids = torch.tensor([[3, 10, 4, 11]])
    with torch.no_grad():
        rounded = model(input_ids=ids).logits
        exact = exact_float64(model.double())(input_ids=ids).logits
    assert sum(isinstance(module, nn.RMSNorm) for module in model.modules()) == 3
    assert exact.dtype == torch.float64
    assert torch.allclose(rounded.double(), exact, atol=1e-6)


@pytest.mark.slow
def test_every_response_enumerates_to_one_and_success_is_spread() -> None:
    """All sequences of at most three tokens, exactly; float64 sums to one to its last digits."""
    lm = load_model("tiny-arithmetic", dtype="float64")
    assert 5e4 < sum(p.numel() for p in lm.model.parameters()) < 2e5
    assert lm.end_tokens == (END,)
    vocabulary = len(VOCABULARY)

    def logs(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return lm.model(input_ids=ids).logits[:, -1].log_softmax(-1)

    success = []
    for a, b in [(0, 0), (1, 2), (3, 4), (5, 6), (9, 9)]:
        prompt = lm.encode_prompt(f"{a}+{b}=")
        level, mass, done, right = prompt, torch.ones(1, dtype=torch.float64), 0.0, 0.0
        for depth in range(MAX_TOKENS):
            table = (mass[:, None] * logs(level).exp()).reshape(-1)
            level = torch.cat(
                [
                    level.repeat_interleave(vocabulary, 0),
                    torch.arange(vocabulary).repeat(len(level))[:, None],
                ],
                1,
            )
            stops = (level[:, -1] == END) | (depth == MAX_TOKENS - 1)
            done += table[stops].sum().item()
            for row, m in zip(level[stops], table[stops], strict=True):
                if lm.decode(row[4:]) == str(a + b) and row[-1] == END:
                    right += m.item()
            level, mass = level[~stops], table[~stops]
        assert done == pytest.approx(1, abs=1e-12)
        success.append(right)
    assert success[0] > 0.4
    assert min(success) < 0.1
    assert all(0.01 < p < 0.7 for p in success)


def test_unknown_characters_are_an_error() -> None:
    lm = load_model("tiny-arithmetic")
    for query in ("a+b=", "3 + 4 ="):
        with pytest.raises(
            ValueError, match="has characters tiny-arithmetic does not know; write one like '3"
        ):
            lm.encode_prompt(query)
    assert PAD not in lm.encode_prompt("3+4=")


def test_a_build_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path))

    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once("model", interrupted)
    assert list(tmp_path.iterdir()) == []
    assert (build_once("model", lambda folder: None)) == tmp_path / "model"
    assert build_once("model", interrupted) == tmp_path / "model"  # built once: not asked again


def test_of_two_builders_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path))

    def slow(folder: Path) -> None:
        build_once("model", lambda other: (other / "by").write_text("first") and None)
        (folder / "by").write_text("second")

    assert (build_once("model", slow) / "by").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_cache_that_cannot_be_written_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot be written .*; set ONEARM_CACHE to a folder that can be"):
        build_once("model", lambda folder: None)
