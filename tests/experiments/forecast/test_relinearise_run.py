"""Relinearise on a network: nearer to the run than the forecast it corrects, found again, and told by its drift."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from linearised import small, spec

from experiments.compare.exact import enumerate_model
from experiments.forecast import network
from experiments.forecast.correction import relinearised_numbers
from experiments.forecast.drift import Drift
from experiments.forecast.drift import drift as measured
from experiments.forecast.forecast import forecast
from experiments.run.run import Run
from experiments.specs import ProbeSpec, RelineariseSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.specs import FullSpec
from llm_bridge.probe.masses import masses
from theory.refusal import Refusal
from theory.rules import preset
from theory.trees.probe import Probe
from theory.warning import ForecastWarning


def drift(run: Run) -> list[Drift]:
    return measured(run.network, run.probe(), run.relinearised)


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


def test_relinearised_is_nearer_to_the_run(tmp_path: Path, tiny: LanguageModel) -> None:
    """An answer of two tokens at a step at which the network falls behind its tangent by more than a tenth of the rise.

    The exact success of 64 trained replicas before round 24 is the judge.
    """
    asked = RelineariseSpec(rounds=(12,), networks=4)
    fields = {"rounds": 24, "replicas": 64, "probe": ProbeSpec(rollouts=1000)}
    run = Run(
        spec(**fields, forecast=small(relinearise=asked, bootstraps=4, seeds=192)),
        tmp_path / "new",
        model=tiny,
    )
    plain = Run(spec(**fields, forecast=small(bootstraps=4, seeds=192)), tmp_path / "old", model=tiny)
    (_, before), (begins, after) = drift(plain), drift(run)
    assert before.relative < -0.1 and abs(after.relative) < abs(before.relative) / 2
    # Half-way is where the new linearisation begins, and there it is the network.
    np.testing.assert_allclose(begins.network, begins.tree, rtol=1e-9)

    (question,) = run.network.questions
    whole = enumerate_model(tiny, "7+6=", question.reward_of, 3, run.spec.adapter).responses
    right = [y for y, paid in zip(whole.tokens, whole.rewards, strict=True) if paid > 0]
    other = Run(spec(**fields, seed=5), tmp_path / "other", model=tiny)
    trainer = other.network.trainer(chunk=64)
    for _ in trainer.run(23):
        pass
    (prompt,) = other.network.prompts
    real = masses(other.network.split, prompt, trainer.factors, 64, right).sum(axis=1)
    error = real.std(ddof=1) / 8
    old, new = (float(x.forecast().success["kernel", "training"][-2]) for x in (plain, run))
    own = relinearised_numbers(run.out, run.spec.stage("forecast"))["relinearised_correction_at_end_error"]
    assert old - real.mean() > 4 * error, "no gap, no test"
    assert abs(new - real.mean()) < 3 * np.hypot(error, own)
    assert abs(new - real.mean()) < abs(old - real.mean()) / 2


def test_a_forecast_is_found_again_and_goes_on_where_it_stopped(tmp_path: Path, tiny, monkeypatch) -> None:
    run = Run(spec(), tmp_path, model=tiny)
    calls: list[int] = []
    probed = run.network.probe

    def stopping(factors=None, rollouts=None, stream=0):
        calls.append(stream)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return probed(factors, rollouts, stream)

    run.probe()
    monkeypatch.setattr(run.network, "probe", stopping)
    with pytest.raises(KeyboardInterrupt):
        run.forecast()
    made = run.forecast()
    assert len(calls) == 5 and calls[1] == calls[2] != calls[0], "network 0 is not probed again"
    folders = sorted(
        str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("network-*/probe.json")
    )
    assert folders == [f"relinearised/round-4/network-{k}" for k in range(4)]
    again = Run(spec(), tmp_path).forecast()  # no model is loaded
    key = ("kernel", "training")
    np.testing.assert_array_equal(again.members[key], made.members[key])

    numbers = relinearised_numbers(tmp_path, run.spec.stage("forecast"))
    assert numbers["relinearised_rounds"] == [4] and numbers["relinearised_mean"][:4] == [0] * 4
    assert numbers["relinearised_network"] != numbers["relinearised_linear"]
    plain = forecast(run.spec, run.probe(), run.progress).success
    expected = plain[key][:-1] + np.array(numbers["relinearised_mean"])
    np.testing.assert_allclose(made.success[key][:-1], expected, rtol=1e-6)
    np.testing.assert_array_equal(made.success["tabular", "training"], plain["tabular", "training"])


def test_full_parameters_are_relinearised_one_network_after_the_other(tmp_path: Path, tiny) -> None:
    asked = small(relinearise=RelineariseSpec(rounds=(1,), rollouts=150))
    rule = preset("rloo", eta=0.002, rollouts=4)
    run = Run(
        spec(
            adapter=FullSpec(), replicas=1, rounds=2, rule=rule, forecast=asked,
            probe=ProbeSpec(rollouts=200, sketch=2048),
        ),
        tmp_path, model=tiny,
    )  # fmt: skip
    networks = run.relinearised
    assert networks is not None
    correction = networks.correction()
    # The kept response's mass by the tree, and by the network put there.
    (base,), (prompt,) = run.probe().probes, run.network.prompts
    leaves = [base.leaf_of(response, 1.0) for response in base.kept]
    told, found = [], []
    for k in range(4):
        factors = networks.factors(k, 1)
        assert factors is not None
        told.append(base.tree().leaf_probability(networks.state(k, 1)[1])[leaves].sum())
        found.append(masses(run.network.split, prompt, factors, 1, base.kept).sum())
    assert np.ptp(told) > 0.04, "no learning, no test"
    np.testing.assert_allclose(found, told, atol=0.005)
    # A tree's success holds an estimate of what the probe did not see, hence the wider margin.
    np.testing.assert_allclose(correction.network, correction.linear, atol=0.01)
    meta = json.loads((tmp_path / "relinearised/round-1/network-1/probe.json").read_text())["meta"]
    assert meta["rollouts"] == 150 and meta["sketch"] == 2048


def test_a_rise_is_of_the_same_responses_before_and_after(tmp_path: Path, tiny, monkeypatch) -> None:
    """Paid is whatever begins with a 1, of which a longer probe keeps more."""
    monkeypatch.setattr(network, "outcome", lambda model, query, tokens: float(tokens[0] == 1))
    asked = small(relinearise=RelineariseSpec(rounds=(1,), rollouts=1000))
    run = Run(spec(rounds=2, probe=ProbeSpec(rollouts=60), forecast=asked), tmp_path, model=tiny)
    networks, (prompt,), split = run.relinearised, run.network.prompts, run.network.split
    assert networks is not None
    first, kept = split.adapters.fresh(1), [networks.probe(k, 1).probes[0].kept for k in range(4)]
    base = [masses(split, prompt, first, 1, own).sum() for own in kept]
    own = run.probe().probes[0].kept
    assert min(base) > masses(split, prompt, first, 1, own).sum() + 0.005, "no test"
    for look in drift(run):
        assert look.base == pytest.approx(np.mean(base))


def test_what_is_wrong_with_a_new_linearisation_is_mended_by_its_own_options(
    tmp_path: Path, tiny, monkeypatch
) -> None:
    run = Run(spec(rounds=3, forecast=small(1)), tmp_path / "new", model=tiny)
    with monkeypatch.context() as patched:
        patched.setattr(Probe, "kept", property(lambda self: []))
        with pytest.raises(Refusal, match=r"no correct response .* raise --relinearise-rollouts"):
            drift(run)
        with pytest.raises(Refusal, match=r"no correct response .* raise --probe-rollouts"):
            drift(Run(spec(rounds=3, forecast=small()), tmp_path / "old", model=tiny))
    monkeypatch.setattr("experiments.forecast.drift.LIMIT", 0)
    with pytest.warns(
        ForecastWarning, match=r"range; relinearise more often \(--relinearise\), give a smaller"
    ):
        run.drift()


def test_no_correct_rollout_of_a_network_is_said(tmp_path: Path, tiny, monkeypatch) -> None:
    run = Run(spec(), tmp_path, model=tiny)
    run.probe()
    monkeypatch.setattr(network, "outcome", lambda model, query, tokens: 0.0)
    with pytest.raises(
        ValueError, match=r"after round 4: no correct rollout among 200 of network 0; raise --relin"
    ):
        run.forecast()
