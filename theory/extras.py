"""Which extra of `onearm` installs a package that is missing: said in one place, as one refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from theory.refusal import Refusal

EXTRAS = {
    "sim": ("jax", "jaxlib", "jinja2", "matplotlib", "optax", "pyarrow", "safetensors"),
    "llm": ("gguf", "huggingface_hub", "math_verify", "scoringrules", "tokenizers", "torch", "transformers"),
    "data": ("datasets",),
    "tasks": ("reasoning_gym",),
    "trl": ("peft", "trl"),
}
"""Extra -> the import names of what it installs; an extra that includes others names only what it adds."""


def missing(error: ImportError) -> Refusal | None:
    """The refusal that says which extra installs the module that was not found; None where no extra does.

    A module of our own, one that no extra holds, and one that is there but cannot be imported are bugs, whose
    errors keep their traceback.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return Refusal(f"{name} is not installed; {command(extra)}")
    return None


@contextmanager
def refusing() -> Iterator[None]:
    """Imports within become refusals where an extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        refusal = missing(error)
        if refusal is None:
            raise
        raise refusal from error


def command(extra: str) -> str:
    """What to type to install an extra."""
    return f"pip install 'onearm[{extra}]'"
