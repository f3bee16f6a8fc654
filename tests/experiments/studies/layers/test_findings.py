"""Findings on made-up results whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.studies.layers.findings import Finding, difference, judge, read_findings
from experiments.studies.layers.measures import MEASURES, ends_early, forecast_of, scatter
from experiments.studies.layers.record import End, Prediction, Result
from experiments.studies.layers.run import Cell
from theory.refusal import Refusal

RNG = np.random.default_rng(5)


def result(success, rollouts: int = 0, end=None, held_out=None, p0: float = 0.1) -> Result:
    values = np.asarray(success, dtype=np.float64)
    return Result("s", np.arange(values.shape[1]), values, held_out, p0, rollouts, "p", "2", "3", 0.0, end)


def finding(*compare: dict) -> Finding:
    fields = {
        "id": "x",
        "source": "s",
        "claim": "c",
        "mechanism": "m",
        "laws": ["contexts"],
        "regime": "p0 is small",
    }
    return Finding.model_validate({**fields, "compare": compare})


def compare(**changes) -> dict:
    return {
        "upper": "a/a",
        "lower": "a/b",
        "measure": "success",
        "claims": "more",
        "predicts": "same",
        **changes,
    }


class Known(Cell):
    """A cell whose record is in memory."""

    @property
    def prediction(self):
        return Prediction("s", "law", None, [0, 1], [0.1, 0.4], made="1") if self.spec else None

    @property
    def result(self):
        return self.spec


def world(name: str = "w", **results: Result) -> list[Cell]:
    from types import SimpleNamespace

    return [Known(name, SimpleNamespace(key=f"a/{k}"), Path(), r, None) for k, r in results.items()]  # pyright: ignore[reportArgumentType]


def ends(mean: float, spread: float = 0.02, seeds: int = 60, noise=None) -> Result:
    noise = RNG.normal(0, spread, seeds) if noise is None else noise
    return result(np.stack([np.full(len(noise), 0.1), mean + noise], axis=1))


def test_pairing_by_seed_takes_out_what_seeds_share():
    """Seeds scatter by .3 and the effect is .01: unseen without pairing, certain with it."""
    shared = RNG.normal(0, 0.3, 50)
    a, b = ends(0.51, noise=shared + RNG.normal(0, 0.001, 50)), ends(0.5, noise=shared)
    seen = difference([(a, 1), (b, -1)], "success")
    assert seen is not None and seen.low > 0.009 and seen.high < 0.011
    alone = difference([(a, 1)], "success")
    assert alone is not None and alone.high - alone.low > 0.1


def test_fewer_replicas_are_paired_with_the_first_of_the_others_which_all_count():
    a, b = ends(0.6, seeds=60), ends(0.5, seeds=8)
    seen = difference([(a, 1), (b, -1)], "success")
    assert seen is not None and seen.seeds == 8
    assert seen.mean == pytest.approx(float(a.success[:, -1].mean() - b.success[:, -1].mean()))


def test_a_claim_and_a_prediction_are_judged_apart():
    (row,) = judge([finding(compare())], world(a=ends(0.8), b=ends(0.4)))
    (seen,) = row.seen
    assert (row.overall, seen.claim, seen.prediction) == ("reproduced", "reproduced", "not reproduced")
    assert seen.forecast == 0.0 and seen.predicted_first and seen.power > 0.99


def test_worlds_that_disagree_make_a_finding_depend_on_its_regime():
    found = [*world("up", a=ends(0.8), b=ends(0.4)), *world("down", a=ends(0.4), b=ends(0.8))]
    (row,) = judge([finding(compare())], found)
    assert row.by_world() == {"up": "reproduced", "down": "not reproduced"}
    assert row.overall == "depends on: p0 is small"


def test_a_difference_of_differences():
    (row,) = judge([finding(compare(than=["a/c", "a/b"]))], world(a=ends(0.8), b=ends(0.4), c=ends(0.5)))
    assert row.seen[0].effect.mean == pytest.approx(0.3, abs=0.02)


def test_what_cannot_be_compared_is_told():
    (row,) = judge([finding(compare(measure="held_out"))], world(a=ends(0.8), b=ends(0.4)))
    assert row.overall == "not run" and "not measured" in row.refused["w: held_out: a/a - a/b"]
    (row,) = judge([finding(compare())], world(a=ends(0.8)))
    assert "a/b is not run at this scale" in row.refused["w: success: a/a - a/b"]


def test_scatter_is_free_of_the_noise_of_sampling():
    """Mean of the terms over 400 tables: 0 where all runs are alike, the variance where they are not; 4.5 errors."""
    rng = np.random.default_rng(2)
    for deviation in (0.0, 0.1):
        found = []
        for _ in range(400):
            p = np.clip(0.4 + deviation * rng.normal(size=20), 0, 1)
            found.append(scatter(result(rng.binomial(1, p[:, None], (20, 40)), rollouts=1)).mean())
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        assert abs(np.mean(found) - deviation**2) < 4.5 * error
    exact = scatter(result([[0.1, 0.2], [0.1, 0.6]]))
    assert exact.mean() == pytest.approx(np.var([0.15, 0.35], ddof=1))


def test_measures_of_a_curve_by_hand():
    made = result(
        [[0.1, 0.3, 0.5, 0.7], [0.1, 0.1, 0.1, 0.02]], held_out=np.array([[0.2, 0.2, 0.2, 0.6]] * 2)
    )
    by_hand = {
        "success": [0.7, 0.02], "gain": [0.6, -0.08], "average": [0.4, 0.08],
        "held_out": [0.6, 0.6], "held_out_gain": [0.4, 0.4],
    }  # fmt: skip
    for name, values in by_hand.items():
        np.testing.assert_allclose(MEASURES[name](made), values)  # pyright: ignore[reportArgumentType]
    assert MEASURES["held_out"](result([[0.1, 0.2]])) is None


def test_of_sampled_curves_the_end_is_what_was_measured_after_the_run():
    end = End(np.array([0.5]), np.array([0.2]), np.array([0.4]), np.array([0.1]), "r", 1.0)
    made = result([[0, 0, 1, 1]], rollouts=1, end=end, held_out=np.array([[0.0, 1.0]]))
    by_hand = {"success": 0.5, "gain": 0.3, "average": 0.5, "held_out": 0.4, "held_out_gain": 0.3}
    for name, value in by_hand.items():
        np.testing.assert_allclose(MEASURES[name](made), [value])  # pyright: ignore[reportArgumentType]


def test_forecast_numbers_of_a_curve_by_hand():
    field = Prediction("s", "law", None, [0, 1, 2, 3], [0.1, 0.2, 0.3, 0.8], held_out=[0.1, 0.1, 0.2, 0.3])
    assert forecast_of(field, "success") == 0.8 and forecast_of(field, "gain") == pytest.approx(0.7)
    assert forecast_of(field, "held_out_gain") == pytest.approx(0.2) and forecast_of(field, "scatter") is None
    assert forecast_of(field, "average") == pytest.approx(0.35)
    assert forecast_of(Prediction("s", "law", "no law"), "success") is None


def test_forecast_ends_are_those_measured_or_are_marked():
    curves = {"at": [0, 1], "success": [0.1, 0.2], "held_out": [0.1, 0.1]}
    told = Prediction("s", "law", **curves, ends={"training": [0.05, 0.3], "held_out": [0.1, 0.15]})
    by_hand = {"success": 0.3, "gain": 0.25, "average": 0.15, "held_out": 0.15, "held_out_gain": 0.05}
    assert {name: forecast_of(told, name) for name in by_hand} == pytest.approx(by_hand)
    end = End(np.array([0.5]), np.array([0.2]), None, None, "r", 1.0)
    run, older = result([[0, 1]], rollouts=1, end=end), Prediction("s", "law", **curves)
    assert ends_early(older, run, "gain") and not ends_early(told, run, "gain")
    assert not ends_early(older, run, "average") and not ends_early(older, result([[0, 1]]), "gain")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('measure = "gain"', 'measure = "gains"', "measure 'gains' is unknown; choose success"),
        ('upper = "minimalist/minimalist"', 'upper = "minimal"', "finding 1.1: 'minimal' is no variant"),
        ('laws = ["contexts"]', 'laws = ["context"]', "'context' is no law"),
        ('claims = "more"', 'claims = "better"', "claims"),
        ('id = "1.2"', 'id = "1.1"', "finding 1.1 is there twice"),
    ],
)
def test_what_is_wrong_in_the_table_is_named(tmp_path, old, new, message):
    from experiments.studies.layers.findings import FILE

    path = tmp_path / "findings.toml"
    path.write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(Refusal, match=message):
        read_findings(path, ["minimalist/minimalist"] if "variant" in message else None)
