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
from experiments.compare.explain import explain
from experiments.compare.numbers import forecast_numbers
from experiments.compare.overlay import overlay
from experiments.folder import checkpoint
from experiments.run.run import TRAINED, Run
from experiments.specs import ForecastSpec, HeldOut, ModelSpec, ProbeSpec, RelineariseSpec, RunSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.specs import FullSpec
from llm_bridge.queries.query import Query
from theory.pay import Clean, Format, Noisy
from theory.refusal import Refusal
from theory.rules import preset
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import Rule
from theory.rules.signals.greedy import Greedy

ASKED = tuple(Query(prompt=p, answer=a, verifier="integer") for p, a in (("3+4=", "7"), ("1+1=", "2")))
APART = (Query(prompt="2+6=", answer="8", verifier="integer"),)


def spec(**changes) -> RunSpec:
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
    return RunSpec(**{**fields, **changes})


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny: LanguageModel) -> tuple[Run, dict]:
    run = Run(spec(), tmp_path_factory.mktemp("several"), model=tiny)
    return run, overlay(run).numbers


def test_the_forecast_is_there_before_anything_is_trained(tmp_path: Path, tiny: LanguageModel) -> None:
    run = Run(spec(), tmp_path, model=tiny)
    made = run.forecast()
    assert {k: x.shape[1] for k, x in made.members.items()} == {
        (kernel, name): rounds
        for kernel in ("kernel", "apart", "sequence_kernel", "tabular")
        for name, rounds in (("training", 13), ("held_out", 4))
    }
    assert not (tmp_path / "observed.parquet").exists()
    read = run.forecast()
    for name, queries in (("training", slice(0, 2)), ("held_out", slice(2, None))):
        assert read.ends(name) == made.ends(name)
        # Trees with the probe's noise begin near the measured p0, and nowhere near the end.
        p0 = np.mean([probe.p0 for probe in run.probe().probes[queries]])
        assert made.ends(name)[0] == pytest.approx(p0, abs=0.02)
    assert made.ends("training")[1] > made.ends("training")[0] + 0.05


def test_the_end_of_a_forecast_is_where_a_longer_forecast_passes(tmp_path: Path, tiny: LanguageModel) -> None:
    """After 12 rounds, where 13 rounds look for the last time: 2 rollouts of 1,024 replicas, error .01."""
    many = ForecastSpec(bootstraps=2, seeds=512, members=400)
    long, short = (
        Run(spec(rounds=n, forecast=many), tmp_path / str(n), model=tiny).forecast() for n in (13, 12)
    )
    seen = long.members["kernel", "held_out"][:, 3].mean()
    assert short.ends("held_out")[1] == pytest.approx(seen, abs=0.04)


def test_numbers_and_picture_of_both_sets(done) -> None:
    run, numbers = done
    assert json.loads((run.out / "overlay.json").read_text()) == numbers
    assert (run.out / "overlay.png").stat().st_size > 10_000
    assert len(numbers["observed_mean"]) == 13 and len(numbers["held_out_observed_mean"]) == 4
    probes = run.probe().probes
    assert numbers["held_out_p0"] == pytest.approx(probes[2].p0)
    for prefix in ("", "held_out_"):
        for kind in ("kernel", "apart", "sequence_kernel", "tabular", "constant", "logistic"):
            assert 0 <= numbers[f"{prefix}crps_{kind}"] < 1
    assert abs(numbers["residual_z"]) < 4 and len(numbers["residual_z_windows"]) == 4


def test_a_finished_run_is_read_and_not_made_again(done, tiny: LanguageModel) -> None:
    run, numbers = done
    again = Run(run.spec, run.out)  # a model would have to be loaded
    again.__dict__["language_model"] = None
    assert overlay(again).numbers == numbers


def test_an_interrupted_run_ends_as_the_whole_one(done, tmp_path: Path, tiny, monkeypatch) -> None:
    whole, _ = done
    run = Run(whole.spec, tmp_path, model=tiny)

    class Stop(Exception):
        pass

    def stop(label: str, at: int, total: int) -> None:
        if label == "train" and at == 6:
            raise Stop

    run.progress = stop
    with pytest.raises(Stop):
        run.train()
    assert checkpoint.files(tmp_path)
    run.progress = lambda label, at, total: None
    seen, expected = run.train(), whole.train()
    np.testing.assert_array_equal(seen.outcomes, expected.outcomes)
    np.testing.assert_array_equal(seen.held_out, expected.held_out)


def test_replicas_of_a_model_in_bfloat16_are_read_as_they_were_kept(tmp_path: Path) -> None:
    """What they learned is in float32 all the same."""
    half = ModelSpec(name="tiny-arithmetic", dtype="bfloat16")
    run = Run(spec(model=half, rounds=2), tmp_path)
    run.train()
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


def test_a_pay_changes_the_run_and_not_its_probe_and_stands_in_no_spec_without_one() -> None:
    base, noisy = spec(), spec(pay=Noisy(false_positive=0.5, false_negative=0.5))
    assert base.stage("probe") == noisy.stage("probe")
    assert base.stage("train") != noisy.stage("train") and base.stage("forecast") != noisy.stage("forecast")
    assert "pay" not in base.model_dump() and base == RunSpec.model_validate(base.model_dump())
    assert noisy == RunSpec.model_validate(noisy.model_dump())


def test_success_is_what_the_query_says_whatever_is_paid(tmp_path: Path, tiny: LanguageModel) -> None:
    """A judge that is always wrong: round 1 draws the same responses, is paid the contrary, and p then falls."""
    rule = preset("minimalist", eta=0.02)
    wrong = Noisy(false_positive=1.0, false_negative=1.0)
    clean, noisy = (
        Run(spec(rule=rule, pay=pay, replicas=24), tmp_path / name, model=tiny)
        for name, pay in (("clean", Clean()), ("wrong", wrong))
    )
    np.testing.assert_array_equal(clean.train().outcomes[:, 0], noisy.train().outcomes[:, 0])
    rows = pq.read_table(tmp_path / "wrong" / "observed.parquet").to_pylist()
    assert all(row["reward"] == 1 - (row["outcome"] or 0) for row in rows if row["query"] < 2)
    up, down = (run.forecast().members["kernel", "training"].mean(axis=0) for run in (clean, noisy))
    assert abs(up[0] - down[0]) < 0.15 and up[-4:].mean() > down[-4:].mean() + 0.1


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
        "forecast", "--together", "--model", "tiny-arithmetic", "--queries", str(path), "--max-tokens", "3",
        "--rounds", "6",
        "--replicas", "4", "--eta", "0.003", "--probe-rollouts", "200", "--json",
    ]  # fmt: skip


def test_the_command_holds_the_last_queries_out(tmp_path: Path) -> None:
    """Forecast alone, from a file: what is trained on and what is not is told by one number."""
    call = command(tmp_path)
    done = CliRunner().invoke(app, [*call, "--held-out", "1", "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert len(numbers["p0_of_each"]) == 3 and len(numbers["held_out_forecast_mean"]) == 2
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
    made = RunSpec.read(out / "spec.toml")
    assert len(made.queries) == len(made.apart) == 1 and made.queries[0].verifier == "last_number"
    assert made.adapter.blocks == 1 and made.probe.precision == 0.5
    probed = [json.loads((out / "probes" / f"{q:02d}" / "probe.json").read_text()) for q in range(2)]
    assert {probe["meta"]["rollouts"] for probe in probed} == {256}
    refused = CliRunner().invoke(app, [*call, "--split", "train"])
    assert refused.exit_code == 2 and "split 'train' is of gsm8k or math" in " ".join(refused.output.split())


def test_memory_against_time_changes_no_number(done, tmp_path: Path, tiny: LanguageModel) -> None:
    whole, _ = done
    small = Run(whole.spec, tmp_path, model=tiny, micro_batch=2, recompute=True)
    np.testing.assert_array_equal(small.train().outcomes, whole.train().outcomes)
    with pytest.raises(Refusal, match="micro_batch = 0; give at least 1"):
        Run(whole.spec, tmp_path, model=tiny, micro_batch=0)


def test_pay_and_kept_replicas_of_one_query_as_of_several(tmp_path: Path, tiny: LanguageModel) -> None:
    """One query is paid as several are, its replicas are kept, and its outcomes are its verifier's."""
    alone = spec(
        queries=ASKED[:1], held_out=None, pay=Noisy(false_positive=1.0, false_negative=1.0), rounds=4
    )
    run = Run(alone, tmp_path, model=tiny)
    numbers = overlay(run).numbers
    observed = run.train()
    np.testing.assert_array_equal(observed.rewards, 1 - observed.outcomes)
    assert numbers["end_observed"] == pytest.approx(observed.success("training").mean(axis=0)[-1])
    kept, state = load_file(tmp_path / TRAINED), run.trained().state()
    assert all(torch.equal(kept[name], x) for name, x in state.items()) and kept.keys() == state.keys()


@pytest.mark.parametrize("queries", [ASKED[:1], ASKED], ids=["one", "several"])
def test_helper_rollouts(tmp_path: Path, tiny: LanguageModel, queries: tuple[Query, ...]) -> None:
    """A rule whose signal draws more rollouts than it trains on; the record does not hold them, and no z is told."""
    rule = Rule(optimiser=SGD(eta=0.003), signal=Greedy(), rollouts=2)
    assert rule.signal.helpers
    numbers = overlay(Run(spec(queries=queries, rule=rule, rounds=4), tmp_path, model=tiny)).numbers
    assert len(numbers["observed_mean"]) == 4 and "residual_z" not in numbers
    with pytest.raises(Refusal, match="draws rollouts that are not trained on"):
        explain(Run(spec(queries=queries, rule=rule, rounds=4), tmp_path, model=tiny))


def test_relinearised(tmp_path: Path, tiny: LanguageModel) -> None:
    """Several queries are probed anew together: each network's folder holds all of them."""
    asked = ForecastSpec(
        bootstraps=2, seeds=16, members=40, relinearise=RelineariseSpec(rounds=(4,), rollouts=100)
    )
    run = Run(spec(forecast=asked), tmp_path, model=tiny)
    numbers = forecast_numbers(run)
    assert numbers["relinearised_rounds"] == [4] and len(numbers["relinearised_mean"]) == 13
    folders = sorted(
        path.relative_to(tmp_path).parts[:3] for path in tmp_path.rglob("network-*/gram.safetensors")
    )
    assert folders == [("relinearised", "round-4", f"network-{k}") for k in range(4)]
    plain = Run(spec(), tmp_path / "plain", model=tiny).forecast()
    made = run.forecast()
    mean = np.array(numbers["relinearised_mean"])
    assert not mean[:4].any() and np.abs(mean[4:]).max() > 1e-4
    np.testing.assert_allclose(
        made.success["kernel", "training"][:-1], plain.success["kernel", "training"][:-1] + mean, atol=1e-6
    )
    assert np.abs(made.success["kernel", "held_out"] - plain.success["kernel", "held_out"]).max() > 1e-4


def test_drift_is_of_all_queries_together(done) -> None:
    run, _ = done
    looks = run.drift()
    assert looks is not None and [look["rounds"] for look in looks] == [6, 13]
    assert looks[0]["kept_base"] < looks[0]["kept_tree"] < looks[1]["kept_tree"], "no learning, no test"
    assert abs(looks[0]["drift_of_rise"]) < 0.2


def test_explained(done) -> None:
    """The network retraced is the run's, each query's responses under its own prompt; and the gaps add up."""
    run, _ = done
    found = explain(run, at=(5, 12), rollouts=8)
    for look in found["looks"]:
        assert look["mismatch"] < 1e-4
        gaps = ("network - linear (drift)", "linear - tree (truncation)", "tree - forecast (chance)")
        assert sum(look[gap][0] for gap in gaps) == pytest.approx(look["network - forecast"][0], abs=1e-12)


def test_adam_and_all_parameters(tmp_path: Path, tiny: LanguageModel) -> None:
    """What was of one query alone: an optimiser that acts on parameters, and full parameters in one replica."""
    adam = spec(
        rule=Rule(optimiser=Adam(eta=0.002)), rounds=4, probe=ProbeSpec(rollouts=200, coordinates=256)
    )
    numbers = overlay(Run(adam, tmp_path / "adam", model=tiny)).numbers
    assert 0 <= numbers["crps_kernel"] < 1 and "crps_apart" not in numbers
    full = spec(
        adapter=FullSpec(), replicas=1, rounds=4, rule=preset("rloo", eta=0.0003, rollouts=4),
        probe=ProbeSpec(rollouts=200, sketch=4096),
    )  # fmt: skip
    run = Run(full, tmp_path / "full", model=tiny)
    numbers = overlay(run).numbers
    assert len(numbers["held_out_observed_mean"]) == 1 and numbers["crps_apart"] >= 0
    looks = run.drift()
    assert looks is not None and abs(looks[0]["drift_of_rise"]) < 0.1
