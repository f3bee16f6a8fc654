"""What specs and help texts are made of needs no torch, and every registry says in one line what a row is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_bridge.models.registry import MODELS
from llm_bridge.queries.sources import SOURCES
from llm_bridge.rewards.verifiers import VERIFIERS

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "jax", "transformers", "math_verify", "reasoning_gym", "datasets")
LIGHT = (
    "queries.query",
    "queries.sources",
    "network.specs",
    "probe.spec",
    "models.registry",
    "rewards.verifiers",
)


def test_specs_and_registries_import_nothing_heavy() -> None:
    """In a process of its own; each by itself could hide behind another, so all of them are asked for at once."""
    code = f"import sys, {', '.join('llm_bridge.' + name for name in LIGHT)}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "llm_bridge.probe.spec" in loaded and not loaded & set(HEAVY)


@pytest.mark.parametrize("registry", [MODELS, SOURCES, VERIFIERS], ids=["models", "sources", "verifiers"])
def test_every_row_has_one_line_of_its_own(registry: dict) -> None:
    lines = [row.summary for row in registry.values()]
    assert all(line.strip() and "\n" not in line for line in lines) and len(set(lines)) == len(lines)
