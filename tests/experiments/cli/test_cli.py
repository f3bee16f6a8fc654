"""The command line as a user meets it: numbers, help, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.cli.command import Given
from experiments.cli.given_queries import queries_of
from experiments.specs import RunSpec
from llm_bridge.queries.query import Query

TINY = ["--model", "tiny-arithmetic", "--max-tokens", "3", "--verifier", "integer", "--probe-rollouts", "200"]


def call(*words: str):
    return CliRunner().invoke(app, [str(w) for w in words])


def asked(**options: object) -> list[Query]:
    """The queries of a call with these options."""
    names = ("query", "answer", "verifier", "stop", "queries", "size", "split")
    return queries_of(Given({**dict.fromkeys(names), "seed": 0, **options}))


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--engine", "tree"],
            "--engine tree does not pull two_class arms; use dense, lumped, event or auto",
        ),
        (["--every", 7], "every = 7 does not divide rounds = 100"),
        (["--observe", "luck"], "observe"),
        (["--rule", "rlo"], "rule 'rlo' is unknown"),
        (["--pay", "generous"], "pay 'generous': 'generous' is unknown; choose clean, plus_minus"),
        (["--arms", 1], "correct = 1 of arms = 1"),
        (["--spec", "nowhere.toml"], "--spec nowhere.toml cannot be read"),
        (["--profile", "power_law", "--sigma", 2], "sigma"),
        (
            ["--engine", "event", "--rule", "rloo", "--pay", "noisy:false_positive=.1"],
            "lumped engine",
        ),
    ],
)
def test_simulate_names_what_it_cannot_do(words, message) -> None:
    result = call("simulate", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_simulate_from_a_file_changed_by_a_flag(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(
        'rounds = 8\nseeds = 16\nevery = 4\nobserve = ["success", "entropy"]\n'
        '[bandit]\nkind = "contexts"\np0 = [0.2, 0.3]\nbatch = 2\n[rule]\npreset = "rloo"\neta = 0.5\n'
    )
    words = ("simulate", "--spec", tmp_path / "spec.toml", "--seeds", 8, "--out", tmp_path / "out", "--json")
    numbers = json.loads(call(*words).stdout)
    assert (numbers["engine"], numbers["rule"], numbers["seeds"]) == ("contexts", "rloo", 8)
    assert 0.2 < numbers["success_mean"] < 1 and numbers["entropy_mean"] > 0
    files = {"simulate.json", "simulate.parquet", "simulate.png", "simulate.svg", "simulate-entropy.png"}
    assert files <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("bandit", "engine", "observe"),
    [
        ('kind = "lazy_tree"\ndepth = 30\nroughness = 0.5\nseed = 3', "lazy_tree", "length"),
        ('kind = "synthetic_forest"\nheld_out = [0.1]\nwrong = 3\noverlap = 0.5', "tree_kernel", "held_out"),
    ],
)
def test_simulate_trees_of_any_size_and_many_of_them(
    bandit: str, engine: str, observe: str, tmp_path: Path
) -> None:
    (tmp_path / "spec.toml").write_text(f"rounds = 12\nseeds = 8\nevery = 6\n[bandit]\n{bandit}\n")
    numbers = json.loads(
        call("simulate", "--spec", tmp_path / "spec.toml", "--observe", observe, "--json").stdout
    )
    assert numbers["engine"] == engine
    assert 0 < numbers["success_mean"] < 1 and numbers[f"{observe}_mean"] > 0


@pytest.mark.parametrize("engine", ["lumped", "event"])
def test_simulate_a_million_million_arms(engine: str) -> None:
    words = ("--arms", 10**12, "--correct", 3, "--p0", 0.1, "--rounds", 20, "--seeds", 64, "--engine", engine)
    numbers = json.loads(call("simulate", *words, "--json").stdout)
    assert numbers["engine"] == engine and 0.1 < numbers["success_mean"] < 1


@pytest.mark.parametrize(
    ("command", "key"), [("probe", "p0"), ("forecast", "success_at_end"), ("train", "success_last_tenth")]
)
def test_each_stage_alone_prints_its_numbers(command: str, key: str, tmp_path: Path) -> None:
    query = ["--query", "3+4=", "--answer", "7", "--rounds", 4, "--replicas", 4]
    result = call(command, *query, *TINY, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert 0 < json.loads(result.stdout)[key] <= 1


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
        (["--rule", "no-such-rule"], "choose one of"),
        (["--rule", "rloo", "--rollouts", "1"], "leave_one_out needs rollouts >= 2"),
        (["--eta", "-1"], "greater than 0"),
        (["--query", "2+2=", "--answer", "four"], "cannot be parsed"),
        (["--rounds", "0"], "greater than or equal to 1"),
        (["--dtype", "int8"], "float32"),
        (["--adapter-blocks", "0"], "greater than or equal to 1"),
        (
            ["--adapter-blocks", "3", "--query", "3+4=", "--answer", "7", *TINY],
            "but the model has 2 blocks; give at most 2",
        ),
        (["--precision", "0.1", "--probe-rollouts", "256"], "precision 0.1 changes nothing in 256 rollouts"),
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


def test_a_stop_is_of_the_query_on_the_command_line() -> None:
    assert asked(query="3+4=", answer="7", stop=r"\n")[0].stop == "\n"


def test_a_verifier_that_is_given_judges_every_query_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [{"query": "3+4=", "answer": "7", "verifier": "gsm8k"}, {"query": "1+1=", "answer": "2"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [one.verifier for one in asked(queries=str(path))] == ["gsm8k", "last_number"]
    assert [one.verifier for one in asked(queries=str(path), verifier="integer")] == ["integer"] * 2
    assert [one.verifier for one in (*asked(), *asked(verifier="integer"))] == ["last_number", "integer"]

    result = call("probe", "--queries", path, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 0, result.output
    specs = [RunSpec.read(folder / "spec.toml") for folder in sorted((tmp_path / "out").glob("0*"))]
    assert [spec.queries[0].verifier for spec in specs] == ["integer"] * 2

    path.write_text('{"query": "Half of 1?", "answer": "0.5", "name": "half"}')
    result = call("probe", "--queries", path, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 2
    assert "query 'half': answer '0.5' cannot be parsed by verifier 'integer'" in " ".join(
        result.output.split()
    )


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
    said = json.loads(call("doctor", "--json").stdout)
    checks = said["checks"]
    assert said["ok"] == all(c["ok"] for c in checks if c["needed"])
    assert next(c for c in checks if c["name"] == "smollm2-135m")["needed"]
    assert not next(c for c in checks if c["name"] == "gemma3-270m")["needed"]
    assert {"python", "torch", "cache", "smollm2-135m", "gemma3-270m"} <= {c["name"] for c in checks}


def test_doctor_tells_of_extras_and_the_size_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.cli import doctor

    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(bytes(3 * 2**20))
    assert "(model: 3 MiB)" in doctor._cache().found
    checks = doctor._extras()
    missing = {"not-a-package": ("data", "tables")}
    monkeypatch.setattr(doctor, "EXTRAS", {"pytest": ("dev", "tests"), **missing})
    there, lacking = doctor._extras()
    assert there.ok and there.found == pytest.__version__ and not there.needed
    assert not lacking.ok and lacking.fix == "pip install 'onearm[data]' for tables" and not lacking.needed
    assert [check.name for check in checks] == ["datasets", "reasoning-gym", "trl"]


def test_a_law_is_printed_drawn_and_its_parameters_are_options(tmp_path: Path) -> None:
    numbers = json.loads(
        call("law", "birth-chain", "--p0", 0.2, "--rounds", 30, "--out", tmp_path, "--json").stdout
    )
    assert numbers["p0"] == 0.2 and numbers["mean"][0] == pytest.approx(0.2)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png", ".svg"}
    assert "--p0" in call("law", "birth-chain", "--help").output
    assert call("law", "birth-chain", "--p0", 2.0).exit_code == 2
    assert call("law", "no-such-law").exit_code == 2


def test_the_table_of_laws_lists_every_law_and_is_the_one_in_the_docs() -> None:
    from experiments.studies.laws_page import markdown
    from theory.laws import LAWS

    listed = json.loads(call("law", "--list", "--json").stdout)["laws"]
    assert [row["name"] for row in listed] == list(LAWS)
    assert Path("docs/laws.md").read_text() == markdown(), "run make laws"


def test_explain_wants_a_run_folder(tmp_path: Path) -> None:
    result = call("explain", tmp_path)
    assert result.exit_code == 2 and "is no run folder" in " ".join(result.output.split())
