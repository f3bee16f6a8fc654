"""The runner: a prediction before every run, and the same table however often it is stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.studies.layers import run as runner
from experiments.studies.layers.configuration import Configuration
from experiments.studies.layers.findings import FILE, Finding, judge, read_findings
from experiments.studies.layers.ladder import Layer, Variant, read_ladder
from experiments.studies.layers.record import (
    End,
    Prediction,
    Result,
    fingerprint,
    hash_of,
    read_prediction,
    read_result,
    write_end,
    write_prediction,
    write_result,
)
from experiments.studies.layers.run import cells, expect, predict, run_cell
from experiments.studies.layers.simulator import SimulatorWorld
from experiments.studies.layers.worlds import read_worlds
from theory.refusal import Refusal

WORLD = read_worlds()["simulator"]
assert isinstance(WORLD, SimulatorWorld)
BUDGET = WORLD.quick.model_copy(update={"rounds": 20, "seeds": 8})
SMALL = WORLD.model_copy(update={"quick": BUDGET})
LADDER = read_ladder()


def small_layers() -> list[Layer]:
    """The lowest layer and one variant above it: two programs to compile."""
    return [LADDER[0], LADDER[4]._replace(variants=LADDER[4].variants[:2])]


def todo(out: Path) -> list[runner.Cell]:
    return list(cells(small_layers(), {"simulator": SMALL}, "quick", out))


def table(found: list[runner.Cell]) -> list[Any]:
    """Everything but the time stamps."""
    finding = Finding.model_validate({
        "id": "x", "source": "s", "claim": "c", "mechanism": "m", "laws": ["contexts"], "regime": "r",
        "compare": [{"upper": "difficulty/easy", "lower": "minimalist/minimalist", "measure": "success",
                     "claims": "more", "predicts": "more"}],
    })  # fmt: skip
    rows = judge([finding], found)
    return [
        (rows[0].overall, rows[0].seen[0]),
        *((c.result.success.tolist(), c.prediction.success) for c in found if c.result and c.prediction),
    ]


class Stop(KeyboardInterrupt):
    """Somebody pressed Ctrl-C."""


@pytest.mark.parametrize("point", range(6))
def test_stopped_at_any_point_the_second_call_ends_with_the_same_table(tmp_path, monkeypatch, point):
    """Points: before and after each prediction and run, half-written files among what is left."""
    straight, stopped = todo(tmp_path / "a"), todo(tmp_path / "b")
    runner.run(straight, {"simulator": SMALL})
    count = 0

    def guarded(name):
        real = getattr(runner, name)

        def wrapped(folder, made):
            nonlocal count
            if count == point:
                (folder / f".{name}.1.parquet").write_bytes(b"half")
                raise Stop
            count += 1
            real(folder, made)

        monkeypatch.setattr(runner, name, wrapped)

    with monkeypatch.context() as patch:
        monkeypatch = patch
        guarded("write_prediction")
        guarded("write_result")
        with pytest.raises(Stop):
            runner.run(stopped, {"simulator": SMALL})
    made = [c.prediction for c in stopped]
    runner.run(stopped, {"simulator": SMALL})
    assert table(stopped) == table(straight)
    assert all(c.prediction == old for c, old in zip(stopped, made, strict=True) if old is not None)


def test_a_second_call_runs_nothing(tmp_path, monkeypatch):
    runner.run(todo(tmp_path), {"simulator": SMALL})
    monkeypatch.setattr("experiments.studies.layers.simulator.run_simulation", None)
    runner.run(todo(tmp_path), {"simulator": SMALL})


def test_nothing_is_run_without_its_prediction(tmp_path):
    cell = todo(tmp_path)[0]
    with pytest.raises(
        ValueError, match=r"minimalist/minimalist has no prediction of spec .* predict it before it is run"
    ):
        run_cell(cell, SMALL)
    predict(cell, SMALL)
    run_cell(cell, SMALL)
    assert cell.prediction is not None and cell.result is not None
    assert cell.prediction.made < cell.result.started <= cell.result.made
    assert cell.prediction.spec == cell.result.spec == hash_of(cell.spec)


def test_a_prediction_of_another_spec_does_not_count(tmp_path):
    cell = todo(tmp_path)[0]
    predict(cell, SMALL)
    other = cell._replace(spec=cell.spec.model_copy(update={"seeds": 9}))
    with pytest.raises(Refusal, match="has no prediction"):
        run_cell(other, SMALL)


def test_a_prediction_is_written_once_and_a_later_change_of_it_shows(tmp_path):
    cell = todo(tmp_path)[0]
    predict(cell, SMALL)
    with pytest.raises(Refusal, match="written once"):
        write_prediction(cell.folder, Prediction(hash_of(cell.spec), "somebody"))
    run_cell(cell, SMALL)
    path = cell.folder / "prediction.json"
    path.write_text(path.read_text().replace('"by": "mean', '"by": "a better mean'))
    with pytest.raises(Refusal, match="changed after the run"):
        _ = cell.result


def test_records_survive_the_disk(tmp_path):
    spec = todo(tmp_path)[0].spec
    told = Prediction(hash_of(spec), "law", None, [0, 1], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3])
    write_prediction(tmp_path, told)
    back = read_prediction(tmp_path, told.spec)
    assert back is not None and replace(back, made="") == told
    success = np.random.default_rng(0).uniform(size=(3, 2))
    for held_out in (None, success / 2):
        result = Result(told.spec, np.array([0, 4]), success, held_out, 0.1, 2, "abc", "t0", "t1", 1.5)
        write_result(tmp_path, result)
        found = read_result(tmp_path, told.spec)
        assert found is not None and read_result(tmp_path, "other") is None
        for name, value in result.__dict__.items():
            np.testing.assert_array_equal(getattr(found, name), value)
        last = None if held_out is None else held_out[:, 0]
        write_end(
            tmp_path,
            End(success[:, 0], success[:, 1], last, last, fingerprint(tmp_path, "result.parquet"), 2.5),
        )
        found = read_result(tmp_path, told.spec)
        assert found is not None and found.end is not None and found.end.seconds == 2.5
        np.testing.assert_array_equal(found.end.base, success[:, 1])
        assert (found.end.held_out is None) == (held_out is None)
    write_result(tmp_path, replace(result, seconds=2.0))
    found = read_result(tmp_path, told.spec)
    assert found is not None and found.end is None, "an end is of the run that it was measured on"
    half = (tmp_path / "result.parquet").read_bytes()
    (tmp_path / "result.parquet").write_bytes(half[:-50])
    assert read_result(tmp_path, told.spec) is None


def test_the_table_of_findings_is_noted_with_its_time_and_a_change_of_it_too(tmp_path):
    expect(tmp_path, FILE)
    expect(tmp_path, FILE)
    other = tmp_path / "findings.toml"
    other.write_text(FILE.read_text() + "\n# changed\n")
    expect(tmp_path, other)
    noted = json.loads((tmp_path / "expectations.json").read_text())["tables"]
    assert len(noted) == 2 and noted[0]["text"] == FILE.read_text() and noted[0]["noted"] <= noted[1]["noted"]


def test_a_refusal_is_kept_with_its_reason(tmp_path):
    adam = Configuration.model_validate({"rule": {"optimiser": {"kind": "adam", "eta": 1.0}}})
    variant = Variant("x", 0, "adam", adam, {}, "quick")
    layer = Layer(0, "x", "?", ("x/adam",), (variant,))
    (cell,) = cells([layer], {"simulator": SMALL}, "quick", tmp_path)
    assert cell.refused is not None and "kernel" in cell.refused and cell.result is None
    told: list[str] = []
    runner.run([cell], {"simulator": SMALL}, lambda done, total, cell, what: told.append(what))
    assert told == [cell.refused] and not list(tmp_path.rglob("*.json"))


def test_every_shipped_finding_names_variants_that_are_there():
    keys = [v.key for layer in LADDER for v in layer.variants]
    ids = [finding.id for finding in read_findings(FILE, keys)]
    assert [i for i in ids if i.startswith("1.")] == [f"1.{n}" for n in range(1, 9)]
    assert [i for i in ids if i.startswith("2.")] == [f"2.{n}" for n in range(1, 6)]
    assert sum(i.startswith("c.") for i in ids) >= 5
