"""A whole run on the tiny model: what it writes, and that nothing is lost when it is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.compare.numbers import forecast_numbers
from experiments.compare.overlay import overlay
from experiments.folder import store
from experiments.forecast import network
from experiments.forecast.coarse import rounding_of
from experiments.forecast.network import RoundingWarning
from experiments.run.run import Run
from experiments.specs import ForecastSpec, ModelSpec, ProbeSpec, RunSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules.dialects import preset

KEYS = [
    "p0", "p0_low", "p0_high", "rounds", "replicas", "eta",
    *(f"time_to_{level}_{side}{end}" for level in ("double", "half") for side in ("forecast", "observed")
      for end in ("", "_low", "_high")),
    "coverage_50", "coverage_90", "crps_kernel", "crps_sequence_kernel", "crps_tabular", "crps_constant",
    "crps_logistic", "residual_mean", "residual_variance", "seconds_probe", "seconds_simulate", "seconds_train",
    "tokens_probe", "tokens_train", "observed_mean", "forecast_mean", "forecast_tabular_mean",
]  # fmt: skip
FILES = [
    "spec.toml", "probe.safetensors", "probe.json", "forecast.parquet", "observed.parquet", "overlay.json",
    "overlay.png", "overlay.svg", "trained.safetensors",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic")


def spec(**changes) -> RunSpec:
    fields = {
        "queries": Query(prompt="3+4=", answer="7", verifier="integer"),
        "model": ModelSpec(name="tiny-arithmetic"),
        "rule": preset("minimalist", eta=0.01),
        "rounds": 24,
        "replicas": 8,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=256),
        "forecast": ForecastSpec(bootstraps=2, seeds=32, members=40),
    }
    return RunSpec(**(fields | changes))


class Stop(KeyboardInterrupt):
    """Somebody pressed Ctrl-C."""


def stop_at(turn: int) -> Callable[[str, int, int], None]:
    def progress(label: str, done: int, total: int) -> None:
        if label == "train" and done == turn:
            raise Stop

    return progress


def test_overlay_writes_every_file_and_every_key(tmp_path: Path, tiny: LanguageModel) -> None:
    made = overlay(Run(spec(), tmp_path / "run", model=tiny))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(FILES)
    numbers = json.loads((tmp_path / "run" / "overlay.json").read_text())
    assert not [key for key in KEYS if key not in numbers]
    assert len(numbers["observed_mean"]) == len(numbers["forecast_mean"]) == 24
    assert numbers["p0_low"] <= numbers["p0"] <= numbers["p0_high"]
    rows = pq.read_table(tmp_path / "run" / "observed.parquet")
    assert rows.num_rows == 24 * 8
    assert made.numbers["tokens_train"] == sum(len(t) for t in rows["tokens"].to_pylist())


def test_forecast_never_trains(tmp_path: Path, tiny: LanguageModel, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a forecast trained")

    monkeypatch.setattr("experiments.forecast.network.Trainer", refuse)
    # A step within which the network stays on its tangent: a forecast warns of others.
    forecast_numbers(Run(spec(rule=preset("minimalist", eta=0.002)), tmp_path / "run", model=tiny))
    assert not list((tmp_path / "run").glob("*observed*"))


@pytest.mark.parametrize("rollouts", [1, 4])
def test_interrupted_run_resumes_bit_for_bit(tmp_path: Path, tiny: LanguageModel, rollouts: int) -> None:
    rule = preset("minimalist" if rollouts == 1 else "rloo", eta=0.01, rollouts=rollouts)

    straight = Run(spec(rule=rule), tmp_path / "straight", model=tiny).train()
    with pytest.raises(Stop):
        Run(spec(rule=rule), tmp_path / "stopped", stop_at(13), tiny).train()
    assert list((tmp_path / "stopped").glob("checkpoint-000013*")), "the interrupted round is kept"
    first: list[int] = []
    resumed = Run(
        spec(rule=rule), tmp_path / "stopped", lambda label, done, total: first.append(done), tiny
    ).train()
    assert first[0] == 13, "nothing is computed twice"
    np.testing.assert_array_equal(straight.rewards, resumed.rewards)
    assert straight.tokens == resumed.tokens
    assert not list((tmp_path / "stopped").glob("checkpoint-*"))


@pytest.mark.parametrize(
    "damage", ["parquet cut", "parquet missing", "state cut", "state missing", "both empty"]
)
def test_half_written_checkpoint_is_never_read(tmp_path: Path, tiny: LanguageModel, damage: str) -> None:
    """Whatever a killed process leaves of a newer checkpoint, the older whole one is resumed from, and the
    result is the uninterrupted run's."""
    out = tmp_path / "run"
    straight = Run(spec(), tmp_path / "straight", model=tiny).train()
    with pytest.raises(Stop):
        Run(spec(), out, stop_at(20), tiny).train()
    newer = [(out / f"checkpoint-000020.{kind}").read_bytes() for kind in ("parquet", "safetensors")]
    for path in out.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(Stop):
        Run(spec(), out, stop_at(7), tiny).train()
    rows, state = newer
    left = {
        "parquet cut": (rows[: len(rows) // 2], state),
        "parquet missing": (None, state),
        "state cut": (rows, state[: len(state) // 2]),
        "state missing": (rows, None),
        "both empty": (b"", b""),
    }[damage]
    for kind, part in zip(("parquet", "safetensors"), left, strict=True):
        (out / f".checkpoint-000020.1.{kind}").write_bytes(b"half")
        if part is not None:
            (out / f"checkpoint-000020.{kind}").write_bytes(part)
    started: list[int] = []
    resumed = Run(spec(), out, lambda label, done, total: started.append(done), tiny).train()
    assert started[0] == 7, "the whole checkpoint is used, and only that"
    assert resumed.tokens == straight.tokens
    np.testing.assert_array_equal(resumed.rewards, straight.rewards)
    assert not list(out.glob("checkpoint-*"))


def test_half_written_result_is_made_again(tmp_path: Path, tiny: LanguageModel) -> None:
    first = Run(spec(rounds=3), tmp_path, model=tiny).train()
    path = tmp_path / "observed.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert Run(spec(rounds=3), tmp_path, model=tiny).train().tokens == first.tokens


def test_second_call_reuses_everything(tmp_path: Path, tiny: LanguageModel, monkeypatch) -> None:
    overlay(Run(spec(), tmp_path / "run", model=tiny))
    monkeypatch.setattr("llm_bridge.models.language_model.load_model", None)
    monkeypatch.setattr("experiments.forecast.network.measure", None)
    monkeypatch.setattr("experiments.forecast.network.Trainer", None)
    again = overlay(Run(spec(), tmp_path / "run"))
    assert again.numbers["p0"] > 0


def test_another_spec_in_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    Run(spec(), tmp_path / "run")
    with pytest.raises(Refusal, match=r"holds another run.*rounds: 24 -> 25.*another folder"):
        Run(spec(rounds=25), tmp_path / "run")


def test_read_only_folder(tmp_path: Path, monkeypatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("experiments.folder.store.tempfile.TemporaryFile", deny)
    with pytest.raises(Refusal, match=r"cannot be written.*choose a folder"):
        Run(spec(), tmp_path / "run")


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match=r"cannot be written"):
        Run(spec(), tmp_path / "file" / "run")


def test_prompt_longer_than_the_context(tmp_path: Path, tiny: LanguageModel) -> None:
    long = Query(prompt="1+" * 20 + "1=", answer="21", verifier="integer")
    with pytest.raises(Refusal, match=r"context.*shorten the query"):
        Run(spec(queries=long), tmp_path / "run", model=tiny).probe()
    snug = Query(prompt="1+1+1+1+1+1+1=", answer="7", verifier="integer")
    with pytest.raises(Refusal, match=r"max-tokens to at most 2"):
        Run(spec(queries=snug), tmp_path / "snug", model=tiny).probe()


def test_probe_and_forecast_survive_the_disk(tmp_path: Path, tiny: LanguageModel) -> None:
    run = Run(spec(), tmp_path / "run", model=tiny)
    probe, made = run.probe(), run.forecast()
    again = Run(spec(), tmp_path / "run")
    kept, read = again.probe(), again.forecast()
    np.testing.assert_array_equal(kept.probes[0].tree().kernel, probe.probes[0].tree().kernel)
    assert kept.probes[0].p0 == probe.probes[0].p0
    for part in ("members", "success", "at"):
        there, back = getattr(made, part), getattr(read, part)
        assert there.keys() == back.keys()
        for name in there:
            np.testing.assert_array_equal(back[name], there[name])


def test_the_default_adapter_fits_the_model() -> None:
    small = spec(model=ModelSpec(name="smollm2-135m"))
    assert (small.adapter.blocks, spec().adapter.blocks) == (4, "all")
    assert spec(adapter=AdapterSpec(blocks=1)).adapter.blocks == 1


def test_spec_survives_toml(tmp_path: Path) -> None:
    base = spec()
    base.write(tmp_path / "spec.toml")
    assert RunSpec.read(tmp_path / "spec.toml") == base
    (tmp_path / "spec.toml").write_text("rounds = ")
    with pytest.raises(Refusal, match=r"spec\.toml"):
        RunSpec.read(tmp_path / "spec.toml")


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), store.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_model_in_bfloat16_says_how_far_it_is_once_and_wherever_the_probe_comes_from(
    tmp_path: Path,
) -> None:
    half = spec(model=ModelSpec(name="tiny-arithmetic", dtype="bfloat16"), rounds=2, replicas=2)
    run = Run(half, tmp_path)
    with pytest.warns(RoundingWarning, match=r"differ from those in float32 by .* nats on average"):
        numbers = rounding_of(run.probe())
    assert 0 < numbers["rounding_mean"] < numbers["rounding_most"] < 1
    run.probe()  # warnings are errors: it is said once
    with pytest.warns(RoundingWarning, match="differ from those in float32"):
        Run(half, tmp_path).probe()


def test_no_memory_for_float32_loses_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> object:
        raise MemoryError("no room")

    monkeypatch.setattr(network, "rounding", full)
    half = spec(model=ModelSpec(name="tiny-arithmetic", dtype="bfloat16"), rounds=2, replicas=2)
    with pytest.warns(RoundingWarning, match="could not be measured: no room"):
        (probe,) = Run(half, tmp_path).probe().probes
    assert probe.p0 > 0 and probe.meta.rounding_mean is None


def test_full_parameters_in_bfloat16_are_refused() -> None:
    with pytest.raises(Refusal, match=r"bfloat16 with full parameters.*--dtype float32"):
        spec(model=ModelSpec(name="tiny-arithmetic", dtype="bfloat16"), adapter=FullSpec(), replicas=1)
