"""Runs that note what they were asked for, in the place of runs that sample, simulate and train."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class Asked:
    """What commands asked of runs: (stage, run) in order."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, Any]] = []
        self.refused: dict[str, Exception] = {}

    @property
    def runs(self) -> list[Any]:
        return [run for _, run in self.stages]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """`Run` and its numbers without a model; specs are the real ones."""
    noted = Asked()

    class Run:
        def __init__(self, spec: Any, out: Path, progress: Any, model: Any = None, **memory: Any) -> None:
            self.spec, self.out, self.progress, self.model, self.memory = spec, out, progress, model, memory

    def numbers_of(stage: str):
        def numbers(run: Any) -> dict[str, Any]:
            noted.stages.append((stage, run))
            run.progress("train", run.spec.rounds, run.spec.rounds)
            prompt = run.spec.queries[0].prompt
            if prompt in noted.refused:
                raise noted.refused[prompt]
            return {"query": prompt, "p0": 0.25}

        return numbers

    made = {
        "experiments.run.run": {"Run": Run},
        "experiments.compare.numbers": {
            "pooled": lambda rows: {"pooled_of": len(rows)},
            **{f"{stage}_numbers": numbers_of(stage) for stage in ("probe", "forecast", "train")},
        },
        "experiments.compare.overlay": {"overlay_numbers": numbers_of("overlay")},
    }
    for name, members in made.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
        package, _, last = name.rpartition(".")
        __import__(package)
        monkeypatch.setattr(sys.modules[package], last, module, raising=False)
    monkeypatch.setattr("llm_bridge.models.language_model.load_model", lambda name, **_: f"model {name}")
    monkeypatch.setattr("experiments.folder.compile_cache.keep_compiled", lambda: False)
    return noted
