"""Runs under Adam through the command line: the probe keeps scores, is read again, and carries the forecast."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.compare.explain import explain
from experiments.folder.probe_store import load_probe
from experiments.run.run import Run
from experiments.specs import RunSpec
from theory.refusal import Refusal
from theory.rules.dialects import optimised, preset

CALL = [
    "overlay", "--model", "tiny-arithmetic", "--query", "3+4=", "--answer", "7", "--verifier", "integer",
    "--max-tokens", "3", "--rule", "rloo", "--rollouts", "2", "--optimiser", "adam", "--eta", "0.002",
    "--rounds", "4", "--replicas", "2", "--probe-rollouts", "128",
]  # fmt: skip


def test_an_overlay_under_adam(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*CALL, "--coordinates", "300", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "overlay.json").read_text())["forecast_mean"]) == 4
    run = Run(RunSpec.read(tmp_path / "spec.toml"), tmp_path)
    saved = load_probe(tmp_path, run.spec.stage("probe"), 1)
    assert saved is not None
    (kept,), (again,) = saved.probes, run.probe().probes
    assert again.scores is not None and kept.scores is not None and kept.scores.shape[1] == 300
    assert 0 < kept.share < 1 and kept.share == again.share
    np.testing.assert_array_equal(kept.scores, again.scores)
    with pytest.raises(Refusal, match=r"optimiser adam acts on parameters.*explain a run under SGD"):
        explain(run)


def test_coordinates_of_nothing_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*CALL, "--coordinates", "0", "--out", str(tmp_path)])
    assert done.exit_code != 0 and "coordinates" in done.output


def test_a_named_kind_is_that_kind_by_default() -> None:
    adam = optimised(preset("minimalist", eta=0.1), "adam").optimiser
    assert (adam.kind, adam.eta, getattr(adam, "weight_decay", None)) == ("adam", 0.1, 0)
    assert optimised(preset("minimalist", eta=0.1), None) == preset("minimalist", eta=0.1)
    with pytest.raises(Refusal, match="optimiser 'lion' is unknown; choose one of sgd, adam"):
        optimised(preset("minimalist"), "lion")
