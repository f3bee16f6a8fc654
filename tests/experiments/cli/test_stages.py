"""`onearm probe | forecast | train | overlay`: what is given becomes the spec of a run, or of one for each query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from theory.refusal import Refusal

ROWS = [{"query": f"{a}+4=", "answer": str(a + 4), "verifier": "integer"} for a in range(5)]


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def test_nothing_given_is_the_spec_of_the_defaults(asked: Any, tmp_path: Path) -> None:
    from experiments.specs import RunSpec
    from llm_bridge.queries.builtin import DEFAULT
    from theory.rules.dialects import preset

    assert call("overlay", "--out", tmp_path / "run").exit_code == 0
    ((stage, run),) = asked.stages
    assert stage == "overlay" and run.out == tmp_path / "run"
    assert run.spec == RunSpec(queries=(DEFAULT,), rule=preset("minimalist", eta=0.15))
    assert run.memory == {"micro_batch": 16, "recompute": False} and run.model is None


@pytest.mark.parametrize("stage", ["probe", "forecast", "train", "overlay"])
def test_every_option_reaches_its_field(stage: str, asked: Any, tmp_path: Path) -> None:
    done = call(
        stage, "--query", "3+4=", "--answer", 7, "--verifier", "integer", "--stop", r"\n", "--model", "tiny-arithmetic",
        "--dtype", "float64", "--device", "auto", "--source", "hub", "--adapter-blocks", 1, "--rule", "rloo",
        "--rollouts", 3, "--eta", 0.5, "--rounds", 9, "--replicas", 4, "--max-tokens", 3, "--seed", 7,
        "--probe-rollouts", 900, "--precision", 0.2, "--sketch", 64, "--relinearise", 2, "--relinearise", 5,
        "--relinearise-networks", 6, "--relinearise-rollouts", 80, "--micro-batch", 5, "--recompute", "--out", tmp_path,
        "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ((ran, run),) = asked.stages
    spec = run.spec
    (query,) = spec.queries
    assert ran == stage and json.loads(done.stdout) == {"query": "3+4=", "p0": 0.25}
    assert (query.prompt, query.answer, query.verifier, query.stop) == ("3+4=", "7", "integer", "\n")
    model = spec.model
    assert (model.name, model.dtype, model.device, model.source) == (
        "tiny-arithmetic",
        "float64",
        "auto",
        "hub",
    )
    assert (spec.adapter.blocks, spec.rule.rollouts, spec.rule.optimiser.eta) == (1, 3, 0.5)
    assert (spec.rounds, spec.replicas, spec.max_tokens, spec.seed) == (9, 4, 3, 7)
    assert (spec.probe.rollouts, spec.probe.precision, spec.probe.sketch) == (900, 0.2, 64)
    anew = spec.forecast.relinearise
    assert (anew.rounds, anew.networks, anew.rollouts) == ((2, 5), 6, 80)
    assert run.memory == {"micro_batch": 5, "recompute": True}


def test_adam_is_simulated_on_coordinates_of_which_there_is_a_default(asked: Any, tmp_path: Path) -> None:
    words = ("forecast", "--optimiser", "adam", "--out", tmp_path)
    assert call(*words).exit_code == call(*words, "--coordinates", 300).exit_code == 0
    assert [run.spec.probe.coordinates for run in asked.runs] == [4096, 300]
    assert {run.spec.rule.optimiser.kind for run in asked.runs} == {"adam"}


def test_full_parameters_are_an_adapter_of_another_kind(asked: Any, tmp_path: Path) -> None:
    from llm_bridge.network.specs import FullSpec

    assert call("train", "--full", "--replicas", 1, "--out", tmp_path).exit_code == 0
    assert asked.runs[0].spec.adapter == FullSpec()
    both = call("train", "--full", "--adapter-blocks", 2, "--out", tmp_path)
    assert both.exit_code == 2 and "give one of them" in both.output


def test_pay_goes_by_name(asked: Any, tmp_path: Path) -> None:
    from theory.pay import named_pay

    assert call("train", "--pay", "plus_minus", "--out", tmp_path).exit_code == 0
    assert asked.runs[0].spec.pay == named_pay("plus_minus") != named_pay("clean")
    unknown = call("train", "--pay", "gold", "--out", tmp_path)
    assert unknown.exit_code == 2 and "gold" in unknown.output and "plus_minus" in unknown.output


def test_each_query_of_a_file_is_a_run_in_its_own_folder(asked: Any, tmp_path: Path, file: Path) -> None:
    asked.refused["2+4="] = Refusal("no correct [rollout]")
    done = call("overlay", "--queries", file, "--out", tmp_path / "many", "--json")
    assert done.exit_code == 1
    assert [run.out.name for run in asked.runs] == [f"{i:02d}-{i}-4" for i in range(5)]
    assert [[q.prompt for q in run.spec.queries] for run in asked.runs] == [[row["query"]] for row in ROWS]
    assert {run.model for run in asked.runs} == {"model smollm2-135m"}, "loaded once for all"
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "many" / "summary.json").read_text())
    assert said["queries"][2]["error"] == "no correct [rollout]" and "p0" in said["queries"][3]
    assert said["pooled"] == {"pooled_of": 5}
    assert "error: no correct [rollout]" in done.stderr
    shown = call("probe", "--queries", file, "--out", tmp_path / "other")
    assert "03-3-4" in shown.stdout and "pooled" not in shown.stdout


def test_a_bug_in_one_of_several_runs_is_not_passed_over(asked: Any, tmp_path: Path, file: Path) -> None:
    asked.refused["2+4="] = ValueError("operands could not be broadcast together")
    done = call("forecast", "--queries", file, "--out", tmp_path / "many")
    assert done.exit_code == 1 and done.exception is asked.refused["2+4="] and len(asked.runs) == 3


def test_together_is_one_run_of_all(asked: Any, tmp_path: Path, file: Path) -> None:
    words = ("overlay", "--queries", file, "--together", "--out", tmp_path / "one")
    assert call(*words).exit_code == 0
    assert call(*words, "--batch", 2, "--held-out", 2, "--look-every", 3, "--look-rollouts", 7).exit_code == 0
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"query": "9+9=", "answer": "18"}))
    assert call(*words, "--held-out", other, "--verifier", "integer").exit_code == 0
    plain, parted, apart = (run.spec for run in asked.runs)
    assert {run.out for run in asked.runs} == {tmp_path / "one"}
    assert (len(plain.queries), plain.batch, plain.held_out) == (5, 5, None)
    assert ([q.prompt for q in parted.queries], parted.batch) == (["0+4=", "1+4=", "2+4="], 2)
    held = parted.held_out
    assert ([q.prompt for q in held.queries], held.every, held.rollouts) == (["3+4=", "4+4="], 3, 7)
    assert [(q.prompt, q.verifier) for q in apart.held_out.queries] == [("9+9=", "integer")]
    assert (apart.held_out.every, apart.held_out.rollouts, len(apart.queries)) == (5, 4, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--together"], "give --queries FILE"),
        (["--batch", 2], "--batch is of one run of several queries; give --together"),
        (
            ["--queries", "builtin", "--held-out", 2],
            "--held-out is of one run of several queries; give --together",
        ),
        (["--queries", "builtin", "--look-every", 2], "--look-every is of one run of several queries"),
        (["--queries", "builtin", "--together", "--look-rollouts", 2], "--look-rollouts is of --held-out"),
        (["--queries", "builtin", "--together", "--held-out", 0], "--held-out 0 of"),
        (["--queries", "builtin", "--together", "--held-out", 9999], "--held-out 9999 of"),
        (["--queries", "builtin", "--together", "--batch", 9999], "batch = 9999 of"),
        (["--relinearise-networks", 4], "--relinearise-networks is of --relinearise"),
        (["--size", 3], "--size and --split are of --queries"),
        (["--stop", ";"], "--stop is of --query"),
        (["--query", "2+2="], "give both"),
        (["--query", "2+2=", "--answer", 4, "--queries", "builtin"], "exclude each other"),
    ],
)
def test_what_does_not_go_together_is_refused_and_names_the_fix(
    words: list[object], message: str, asked: Any, tmp_path: Path
) -> None:
    done = call("overlay", *words, "--out", tmp_path / "run")
    assert done.exit_code == 2 and message in " ".join(done.output.split())
    assert not asked.runs and not (tmp_path / "run").exists()


def test_a_run_without_a_terminal_says_what_is_to_come(asked: Any, tmp_path: Path) -> None:
    done = call("overlay", "--rollouts", 4, "--rule", "rloo", "--rounds", 9, "--out", tmp_path)
    first, last = (line for line in done.stderr.splitlines() if line)
    assert first == (
        "overlay: probe (2,048 rollouts of the base model); then forecast (16 x 192 simulated runs of 9 rounds); then "
        "train (9 rounds x 32 replicas x 4 rollouts)"
    )
    assert last.startswith("train: 9 of 9 in")


def test_relinearise_leaves_the_defaults_of_several_queries(asked: Any, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [{"query": f"{n}+1=", "answer": str(n + 1)} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    done = call("forecast", "--queries", path, "--together", "--relinearise", 4, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (run,) = asked.runs
    assert (run.spec.forecast.bootstraps, run.spec.forecast.seeds) == (8, 128)
    assert run.spec.forecast.relinearise.rounds == (4,)
