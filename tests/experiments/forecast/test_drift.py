"""Drift on the enumerable model: where the forecast puts the network, and what is read there."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from bandit_sim import TreeArms, displacement, simulate
from experiments.forecast.drift import LIMIT, Drift
from experiments.forecast.drift import drift as measured
from experiments.run.run import Run
from experiments.specs import ModelSpec, ProbeSpec, RunSpec
from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.probe.scores import atom_scores, displaced
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules import Adam, Rule, preset
from theory.warning import ForecastWarning


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-arithmetic", dtype="float64")


def drift(run: Run) -> list[Drift]:
    return measured(run.network, run.probe(), run.relinearised)


def run_of(folder: Path, model, eta: float, rule=None, rounds: int = 12) -> Run:
    spec = RunSpec(
        queries=Query(prompt="3+4=", answer="7", verifier="integer"),
        model=ModelSpec(name="tiny-arithmetic", dtype="float64"),
        rule=rule or preset("minimalist", eta=eta),
        adapter=AdapterSpec(rank=2, blocks=1),
        rounds=rounds,
        max_tokens=3,
        probe=ProbeSpec(rollouts=400),
    )
    return Run(spec, folder, model=model)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model) -> Run:
    return run_of(tmp_path_factory.mktemp("drift"), model, 0.002)


@pytest.mark.parametrize("rule", [preset("minimalist", eta=0.002), preset("rloo", eta=0.002, rollouts=3)])
def test_a_displacement_ends_where_the_simulation_does(run: Run, rule: Rule) -> None:
    """The next round's success of the same seeds is that of f = K alpha."""
    with jax.enable_x64(True):
        tree = run.probe().probes[0].tree()
        arms = TreeArms.from_tree(tree)
        _, f = displacement(arms, rule, 9, 5, 3)
        after = simulate(arms, rule, 10, 5, 3)["success"][:, 9]
    order = np.argsort(np.argsort(tree.node, kind="stable"))
    np.testing.assert_allclose([tree.success(row[order]) for row in f], after, rtol=1e-9)
    assert np.std(after) > 0


def test_displaced_factors_are_the_sum_of_the_scores(run: Run) -> None:
    split, (prompt,) = run.network.split, run.network.prompts
    atoms = run.probe().probes[0].layout.atoms[:7]
    shares = np.random.default_rng(0).normal(size=(3, 7))
    factors = displaced(split, [(prompt, atoms, shares)], chunk=3)
    scores = atom_scores(split, prompt, split.adapters.fresh(1), atoms)
    moved = torch.cat([up.reshape(3, -1) for _, up in factors.values()], dim=1).detach()
    torch.testing.assert_close(moved, torch.from_numpy(shares) @ scores, rtol=1e-9, atol=1e-12)


def test_drift_grows_with_the_square_of_the_step(run: Run, tmp_path: Path, model) -> None:
    """To first order network and tree agree, whatever the step; the rest is of second order (between 2 and 8 here)."""
    half, small = drift(run)
    assert (half.rounds, small.rounds) == (6, 12)
    assert small.base < half.tree.mean() < small.tree.mean(), "no learning, no test"
    large = drift(run_of(tmp_path, model, 0.004))[1]
    assert 2 < abs(large.gap / small.gap) < 8
    assert abs(small.relative) < LIMIT / 5


def test_a_forecast_beyond_its_range_is_warned_of(tmp_path: Path, model, monkeypatch) -> None:
    """The model is so small, and saturates so early, that no step takes it further than .08 from its tangent."""
    monkeypatch.setattr("experiments.forecast.drift.LIMIT", 0.05)
    run = run_of(tmp_path, model, 0.3, rounds=4)
    with pytest.warns(
        ForecastWarning, match=r"range; probe again on the way \(--relinearise\), give a smaller"
    ):
        looks = run.drift()
    assert json.loads((tmp_path / "drift.json").read_text())["looks"] == looks
    monkeypatch.setattr("experiments.forecast.drift.drift", None)  # not measured again
    with pytest.warns(ForecastWarning):
        assert run.drift() == looks
    monkeypatch.setattr("experiments.forecast.drift.LIMIT", 0.1)
    run.drift()  # warnings are errors


def test_no_drift_is_forecast_for_a_rule_without_a_displacement(tmp_path: Path, model) -> None:
    rule = preset("minimalist", eta=0.002).model_copy(update={"epochs": 2})
    assert run_of(tmp_path, model, 0.002, rule).drift() is None


def test_a_rule_without_a_displacement_is_refused(run: Run) -> None:
    arms = TreeArms.from_tree(run.probe().probes[0].tree())
    with pytest.raises(Refusal, match="optimiser adam with a kernel engine"):
        displacement(arms, Rule(optimiser=Adam(eta=0.1)), 2, 2, 0)
    with pytest.raises(Refusal, match="rounds = 0; give at least 1"):
        displacement(arms, preset("minimalist"), 0, 2, 0)
