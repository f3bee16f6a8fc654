"""The judge of the probe's approximations: what decided that a probe resolves wrong paths too."""

from __future__ import annotations

import jax
import pytest

from experiments.compare.exact import enumerate_model
from experiments.studies import approximations
from experiments.studies.approximations import MAX_TOKENS, QUERY, late_errors, odd
from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.rollouts.asked import Question


def test_resolving_wrong_paths_takes_most_of_the_late_error_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed by `make tiny` with four probes: +.0079 against -.0009 after 20 updates."""
    monkeypatch.setattr(approximations, "LATE_CUTS", (20.0,))
    monkeypatch.setattr(approximations, "PROBES", 1)
    model = load_model("tiny-arithmetic", dtype="float64")

    def reward(tokens: tuple[int, ...]) -> float:
        return odd(model.decode(list(tokens)))

    with jax.enable_x64(True):
        whole = enumerate_model(model, QUERY, reward, MAX_TOKENS, AdapterSpec(rank=2, blocks=1))
        question = Question(whole.prompt.tokens, reward, model.end_tokens)
        rows = late_errors(whole, whole.probe(), question)
    correct, everything = (rows[f"20, paths resolved: {keep}"][1] for keep in ("correct", "all"))
    assert correct > 0.004
    assert abs(everything) < correct / 2
