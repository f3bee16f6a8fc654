"""A folder with the model that its spec names: what screenings and runs have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.folder import store

if TYPE_CHECKING:
    from llm_bridge.models.language_model import LanguageModel

Progress = Callable[[str, int, int], None]


@dataclass
class RunFolder:
    """The folder of a spec; its model is loaded only when a stage needs it.

    Arguments:
        spec: what is run: a `FileSpec` with the field model.
        out: the folder.
        progress: called as progress(label, done, total).
        model: a loaded model to use instead of loading `spec.model` (several runs can share one).
    Errors: Refusal for a folder that holds another spec, or cannot be written.
    """

    spec: Any
    out: Path
    progress: Progress = lambda label, done, total: None
    model: LanguageModel | None = None

    def __post_init__(self) -> None:
        self.out = Path(self.out)
        store.open_folder(self.out, self.spec)

    @cached_property
    def language_model(self) -> LanguageModel:
        from llm_bridge.models.language_model import load_model

        if self.model is not None:
            return self.model
        m = self.spec.model
        return load_model(m.name, device=m.device, dtype=m.dtype, source=m.source)
