"""Trials: one per law, honest about what they fix, able to fail, and the table in step with what they measure."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.studies import law_agreement
from experiments.studies.law_trials import TRIALS
from experiments.studies.law_trials.picture import draw_held, lines_of
from theory.laws import LAWS

CHEAP = ("birth-chain", "two-class-variance", "kl-recursion-fixed-point", "two-arm-regret", "negative-reward")
"""Laws measured again here: an exact one, an enumeration, an iteration, a bound, an expansion."""


def test_every_law_has_its_trial_and_every_parameter_is_taken_or_fixed():
    assert list(TRIALS) == list(LAWS)
    for name, trial in TRIALS.items():
        known = set(LAWS[name].parameters)
        assert trial.law == name and trial.free <= known and set(trial.where) <= known, name


@pytest.mark.parametrize("name", CHEAP)
def test_the_table_holds_what_is_measured(name):
    """The same seeds and keys give the same numbers; another machine may round differently."""
    stored, found = law_agreement.read()[name], TRIALS[name]().summary()
    assert found["holds"]
    for key in ("miss", "standard_errors", "bound_used"):
        assert found[key] == pytest.approx(stored[key], rel=0.05, abs=1e-9), key


def test_every_law_was_measured_with_its_trials_settings():
    stored = law_agreement.read()
    assert list(stored) == list(LAWS)
    for name, row in stored.items():
        trial = TRIALS[name]
        assert (row["against"], row["within"], row["seeds"]) == (trial.against, trial.within, trial.seeds), (
            name
        )
        assert row["parameters"] == pytest.approx({**LAWS[name].parameters, **trial.where}), name
        assert ("more than stated" in row["agreement"]) != row["holds"]


@pytest.mark.parametrize("name", ["birth-chain", "streaks", "two-arm-regret"])
def test_a_wrong_law_is_caught(name):
    """A tenth more of what an exact law says, a tenth of what a bound allows."""
    held = TRIALS[name]()
    factor = 0.1 if name == "two-arm-regret" else 1.1
    wrong = replace(held, series={key: factor * values for key, values in held.series.items()})
    assert held.holds and not wrong.holds and str(wrong).endswith("(more than stated)")


def test_standard_errors_are_counted_where_seeds_differ():
    held = TRIALS["birth-chain"](seeds=400)
    s = held.seen["mean"]
    law = held.series["mean"][s.at]
    by_hand = max(abs(m - v) / e for m, v, e in zip(s.mean, law, s.error, strict=True) if e > 1e-7)
    assert held.errors == pytest.approx(by_hand) and held.miss == pytest.approx(np.abs(law - s.mean).max())


def test_one_call_draws_the_law_and_the_seeds_beside_it(tmp_path):
    held = TRIALS["birth-chain"](seeds=200, p0=0.2, rounds=60)
    seen, law = lines_of(held)
    assert not seen.dashed and seen.band is not None and law.dashed
    assert len(draw_held(held).axes) == 1
    call = ["law", "birth-chain", "--simulate", "--seeds", "200", "--p0", "0.2", "--rounds", "60"]
    result = CliRunner().invoke(app, [*call, "--out", str(tmp_path), "--json"])
    printed = json.loads(result.stdout)
    assert printed["miss"] == pytest.approx(held.miss) and printed["seeds"] == 200
    assert {p.name for p in tmp_path.iterdir()} == {
        f"birth-chain-simulated.{s}" for s in ("json", "png", "svg")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kappa", "--seeds", "5"], "--seeds 5 changes nothing without --simulate"),
        (["kappa", "--seeds", "5", "--simulate"], "without seeds; leave seeds out"),
        (["batch-split", "--between", "2", "--simulate"], "fixes between; leave it out"),
    ],
)
def test_what_would_change_nothing_is_refused(arguments, message):
    result = CliRunner().invoke(app, ["law", *arguments])
    assert result.exit_code == 2 and message in result.output


def test_an_unknown_law_is_not_measured():
    result = CliRunner().invoke(app, ["study", "agreement", "--only", "gravity"])
    assert result.exit_code == 2 and "is no law" in result.output
