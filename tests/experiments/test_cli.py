"""The command line as a user meets it: numbers, help, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app

TINY = ["--model", "tiny-arithmetic", "--max-tokens", "3", "--verifier", "integer", "--probe-rollouts", "200"]


def call(*words: str):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.mark.parametrize("command", ["simulate", "probe", "forecast", "train", "overlay", "doctor"])
def test_help_teaches(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output


def test_simulate_prints_the_promised_keys() -> None:
    result = call(
        "simulate",
        "--arms",
        50,
        "--correct",
        2,
        "--p0",
        0.2,
        "--eta",
        0.5,
        "--rounds",
        30,
        "--seeds",
        64,
        "--json",
    )
    numbers = json.loads(result.stdout)
    assert {"success_mean", "success_quantiles", "engine", "seconds", "seed_rounds_per_second"} <= set(
        numbers
    )
    assert numbers["engine"] == "dense"
    assert sorted(numbers["success_quantiles"]) == numbers["success_quantiles"]
    assert 0.2 < numbers["success_mean"] <= 1


def test_simulate_counts_rounds_as_updates() -> None:
    """Zero expected change after no update: with one round, success is p after one update, not p0."""
    one = json.loads(
        call("simulate", "--arms", 10, "--p0", 0.5, "--eta", 5, "--rounds", 1, "--seeds", 64, "--json").stdout
    )
    assert one["success_mean"] > 0.55


def test_engine_not_there_yet() -> None:
    result = call("simulate", "--engine", "event")
    assert result.exit_code == 2
    assert "use dense or auto" in result.output


def test_overlay_of_several_queries_goes_on_past_a_failure(tmp_path: Path) -> None:
    rows = [{"query": "3+4=", "answer": "7"}, {"query": "9+9=", "answer": "12345678"}]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps(r | {"verifier": "integer"}) for r in rows))
    result = call(
        "overlay",
        "--queries",
        path,
        "--out",
        tmp_path / "out",
        "--json",
        "--rounds",
        10,
        "--replicas",
        4,
        *TINY,
    )
    assert result.exit_code == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["queries"]
    assert summary[0]["p0"] > 0
    assert "no correct rollout among 200: p0 is below 0.015" in summary[1]["error"]
    assert (tmp_path / "out" / summary[0]["folder"] / "overlay.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "./no-such-model"], "Models that need no hub"),
        (["--queries", "missing.jsonl"], "missing.jsonl"),
        (["--query", "2+2="], "give both"),
        (["--rule", "no-such-rule"], "choose one of"),
        (["--rule", "rloo", "--rollouts", "1"], "leave_one_out needs rollouts >= 2"),
        (["--eta", "-1"], "greater than 0"),
        (["--query", "2+2=", "--answer", "four"], "cannot be parsed"),
        (["--rounds", "0"], "greater than or equal to 1"),
        (["--dtype", "int8"], "float32"),
    ],
)
def test_bad_input_is_one_clear_line(words: list[str], message: str, tmp_path: Path) -> None:
    result = call("forecast", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"query": "a", "answer": "1"}\nnot json\n', "line 2"),
        ('{"query": "a"}\n', "'answer' is missing"),
        ('{"query": "a", "answer": 1}\n', "not text"),
    ],
)
def test_bad_query_file_names_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text(text)
    result = call("forecast", "--queries", path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split()) and "queries.jsonl" in result.output.replace("\n", "")


def test_large_eta_warns_with_the_number(tmp_path: Path) -> None:
    result = call(
        "forecast", "--query", "3+4=", "--answer", "7", "--eta", 500, "--rounds", 5, "--replicas", 4,
        "--out", tmp_path / "out", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0
    assert (
        "warning:" in result.output
        and "nats" in result.output
        and "use eta <=" in " ".join(result.output.split())
    )


def test_doctor_speaks_json() -> None:
    checks = json.loads(call("doctor", "--json").stdout)["checks"]
    assert {"python", "torch", "cache"} <= {c["name"] for c in checks}
