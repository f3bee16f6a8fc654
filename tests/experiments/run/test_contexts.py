"""Several queries in one run: forecast before training, stages found again, an interrupted run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.compare.contexts_overlay import overlay
from experiments.folder import checkpoint
from experiments.run.contexts import TRAINED, ContextsRun
from experiments.specs.contexts_spec import ContextsSpec, HeldOut
from experiments.specs.run_spec import ForecastSpec, ModelSpec, ProbeSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.queries.query import Query
from theory.pay import Clean, Format, Noisy
from theory.refusal import Refusal
from theory.rules import preset

ASKED = tuple(Query(prompt=p, answer=a, verifier="integer") for p, a in (("3+4=", "7"), ("1+1=", "2")))
APART = (Query(prompt="2+6=", answer="8", verifier="integer"),)


def spec(**changes) -> ContextsSpec:
    fields = {
        "queries": ASKED,
        "batch": 1,
        "held_out": HeldOut(queries=APART, every=4, rollouts=2),
        "model": ModelSpec(name="tiny-arithmetic"),
        "rule": preset("minimalist", eta=0.003),
        "rounds": 13,
        "replicas": 4,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=200),
        "forecast": ForecastSpec(bootstraps=2, seeds=16, members=40),
    }
    return ContextsSpec(**{**fields, **changes})


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny: LanguageModel) -> tuple[ContextsRun, dict]:
    run = ContextsRun(spec(), tmp_path_factory.mktemp("contexts"), model=tiny)
    return run, overlay(run)


def test_the_forecast_is_there_before_anything_is_trained(tmp_path: Path, tiny: LanguageModel) -> None:
    run = ContextsRun(spec(), tmp_path, model=tiny)
    made = run.forecast()
    assert {k: x.shape[1] for k, x in made.members.items()} == {
        (kernel, name): rounds
        for kernel in ("joint", "apart")
        for name, rounds in (("training", 13), ("held_out", 4))
    }
    assert not (tmp_path / "observed.parquet").exists()
    read = run.forecast()
    for name, queries in (("training", slice(0, 2)), ("held_out", slice(2, None))):
        np.testing.assert_array_equal(read.ends[name], made.ends[name])
        # Trees with the probe's noise begin near the measured p0, and nowhere near the end.
        p0 = np.mean([probe.p0 for probe in run.probe().probes[queries]])
        assert made.ends[name][0] == pytest.approx(p0, abs=0.02)
    assert made.ends["training"][1] > made.ends["training"][0] + 0.05


def test_the_end_foretold_is_where_a_longer_forecast_passes(tmp_path: Path, tiny: LanguageModel) -> None:
    """After 12 rounds, where 13 rounds look for the last time: 2 rollouts of 1,024 replicas, error .01."""
    many = ForecastSpec(bootstraps=2, seeds=512, members=400)
    long, short = (
        ContextsRun(spec(rounds=n, forecast=many), tmp_path / str(n), model=tiny).forecast() for n in (13, 12)
    )
    seen = long.members["joint", "held_out"][:, 3].mean()
    assert short.ends["held_out"][1] == pytest.approx(seen, abs=0.04)


def test_numbers_and_picture_of_both_sets(done) -> None:
    run, numbers = done
    assert json.loads((run.out / "contexts.json").read_text()) == numbers
    assert (run.out / "contexts.png").stat().st_size > 10_000
    assert len(numbers["training_observed"]) == 13 and len(numbers["held_out_observed"]) == 4
    probes = run.probe().probes
    assert numbers["held_out_p0"] == pytest.approx(probes[2].p0)
    for name in ("training", "held_out"):
        for kind in ("joint", "apart", "constant", "logistic"):
            assert 0 <= numbers[f"{name}_crps_{kind}"] < 1


def test_a_finished_run_is_read_and_not_made_again(done, tiny: LanguageModel) -> None:
    run, numbers = done
    again = ContextsRun(run.spec, run.out)  # a model would have to be loaded
    again.__dict__["language_model"] = None
    assert overlay(again) == numbers


def test_an_interrupted_run_ends_as_the_whole_one(done, tmp_path: Path, tiny, monkeypatch) -> None:
    whole, _ = done
    run = ContextsRun(whole.spec, tmp_path, model=tiny)

    class Stop(Exception):
        pass

    def stop(label: str, at: int, total: int) -> None:
        if label == "train" and at == 6:
            raise Stop

    run.progress = stop
    with pytest.raises(Stop):
        run.observe()
    assert checkpoint.files(tmp_path)
    run.progress = lambda label, at, total: None
    seen, expected = run.observe(), whole.observe()
    np.testing.assert_array_equal(seen.training, expected.training)
    np.testing.assert_array_equal(seen.held_out, expected.held_out)


def test_replicas_of_a_model_in_bfloat16_are_read_as_they_were_kept(tmp_path: Path) -> None:
    """What they learned is in float32 all the same."""
    half = ModelSpec(name="tiny-arithmetic", dtype="bfloat16")
    run = ContextsRun(spec(model=half, rounds=2), tmp_path)
    run.observe()
    kept, state = load_file(tmp_path / TRAINED), run.trained().state()
    factors = [x for name, x in state.items() if name.startswith("factor.")]
    assert all(x.dtype == torch.float32 and x.count_nonzero() for x in factors) and factors, "no test"
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[name], x) for name, x in state.items())


def test_stages_change_with_what_they_depend_on() -> None:
    base, faster = spec(), spec(rule=preset("minimalist", eta=0.004))
    more = spec(probe=ProbeSpec(rollouts=300))
    assert base.stage("probe") == faster.stage("probe") != more.stage("probe")
    assert base.stage("train") == more.stage("train") != faster.stage("train")
    assert len({s.stage("forecast") for s in (base, faster, more)}) == 3


def test_pay_changes_the_run_and_not_its_probe_and_no_hash_of_runs_without_one() -> None:
    base, noisy = spec(), spec(pay=Noisy(false_positive=0.5, false_negative=0.5))
    assert base.stage("probe") == noisy.stage("probe")
    assert base.stage("train") != noisy.stage("train") and base.stage("forecast") != noisy.stage("forecast")
    assert "pay" not in base.model_dump() and base == ContextsSpec.model_validate(base.model_dump())
    assert noisy == ContextsSpec.model_validate(noisy.model_dump())


def test_success_is_what_the_query_says_whatever_is_paid(tmp_path: Path, tiny: LanguageModel) -> None:
    """All of it judged wrongly: round 1 draws the same responses, is paid the contrary, and p then falls."""
    rule = preset("minimalist", eta=0.02)
    wrong = Noisy(false_positive=1.0, false_negative=1.0)
    clean, noisy = (
        ContextsRun(spec(rule=rule, pay=pay, replicas=24), tmp_path / name, model=tiny)
        for name, pay in (("clean", Clean()), ("wrong", wrong))
    )
    np.testing.assert_array_equal(clean.observe().training[:, 0], noisy.observe().training[:, 0])
    rows = pq.read_table(tmp_path / "wrong" / "observed.parquet").to_pylist()
    assert all(row["reward"] == 1 - (row["outcome"] or 0) for row in rows if row["query"] < 2)
    up, down = (run.forecast().members["joint", "training"].mean(axis=0) for run in (clean, noisy))
    assert abs(up[0] - down[0]) < 0.15 and up[-4:].mean() > down[-4:].mean() + 0.1


def test_older_hashes_stay() -> None:
    """The golden stages were printed by the version before contexts and runs of one query shared a base."""
    stages = [spec().stage(name) for name in ("probe", "forecast", "train", "overlay")]
    assert stages == ["3632456ac6ef", "57370145c6fd", "c5b6d3dfe9b6", "57370145c6fd"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 3}, "batch = 3 of 2 training queries"),
        ({"held_out": HeldOut(queries=ASKED[:1])}, "is trained on and held out"),
        ({"queries": ()}, "at least 1 item"),
        ({"pay": Format(wrong=0.5)}, "well-formed, which of a text is seen"),
    ],
)
def test_bad_specs(changes: dict, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        spec(**changes)


def command(folder: Path) -> list[str]:
    """A call that forecasts the three queries, from a file, without training."""
    rows = [{"query": q.prompt, "answer": q.answer, "verifier": q.verifier} for q in (*ASKED, *APART)]
    path = folder / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return [
        "contexts", "--model", "tiny-arithmetic", "--queries", str(path), "--max-tokens", "3", "--rounds", "6",
        "--replicas", "4", "--eta", "0.003", "--probe-rollouts", "200", "--no-train", "--json",
    ]  # fmt: skip


def test_the_command_holds_the_last_queries_out(tmp_path: Path) -> None:
    """Forecast alone, from a file: what is trained on and what is not is told by one number."""
    call = command(tmp_path)
    done = CliRunner().invoke(app, [*call, "--held-out", "1", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert len(numbers["p0"]) == 3 and len(numbers["held_out_joint"]) == 2
    assert not (tmp_path / "run" / "observed.parquet").exists()
    refused = CliRunner().invoke(app, [*call, "--held-out", "3", "--out", str(tmp_path / "other")])
    assert refused.exit_code == 2 and "--held-out 3 of 3 queries" in refused.output


def test_the_command_takes_what_overlay_takes(tmp_path: Path) -> None:
    """A part of the file, another verifier, fewer blocks, and a probe that stops early: as the spec says."""
    words = ["--size", "2", "--verifier", "last_number", "--adapter-blocks", "1", "--probe-rollouts", "600"]
    out = tmp_path / "run"
    call = [*command(tmp_path), *words, "--precision", "0.5", "--held-out", "1", "--out", str(out)]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    made = ContextsSpec.read(out / "spec.toml")
    assert len(made.queries) == len(made.apart) == 1 and made.queries[0].verifier == "last_number"
    assert made.adapter.blocks == 1 and made.probe.precision == 0.5
    probed = [json.loads((out / "probes" / f"{q:02d}" / "probe.json").read_text()) for q in range(2)]
    assert {probe["meta"]["rollouts"] for probe in probed} == {256}
    refused = CliRunner().invoke(app, [*call, "--split", "train"])
    assert refused.exit_code == 2 and "split 'train' is of gsm8k or math" in " ".join(refused.output.split())


def test_memory_against_time_changes_no_number(done, tmp_path: Path, tiny: LanguageModel) -> None:
    whole, _ = done
    small = ContextsRun(whole.spec, tmp_path, model=tiny, micro_batch=2, recompute=True)
    np.testing.assert_array_equal(small.observe().training, whole.observe().training)
    with pytest.raises(Refusal, match="micro_batch = 0; give at least 1"):
        ContextsRun(whole.spec, tmp_path, model=tiny, micro_batch=0)
