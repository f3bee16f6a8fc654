"""The page holds all it needs and says all it must; negative controls fail where they must and are told where not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.studies.layers import report as page
from experiments.studies.layers import run as runner
from experiments.studies.layers.controls import controls
from experiments.studies.layers.findings import FILE, read_findings
from experiments.studies.layers.ladder import read_ladder
from experiments.studies.layers.phases import CROSS, P0, Phases
from experiments.studies.layers.record import Prediction, Result
from experiments.studies.layers.simulator import SimulatorWorld
from experiments.studies.layers.worlds import read_worlds
from theory.refusal import Refusal

LADDER = read_ladder()
WORLD = read_worlds()["simulator"]
assert isinstance(WORLD, SimulatorWorld)


def phases(*_) -> Phases:
    grid = np.linspace(-1, 1, len(CROSS) * len(P0)).reshape(len(CROSS), len(P0))
    c1, c3 = np.array([0.01, 0.02]), np.array([0.2, 0.2])
    return Phases(
        np.array(P0), np.array(CROSS), grid, 0 * grid, grid, grid**2, np.array(CROSS) / 9 + 0.02, c1, c3,
        1 + np.sqrt(c3 / c1),
    )  # fmt: skip


def test_the_page_stands_alone_and_holds_every_finding(tmp_path: Path, monkeypatch):
    small = WORLD.model_copy(update={"quick": WORLD.quick.model_copy(update={"rounds": 20, "seeds": 8})})
    todo = list(runner.cells(LADDER, {"simulator": small}, "quick", tmp_path))
    with pytest.raises(Refusal, match="no result of this scale; run first: onearm layers run --quick"):
        page.report(tmp_path, LADDER, {"simulator": small}, "quick", todo)
    runner.expect(tmp_path, FILE)
    runner.run([c for c in todo if c.variant.number == 0], {"simulator": small})
    monkeypatch.setattr(page, "phases", phases)
    verdicts = page.report(tmp_path, LADDER, {"simulator": small}, "quick", todo)
    ids = [finding.id for finding in read_findings()]
    assert list(verdicts) == ids and verdicts["2.3"] == "not run"
    html, tables = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', html) and "<script" not in html
    assert all(f'id="f{i}"' in html and f"| {i} |" in tables for i in ids)
    assert "viewport" in html and "@media print" in html and html.count("data:image/png;base64") == 5
    cell = todo[0]
    assert cell.result is not None and cell.result.spec in html
    assert (tmp_path / "ladder-simulator.png").exists()


def test_a_store_of_records_alone_is_enough_for_the_report_and_is_not_run_again(tmp_path: Path, monkeypatch):
    """Copied: note of the findings, and prediction, spec and result of each cell; nothing else."""
    small = WORLD.model_copy(update={"quick": WORLD.quick.model_copy(update={"rounds": 20, "seeds": 8})})
    worlds: dict[str, runner.AnyWorld] = {"simulator": small}
    full, kept = tmp_path / "full", tmp_path / "kept"
    runner.expect(full, FILE)
    runner.run([c for c in runner.cells(LADDER, worlds, "quick", full) if c.variant.number == 0], worlds)
    for pattern in page.RECORDS:
        for path in full.glob(pattern):
            (kept / path.relative_to(full)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, kept / path.relative_to(full))
    todo = list(runner.cells(LADDER, worlds, "quick", kept))
    monkeypatch.setattr(SimulatorWorld, "run", None)
    monkeypatch.setattr(SimulatorWorld, "predict", None)
    told = []
    runner.run([c for c in todo if c.variant.number == 0], worlds, lambda *at: told.append(at[-1]))
    assert told == ["there already"]
    monkeypatch.setattr(page, "phases", phases)
    page.report(kept, LADDER, worlds, "quick", todo)
    assert f"simulator 1 of {sum(c.refused is None for c in todo)}" in (kept / page.TABLES).read_text()
    assert f"seed {small.seed}" in (kept / page.PAGE).read_text()
    (kept / runner.EXPECTATIONS).unlink()
    with pytest.raises(Refusal, match=r"does not hold the table of findings as it is now"):
        page.report(kept, LADDER, worlds, "quick", todo)


class Known(runner.Cell):
    @property
    def prediction(self):
        return None if self.spec is None else self.spec[0]

    @property
    def result(self):
        return None if self.spec is None else self.spec[1]


def known(key: str, told, run, alone=None) -> Known:
    success = np.asarray(run) + np.random.default_rng(0).normal(0, 0.01, (40, 1))
    made = Prediction("s", "law", None, [0, 1, 2], list(told), without_sharing=alone)
    result = Result("s", np.arange(3), success, None, 0.1, 0, "p", "2", "3", 0.0)
    return Known("w", SimpleNamespace(key=key), Path(), (made, result), None)  # pyright: ignore[reportArgumentType]


def test_a_theory_must_fail_on_the_layer_above_where_the_layer_matters():
    cells = [
        known("minimalist/minimalist", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], alone=[0.1, 0.1, 0.1]),
        known("advantage/moving-average", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        known("reward/plus-minus", [0.1, 0.4, 0.9], [0.1, 0.4, 0.9]),
        known("difficulty/hard", [0.0, 0.0, 0.01], [0.1, 0.2, 0.3]),  # its own theory is the wrong one
        known("reward/shuffled", [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]),
    ]
    found = {c.what: c.failed_as_it_must for c in controls(LADDER, {"w": {c.variant.key: c for c in cells}})}
    assert found == {
        "theory of minimalist on advantage/moving-average": None,
        "theory of minimalist on reward/plus-minus": True,
        "theory of minimalist on difficulty/hard": False,
        "tabular theory": True,
        "shuffled reward (gain of the true and of the shuffled one)": True,
    }


def test_a_shuffled_reward_that_learns_is_told():
    cells = [
        known("minimalist/minimalist", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        known("reward/shuffled", [0.1, 0.1, 0.1], [0.1, 0.2, 0.3]),
    ]
    (*_, last) = controls(LADDER, {"w": {c.variant.key: c for c in cells}})
    assert last.failed_as_it_must is False
