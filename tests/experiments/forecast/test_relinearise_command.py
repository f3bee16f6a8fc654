"""Relinearise as it is asked for: rules and rounds that are refused, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiments.specs.contexts_spec import ContextsSpec
from linearised import small, spec
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.specs import ForecastSpec, RelineariseSpec, RunSpec
from theory.refusal import Refusal
from theory.rules import K3, SGD, Adam, ConstantRate, CosineDecay, MovingAverage, Rule


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(optimiser=Adam(eta=0.1)), "optimiser adam"),
        (Rule(optimiser=SGD(eta=0.1, clip_norm=1.0)), "sgd without clip"),
        (Rule(optimiser=SGD(eta=0.1), epochs=2), "epochs 2"),
        (Rule(optimiser=SGD(eta=0.1), kl=K3(beta=0.1)), "kl k3 pulls to the base model"),
        (Rule(optimiser=SGD(eta=0.1, momentum=0.9)), "momentum 0.9"),
        (Rule(optimiser=SGD(eta=0.1, schedule=CosineDecay(steps=9))), "schedule cosine"),
        (Rule(optimiser=SGD(eta=0.1, schedule=ConstantRate(warmup=3))), "without warm-up"),
        (Rule(optimiser=SGD(eta=0.1), signal=MovingAverage()), "signal moving_average remembers"),
    ],
)
def test_rules_with_a_past_are_refused(rule: Rule, message: str) -> None:
    with pytest.raises(
        Refusal, match=rf"forecast.relinearise: .*{message}.*or leave relinearise out \(--relin"
    ):
        spec(rule=rule)


@pytest.mark.parametrize("name", ["forecast", "overlay"])
def test_a_refused_rule_is_refused_before_anything_is_measured(tmp_path: Path, name: str) -> None:
    """By the commands: not even the folder is made."""
    words = [
        name, "--model", "tiny-arithmetic", "--query", "3+4=", "--answer", "7", "--verifier", "integer",
        "--optimiser", "adam", "--relinearise", "2", "--json",
    ]  # fmt: skip
    refused = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")])
    assert refused.exit_code == 2 and "optimiser adam" in refused.stdout
    assert not list(tmp_path.iterdir())


def test_rounds_are_within_the_run_and_increase() -> None:
    with pytest.raises(Refusal, match=r"after round 6 of 6 changes nothing; give rounds from 1 to 5"):
        spec(forecast=small(2, 6))
    with pytest.raises(Refusal, match=r"rounds 4, 4 do not increase"):
        small(4, 4)
    with pytest.raises(Refusal, match="greater than or equal to 1"):
        small(0)
    with pytest.raises(Refusal, match="greater than or equal to 4"):
        RelineariseSpec(rounds=(1,), networks=3)
    with pytest.raises(Refusal, match=r"forecast.relinearise after rounds \(4,\) is of one query"):
        ContextsSpec(queries=(spec().query,), batch=1, rule=spec().rule, forecast=small(4))


def test_older_forecasts_keep_their_hash() -> None:
    assert set(ForecastSpec().model_dump(mode="json")) == {"bootstraps", "seeds", "members"}
    assert spec(forecast=small()).stage("forecast") != spec().stage("forecast")
    assert spec(forecast=small()).stage("train") == spec().stage("train")


def test_the_command_line_relinearises(tmp_path: Path) -> None:
    words = ["--model", "tiny-arithmetic", "--query", "3+4=", "--answer", "7", "--verifier", "integer", "--rounds", "4",
             "--replicas", "2", "--max-tokens", "3", "--probe-rollouts", "200", "--eta", "0.001", "--json"]  # fmt: skip
    asked = ["--relinearise", "2", "--relinearise-networks", "5", "--relinearise-rollouts", "80"]

    def call(command: str, *more: str):
        return CliRunner().invoke(app, [command, *words, *more, "--out", str(tmp_path / "run")])

    refused = call("forecast", "--relinearise-networks", "3")
    assert refused.exit_code == 2 and "--relinearise-networks is of --relinearise" in refused.stdout
    late = call("forecast", "--relinearise", "2", "--relinearise", "4")
    assert late.exit_code == 2 and "give rounds from 1 to 3 (--relinearise)" in late.stdout
    several = call("overlay", "--relinearise", "3", "--relinearise", "1")
    assert several.exit_code == 2 and "rounds 3, 1 do not increase" in several.stdout

    told = json.loads(call("overlay", *asked).stdout)
    assert told["relinearised_rounds"] == [2] and len(told["relinearised_mean"]) == 4
    assert {
        "relinearised_drift",
        "relinearised_correction_at_end",
        "relinearised_correction_at_end_error",
    } <= set(told)
    read = RunSpec.read(tmp_path / "run" / "spec.toml").forecast.relinearise
    assert read == RelineariseSpec(rounds=(2,), networks=5, rollouts=80)
    again = json.loads(call("forecast", *asked).stdout)  # found in the folder
    assert again["relinearised_correction_at_end"] == told["relinearised_correction_at_end"]
