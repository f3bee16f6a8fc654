"""Language models by name: three that need no hub, and any causal LM by hub name or local path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_bridge.models.cache import fingerprint, quiet
from llm_bridge.models.tiny import PAD, TinyRecipe, exact_float64, tiny_folder
from llm_bridge.models.wheels import GEMMA3, SMOLLM2, Wheel
from theory.refusal import Refusal

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}
TINY = "tiny-arithmetic"


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model with its tokenizer.

    Arguments:
        model: in eval mode; no parameter asks for a gradient.
        context: longest prompt plus response, in tokens.
        fingerprint: short sha256 over the stored weights, the same for every device and dtype.
        end_tokens: ids that end a response.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    end_tokens: tuple[int, ...]

    def encode_prompt(self, query: str, max_tokens: int = 1) -> Tensor:
        """Token ids (1, P) of the query: in the chat template if the tokenizer has one, else as it stands.

        Errors: Refusal where the query has no tokens, holds text the tokenizer does not know, or leaves no
        room for a response of `max_tokens` in the context.
        """
        with quiet():
            if self.tokenizer.chat_template:
                turn = [{"role": "user", "content": query}]
                encoded: Any = self.tokenizer.apply_chat_template(
                    turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
                )
            else:
                encoded = self.tokenizer(query, return_tensors="pt")
        tokens: Tensor = encoded["input_ids"].to(self.device, torch.long)
        length = tokens.shape[1]
        if length == 0:
            raise Refusal(f"query {query!r} has no tokens; write a question")
        if self.name == TINY and PAD in tokens:
            raise Refusal(f"query {query!r} has characters {self.name} does not know; write one like '3+4='")
        if length >= self.context:
            raise Refusal(
                f"query has {length} tokens, but the context of {self.name} is {self.context} "
                "for query and response together; shorten the query or choose another model"
            )
        if length + max_tokens > self.context:
            raise Refusal(
                f"the prompt has {length} tokens and max_tokens is {max_tokens}, but the context of {self.name} is "
                f"{self.context}; shorten the query, or set --max-tokens to at most {self.context - length}"
            )
        return tokens

    def ends(self, stop: str | None) -> tuple[int, ...]:
        """Ids that end a response: the model's own, and every token whose text holds the character `stop`.

        Errors: Refusal where no token holds it, and it could never end a response.
        """
        if stop is None:
            return self.end_tokens
        holding = [i for i, text in enumerate(self._texts) if stop in text]
        if not holding:
            raise Refusal(f"stop {stop!r} is in no token of {self.name}; choose another character, or none")
        return tuple(sorted({*self.end_tokens, *holding}))

    @cached_property
    def _texts(self) -> list[str]:
        """The text of every token by itself: a second for a large vocabulary, and asked for by every query."""
        return self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])

    def decode(self, tokens: Tensor | list[int]) -> str:
        """The text of the tokens (T,), without special tokens."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


@dataclass(frozen=True)
class ModelRow:
    """One row of the registry: where the weights come from, which tokens end a response beside eos, and a
    chat template to use in place of the tokenizer's own."""

    summary: str
    locate: Callable[[str, int], str | Path]
    end: tuple[str, ...] = ()
    trained_here: bool = False
    template: str | None = None


def load_model(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    source: str = "auto",
    seed: int = 0,
) -> LanguageModel:
    """The language model called `name`: a name of the registry, a hub name, or a local folder.

    Arguments:
        device: cpu, cuda, mps, or auto (the first of cuda, mps, cpu that is there).
        dtype: float32, float64 or bfloat16; float64 also computes the norms in float64.
        source: where smollm2-135m and gemma3-270m come from: wheel (the default under auto) or hub.
        seed: of the training of tiny-arithmetic; other models have no use for one.
    Errors: Refusal naming the argument and the fix, of a missing wheel the pip command.
    """
    target, number_type = _device(device), _dtype(dtype)
    if target.type == "mps" and number_type is torch.float64:
        raise Refusal("dtype float64 does not exist on device mps; choose dtype float32 or device cpu")
    if source not in ("auto", "wheel", "hub"):
        raise Refusal(f"source {source!r} is unknown; choose auto, wheel or hub")
    row = MODELS.get(name) or ModelRow("", lambda source, seed: _anywhere(name, source))
    if seed and not row.trained_here:
        raise Refusal(f"seed {seed} changes nothing in {name}, which is not trained here; leave it at 0")
    place = row.locate(source, seed)
    with quiet():
        model, tokenizer = _read(name, place)
    if row.template is not None:
        tokenizer.chat_template = row.template
    saved = Path(place) / "fingerprint"
    mark = saved.read_text().strip() if saved.is_file() else fingerprint(model)
    # Parameters alone are cast: rotary frequencies are float32 buffers, and bfloat16 would ruin them.
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(target, number_type)
    if number_type is torch.float64:
        exact_float64(model)
    model.to(target).eval()  # pyright: ignore[reportArgumentType]
    if target.type == "cpu" and number_type is not torch.bfloat16:
        by_columns(model)
    return LanguageModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        context=int(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)),
        device=target,
        dtype=number_type,
        fingerprint=mark,
        end_tokens=_end_tokens(model, tokenizer, row.end),
    )


def by_columns(model: PreTrainedModel) -> None:
    """Store the weights of the linear maps column by column: same values, shapes and results but for rounding.

    A processor multiplies few rows, as a step of sampling has, faster so, in float32. The output map stays row by row:
    with a large vocabulary it is slower by columns, and its weights may be the embeddings, which are read by rows.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            module.weight.data = module.weight.data.T.contiguous().T
    for parameter in model.parameters():
        if parameter.is_contiguous():
            # One that stayed in the mapped file would keep all of the file in memory.
            parameter.data = parameter.data.clone()


def _device(device: str) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, present in there.items() if present))
    if device not in there:
        raise Refusal(f"device {device!r} is unknown; choose cpu, cuda, mps or auto")
    if not there[device]:
        raise Refusal(f"device {device!r} is not available on this machine; choose cpu or auto")
    return torch.device(device)


def _dtype(dtype: str) -> torch.dtype:
    if dtype not in DTYPES:
        raise Refusal(f"dtype {dtype!r} is unknown; choose {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _read(name: str, place: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in its stored dtype, and tokenizer."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Refusal(
            f"model {name!r} cannot be loaded: {reason}\n"
            f"Models that need no hub: {', '.join(MODELS)}. Otherwise give a hub name (owner/model; "
            "the hub must be in reach) or the path of a folder written by save_pretrained."
        ) from error
    return model, tokenizer


def _end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: tuple[str, ...]
) -> tuple[int, ...]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(name) for name in names)]
    return tuple(sorted({int(i) for i in ids if i is not None}))


def _anywhere(name: str, source: str) -> str | Path:
    """A local folder where there is one, else a hub name."""
    if source == "wheel":
        raise Refusal(f"model {name!r} has no wheel; leave source at auto")
    return Path(name) if Path(name).is_dir() else name


def _tiny(source: str, seed: int) -> Path:
    if source != "auto":
        raise Refusal(f"source {source!r}: tiny-arithmetic is trained on this machine; leave source at auto")
    return tiny_folder(TinyRecipe(seed=seed))


def _from_wheel(wheel: Wheel) -> Callable[[str, int], str | Path]:
    return lambda source, seed: wheel.hub if source == "hub" else wheel.folder()


BARE_TURN = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's template without the system message that it adds by itself, which would double a short prompt."""

MODELS: dict[str, ModelRow] = {
    TINY: ModelRow("10^5 parameters, trained here, every response enumerable", _tiny, trained_here=True),
    SMOLLM2.name: ModelRow(
        "SmolLM2-135M-Instruct, 4-bit weights",
        _from_wheel(SMOLLM2),
        ("<|im_end|>", "<|endoftext|>"),
        template=BARE_TURN,
    ),
    GEMMA3.name: ModelRow(
        "Gemma 3 270M, 4-bit weights: a base model, which continues a text ('3 + 4 = 7\\n5 + 4 =')",
        _from_wheel(GEMMA3),
    ),
}
