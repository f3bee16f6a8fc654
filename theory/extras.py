"""Which extra of `onearm` installs a package that is missing: said in one place, as one refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from theory.refusal import Refusal

EXTRAS = {
    "sim": ("jax", "jaxlib", "optax", "pyarrow", "matplotlib", "safetensors", "jinja2"),
    "llm": ("torch", "transformers", "tokenizers", "gguf", "huggingface_hub", "math_verify", "scoringrules"),
    "data": ("datasets",),
    "tasks": ("reasoning_gym",),
    "trl": ("peft", "trl"),
}
"""Extra -> the import names of what it installs; an extra that includes another names only what it adds."""
INCLUDED = {"llm": ("sim",)}


def command(extra: str) -> str:
    """What to type to install an extra."""
    return f"pip install 'onearm[{extra}]'"


def require(extra: str) -> None:
    """Errors: Refusal that names what of an extra, and of those it includes, is not installed. Imports nothing."""
    names = [name for part in (extra, *INCLUDED.get(extra, ())) for name in EXTRAS[part]]
    absent = [name for name in names if find_spec(name) is None]
    if absent:
        named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise Refusal(f"this needs {named}, not installed; {command(extra)}")


def missing(error: ImportError, wanted: str | None = None) -> Refusal | None:
    """The refusal that says which extra installs the module that was not found; None where no extra does.

    A module of our own, one that no extra holds, and one that is there but cannot be imported are bugs, whose
    errors keep their traceback.

    Arguments:
        wanted: the extra to name, where what failed is known to need more than this module.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    name = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return Refusal(f"{name} is not installed; {command(wanted or extra)}")
    return None


@contextmanager
def refusing(wanted: str | None = None) -> Iterator[None]:
    """Imports within become refusals where an extra is missing; see `missing`."""
    try:
        yield
    except ModuleNotFoundError as error:
        refusal = missing(error, wanted)
        if refusal is None:
            raise
        raise refusal from None
