"""Success of trained replicas: known responses exactly, the others by rollouts; replicas kept or retraced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.compare import final_success as module
from experiments.compare.final_success import final_success
from experiments.run.run import TRAINED, Run
from experiments.specs import ForecastSpec, HeldOut, ModelSpec, ProbeSpec, RunSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.queries.query import Query
from theory.rules import preset
from theory.rules.kl import K3

ASKED = tuple(Query(prompt=p, answer=a, verifier="integer") for p, a in (("3+4=", "7"), ("1+1=", "2")))
APART = (Query(prompt="2+6=", answer="8", verifier="integer"),)


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic")


def made(folder: Path, tiny: LanguageModel, **changes) -> Run:
    fields = {
        "queries": ASKED,
        "batch": 1,
        "held_out": HeldOut(queries=APART, every=4, rollouts=2),
        "model": ModelSpec(name="tiny-arithmetic"),
        "rule": preset("minimalist", eta=0.003),
        "rounds": 8,
        "replicas": 16,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=64),
        "forecast": ForecastSpec(bootstraps=1, seeds=16, members=40),
    }
    return Run(RunSpec(**{**fields, **changes}), folder, model=tiny)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: LanguageModel) -> Run:
    done = made(tmp_path_factory.mktemp("final"), tiny)
    done.train()
    return done


@pytest.mark.parametrize(
    "rule", [preset("minimalist", eta=0.003), preset("rloo", eta=0.003, rollouts=2)], ids=["raw", "rloo"]
)
def test_replicas_kept_and_replicas_retraced_are_the_same(tmp_path, tiny, rule) -> None:
    """A batch of one of two queries, drawn by each replica for itself."""
    done = made(tmp_path, tiny, rule=rule, replicas=4)
    kept = done.trained()
    (tmp_path / TRAINED).unlink()
    again = done.trained()
    assert kept.round == again.round == 8
    for a, b, fresh in zip(kept.parameters, again.parameters, done.trainer().parameters, strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-6)
        assert not np.allclose(a.detach(), fresh.detach(), atol=1e-4)


def test_what_a_record_does_not_hold_is_run_again(tmp_path, tiny) -> None:
    rule = preset("minimalist", eta=0.003).model_copy(update={"kl": K3(beta=0.1)})
    done = made(tmp_path, tiny, rule=rule, replicas=2, rounds=4)
    kept = done.trained()
    (tmp_path / TRAINED).unlink()
    for a, b in zip(kept.parameters, done.trained().parameters, strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())


def test_known_and_sampled_parts_together_are_the_enumerated_success(run, monkeypatch) -> None:
    """Three responses known of each query, 256 rollouts: within 4.5 standard errors of a binomial in all 96 numbers
    (chance of a false alarm below .001)."""
    exact = final_success(run, exact=True)
    assert exact.trained.shape == (16, 3) and np.abs(exact.trained - exact.base).max() > 0.02
    np.testing.assert_allclose(exact.base, exact.base[:1].repeat(16, axis=0), rtol=1e-5)
    monkeypatch.setattr(module, "MOST", 3)
    monkeypatch.setattr(module, "ROLLOUTS", 256)
    sampled = final_success(run)
    for seen, true in zip(sampled, exact, strict=True):
        rollouts = np.array([128, 128, 256])
        error = np.sqrt(true * (1 - true) / rollouts)
        assert (np.abs(seen - true) < 4.5 * error).all()
        assert np.abs(seen - true).max() > 1e-4, "some of it is sampled"


def test_a_replica_that_has_not_moved_has_gained_nothing(tmp_path, tiny, monkeypatch) -> None:
    """Eta of nothing: trained and base by the same draws, equal to the last bit."""
    monkeypatch.setattr(module, "MOST", 0)
    still = made(tmp_path, tiny, rule=preset("minimalist", eta=1e-30), replicas=3, rounds=2)
    trained, base = final_success(still)
    np.testing.assert_array_equal(trained, base)
    assert np.ptp(base, axis=0).max() > 0, "by different draws in every replica"
