"""Full parameters through the stages: one replica, forecast, trained, compared, and its drift read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.compare.overlay import overlay
from experiments.run.run import Run
from experiments.specs import ForecastSpec, ModelSpec, ProbeSpec, RunSpec
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules import preset


def spec(**changes) -> RunSpec:
    fields = {
        "queries": Query(prompt="3+4=", answer="7", verifier="integer"),
        "model": ModelSpec(name="tiny-arithmetic"),
        "rule": preset("rloo", eta=0.0005, rollouts=4),
        "adapter": FullSpec(),
        "rounds": 4,
        "replicas": 1,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=200, sketch=4096),
        "forecast": ForecastSpec(bootstraps=1, seeds=8, members=20),
    }
    return RunSpec(**(fields | changes))  # pyright: ignore[reportArgumentType]


def test_an_overlay_of_one_replica_of_all_parameters(tmp_path: Path) -> None:
    run = Run(spec(), tmp_path)
    numbers = overlay(run).numbers
    assert len(numbers["observed_mean"]) == len(numbers["forecast_mean"]) == 4
    meta = json.loads((tmp_path / "probe.json").read_text())["meta"]
    assert meta["sketch"] == 4096 and meta["sketch_error"] == pytest.approx((2 / 4096) ** 0.5)
    assert RunSpec.read(tmp_path / "spec.toml") == run.spec
    looks = run.drift()
    assert looks is not None and [look["rounds"] for look in looks] == [2, 4]
    assert abs(looks[0]["drift_of_rise"]) < 0.1  # the network is where the sketched kernel says


def test_replicas_go_with_what_is_trained() -> None:
    with pytest.raises(Refusal, match=r"replicas = 2 with full parameters.*--replicas 1"):
        spec(replicas=2)
    with pytest.raises(Refusal, match=r"replicas = 1; give at least 2"):
        spec(adapter=AdapterSpec())


def test_old_specs_keep_their_marks() -> None:
    """The hash of a probe without a sketch holds no field of that name."""
    assert "sketch" not in ProbeSpec().model_dump(mode="json")
