"""The three students of one history: equal where the theory says so, and the gaps named where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.compare.exact import Enumerated, enumerate_model
from experiments.compare.explain import explain
from experiments.compare.retrace import retrace
from experiments.folder.observed import load_observed
from experiments.run.run import Run
from experiments.specs import ForecastSpec, ModelSpec, ProbeSpec, RunSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules.dialects import preset
from theory.trees.joint_probe import JointProbe

ADAPTER = AdapterSpec(rank=2, blocks=1)


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


@pytest.fixture(scope="module")
def whole(tiny: LanguageModel) -> Enumerated:
    return enumerate_model(tiny, "3+4=", lambda t: float(tiny.decode(list(t)) == "7"), 3, ADAPTER)


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def finished(out: Path, model: LanguageModel, eta: float, rounds: int = 24, **changes) -> Run:
    fields = {
        "queries": Query(prompt="3+4=", answer="7", verifier="integer"),
        "model": ModelSpec(name="tiny-arithmetic", dtype="float64"),
        "rule": preset("minimalist", eta=eta),
        "adapter": ADAPTER,
        "rounds": rounds,
        "replicas": 6,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=256),
        "forecast": ForecastSpec(bootstraps=2, seeds=32, members=40),
    }
    run = Run(RunSpec(**(fields | changes)), out, model=model)
    run.train()
    return run


def test_whole_tree_is_the_linearised_network_to_float64(
    tmp_path: Path, tiny: LanguageModel, whole: Enumerated, x64: None
) -> None:
    """Nothing left out of the probe: linear and tree agree at every look, at a step where the network does not."""
    run = finished(tmp_path / "run", tiny, eta=0.2)
    observed = load_observed(run.out, run.spec)
    assert observed is not None
    exact = whole.probe()
    probe = JointProbe((exact,), exact.gram)
    looks = retrace(run.network, probe, observed, (0, 23), rollouts=2, seed=0)
    for look in looks:
        assert look.mismatch < 1e-9, "the retraced network is the run's"
        np.testing.assert_array_equal(look.beyond["network"], 0)
        np.testing.assert_allclose(look.kept["linear"], look.kept["tree"], rtol=1e-9)
    np.testing.assert_allclose(looks[0].kept["network"], whole.success(), rtol=1e-12)
    assert looks[-1].kept["tree"].mean() > 1.5 * whole.success(), "no learning, no test"
    assert np.abs(looks[-1].kept["network"] - looks[-1].kept["linear"]).max() > 1e-3


def test_drift_is_second_order_in_the_displacement(tmp_path: Path, tiny: LanguageModel) -> None:
    """A tenth of the step, the same number of updates: drift of each response falls by about a hundred."""
    drift = []
    for eta in (1e-2, 1e-3):
        run = finished(tmp_path / f"{eta}", tiny, eta=eta)
        observed = load_observed(run.out, run.spec)
        assert observed is not None
        (look,) = retrace(run.network, run.probe(), observed, (23,), rollouts=4, seed=0)
        drift.append(look.drift)
    # Not the same draws, hence not the same displacement over ten: between the first and the third order.
    assert 30 < drift[0] / drift[1] < 300


def test_gaps_add_up_and_are_written(tmp_path: Path, tiny: LanguageModel) -> None:
    run = finished(tmp_path / "run", tiny, eta=0.05)
    result = explain(run, at=(5, 23), rollouts=4)
    assert json.loads((run.out / "explain.json").read_text())["p0"] == result["p0"]
    assert [look["updates"] for look in result["looks"]] == [5, 23]
    for look in result["looks"]:
        whole = sum(
            look[k][0]
            for k in ("network - linear (drift)", "linear - tree (truncation)", "tree - forecast (chance)")
        )
        assert whole == pytest.approx(look["network - forecast"][0], abs=1e-12)
        for student in ("network", "linear", "tree"):
            parts = look[student]
            assert parts["success"][0] == pytest.approx(parts["kept"][0] + parts["beyond"][0], abs=1e-12)


def test_explain_says_what_is_missing(tmp_path: Path, tiny: LanguageModel) -> None:
    run = finished(tmp_path / "run", tiny, eta=0.01, rounds=4)
    with pytest.raises(Refusal, match=r"at = \[4\].*from 0 to 3"):
        explain(run, at=(4,))
    (run.out / "observed.parquet").unlink()
    with pytest.raises(Refusal, match=r"holds no finished run; call onearm overlay"):
        explain(run)
