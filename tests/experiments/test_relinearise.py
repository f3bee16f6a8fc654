"""Relinearise: nothing to correct where a network is linear, and nearer to the run where it is not."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from typer.testing import CliRunner

from bandit_sim import TreeArms, simulate
from experiments.cli import app
from experiments.contexts_spec import ContextsSpec
from experiments.drift import drift, foretold_drift
from experiments.exact import enumerate_model
from experiments.forecast import Forecast, forecast
from experiments.relinearise import (
    LOOK,
    ONWARD,
    STATE,
    Correction,
    Networks,
    correct_first,
    corrected,
    moved,
    reached,
    relinearised,
)
from experiments.specs import ForecastSpec, ModelSpec, ProbeSpec, RelineariseSpec, RunSpec
from experiments.stages import Run
from experiments.warning import ForecastWarning
from llm_bridge.adapters import AdapterSpec
from llm_bridge.full import FullSpec
from llm_bridge.masses import masses
from llm_bridge.models import LanguageModel, load_model
from llm_bridge.queries import Query
from llm_bridge.rollouts import read_prompt
from llm_bridge.train import Trainer
from theory.prefix_tree import Responses, grow
from theory.probe import Probe
from theory.response_tree import ResponseTree
from theory.rules import K3, SGD, Adam, ConstantRate, CosineDecay, MovingAverage, Rule, preset

LENGTH, TOKENS, FEATURES = 2, 3, 5


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


def spec(**changes) -> RunSpec:
    fields = {
        "query": Query(prompt="7+6=", answer="13", verifier="integer"),
        "model": ModelSpec(name="tiny-arithmetic", dtype="float64"),
        "rule": preset("minimalist", eta=0.01),
        "adapter": AdapterSpec(rank=2, blocks="all"),
        "rounds": 6,
        "replicas": 4,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=200),
        "forecast": small(4),
    }
    return RunSpec(**(fields | changes))


def small(*rounds: int, **changes) -> ForecastSpec:
    asked = RelineariseSpec(rounds=rounds) if rounds else None
    return ForecastSpec(**({"bootstraps": 1, "seeds": 16, "members": 20, "relinearise": asked} | changes))


class Small:
    """A policy of all responses of up to two tokens of three, so that its tree is exact where it was probed.

    Its logits are l + x + curvature * x^2, x = features . theta: linear in theta without a curvature.
    """

    def __init__(self, seed: int, curvature: float = 0) -> None:
        self.curvature = curvature
        rng = np.random.default_rng(seed)
        ended = [(0,), *((a, b) for a in (1, 2) for b in range(TOKENS))]
        self.responses = sorted(ended)
        self.rewards = (rng.permutation(len(ended)) < 3).astype(float)
        self.edges = [(), (1,), (2,)]
        self.logits = rng.normal(size=(3, TOKENS))
        self.features = rng.normal(size=(3, TOKENS, FEATURES))

    def probed(self, theta, rollouts: int | None, stream: int) -> Probe:
        """Everything there is, at theta; None is the base."""
        x = self.features @ (np.zeros(FEATURES) if theta is None else theta["theta"][0][0].numpy())
        logits = self.logits + x + self.curvature * x**2
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        slopes = self.features * (1 + 2 * self.curvature * x)[..., None]
        scores = slopes - np.einsum("nv,nvp->np", np.exp(logs), slopes)[:, None]
        rows = [tuple(logs[self.edges.index(y[:d]), y[d]] for d in range(len(y))) for y in self.responses]
        many = np.full(len(rows), 2)
        responses = Responses(tuple(self.responses), tuple(rows), many, self.rewards, many > 0)
        layout = grow(responses, vocabulary=TOKENS, cut=0.0, leaf_cut=0.0, keep="all")
        own = np.array([scores[self.edges.index(a.tokens[:-1]), a.tokens[-1]] for a in layout.atoms])
        meta = {"vocabulary": TOKENS, "cut": 0.0, "leaf_cut": 0.0, "keep": "all"}
        return Probe(responses, layout, own @ own.T, meta, own)

    def displaced(self, probe: Probe, shares, base):
        assert probe.scores is not None
        start = torch.zeros(1, FEATURES, dtype=torch.float64) if base is None else base["theta"][0]
        return {"theta": (start + torch.from_numpy(shares @ probe.scores),)}


def toy(
    folder: Path,
    seed: int,
    rounds: tuple[int, ...],
    networks: int = 4,
    rule: Rule | None = None,
    curvature: float = 0,
) -> Networks:
    policy = Small(seed, curvature)
    asked = RelineariseSpec(rounds=rounds, networks=networks)
    made = spec(
        rule=rule or preset("minimalist", eta=0.3), rounds=12, forecast=small(relinearise=asked, seeds=48)
    )
    return Networks(made, policy.probed(None, None, 0), folder, policy.probed, policy.displaced)  # pyright: ignore


@pytest.mark.parametrize(
    ("seed", "rule"),
    [(0, None), (1, preset("rloo", eta=0.2, rollouts=3)), (2, preset("group-mean", eta=0.3, rollouts=4))],
    ids=["minimalist", "rloo", "group-mean"],
)
def test_an_exactly_linear_network_has_nothing_to_correct(
    tmp_path: Path, seed: int, rule: Rule | None
) -> None:
    """The new probe is the old model moved: the same p, and with the same random numbers the same runs."""
    with jax.enable_x64(True):
        networks = toy(tmp_path, seed, (4, 8), rule=rule)
        correction = networks.correction()
        assert networks.base.tree().kernel.dtype == np.float64
    np.testing.assert_allclose(correction.network, correction.linear, rtol=1e-9)
    np.testing.assert_allclose(correction.difference, 0, atol=1e-9)
    assert np.std(correction.linear) > 0.01, "no learning, no test"


def test_networks_start_where_replicas_are(tmp_path: Path) -> None:
    """What is taken off the forecast has its mean: 64 networks by lot, each simulated on, within 4 standard errors."""
    networks = toy(tmp_path, 0, (6,), 64)
    tree = networks.base.tree()
    whole = simulate(TreeArms.from_tree(tree), networks.spec.rule, 12, 2048, 5)["success"]
    old = np.stack([
        simulate(
            TreeArms.from_tree(moved(tree, networks.state(k, 1)[1])), networks.spec.rule, 6, 32, 1000 + k
        )["success"].mean(axis=0)
        for k in range(64)
    ])  # fmt: skip
    error = np.sqrt(old.var(axis=0) / 64 + whole[:, 6:].var(axis=0) / 2048)
    assert (np.abs(old.mean(axis=0) - whole[:, 6:].mean(axis=0)) < 4 * error).all()


def test_a_second_round_adds_to_the_first(tmp_path: Path) -> None:
    """C_1 is the same, whatever follows it; C_2 is the new model's run less the one before's, from R_2 on."""
    one, two = (toy(tmp_path / str(len(r)), 3, r, curvature=0.3) for r in ((4,), (4, 8)))
    first, both = one.correction(), two.correction()

    def runs_on(tree: ResponseTree, k: int):
        arms, key = TreeArms.from_tree(correct_first(tree)), two.key(ONWARD, 8, k)
        return simulate(arms, two.spec.rule, 4, 12, key)["success"].mean(axis=0)

    second = np.array([
        runs_on(two.probe(k, 2).tree(), k) - runs_on(moved(two.probe(k, 1).tree(), two.state(k, 2)[1]), k)
        for k in range(4)
    ])  # fmt: skip
    np.testing.assert_allclose(both.difference[:, 8:] - first.difference[:, 8:], second, atol=1e-6)
    assert np.abs(first.difference[:, 8:]).mean() > 0.02 and np.abs(second).mean() > 0.005, "linear, no test"
    np.testing.assert_array_equal(first.difference[:, :8], both.difference[:, :8])
    np.testing.assert_array_equal(both.difference[:, :4], 0)
    np.testing.assert_array_equal(first.network[0], both.network[0])


def test_no_two_draws_share_a_key(tmp_path: Path) -> None:
    """Of any use, place and network: 31 bits, so that 120 keys differ but for one seed in 300 000."""
    networks = toy(tmp_path, 0, (4, 8))
    places = list(product((STATE, ONWARD, LOOK), range(8), range(5)))
    assert len({networks.key(*place) for place in places}) == len(places)


def test_draws_of_another_use_have_another_key(tmp_path: Path, monkeypatch) -> None:
    """Where a linearisation's number is its round, 1: the state it begins with and the runs from there on."""
    asked: list[int] = []

    def noted(tree, rule, rounds, seeds, key, **how):
        asked.append(key)
        return simulate(tree, rule, rounds, seeds, key, **how)

    def reached_noted(tree, rule, rounds, seeds, key):
        asked.append(key)
        return reached(tree, rule, rounds, seeds, key)

    monkeypatch.setattr("experiments.relinearise.simulate", noted)
    monkeypatch.setattr("experiments.relinearise.reached", reached_noted)
    toy(tmp_path, 0, (1, 2)).correction()
    # New and old linearisation of a network share the draws from a round on; a state is asked for again.
    assert len(set(asked)) == 1 + 4 + 2 * 4


def test_correct_leaves_first_is_the_same_tree() -> None:
    tree = Small(0).probed(None, None, 0).tree()
    mixed = correct_first(tree)
    assert mixed.success() == pytest.approx(tree.success())
    assert (np.diff(mixed.reward) <= 0).all() and (np.diff(tree.reward) > 0).any()


def test_members_are_moved_by_the_correction_and_its_error() -> None:
    rng = np.random.default_rng(0)
    correction = Correction((1,), rng.normal(0, 0.02, (4, 3)) - 0.1, np.zeros((1, 4)), np.zeros((1, 4)))
    members = np.full((4000, 3), 0.5)
    made = Forecast({"kernel": members, "tabular": members}, {"kernel": np.array([0.5, 0.05, 0.5])}, 0.1, 1.0)
    got = corrected(made, correction, 1)
    np.testing.assert_allclose(got.members["kernel"].mean(axis=0), 0.5 + correction.mean, atol=1e-3)
    half = np.quantile(np.abs(got.members["kernel"] - 0.5 - correction.mean), 0.5, axis=0)
    np.testing.assert_allclose(half, correction.error * stats.t(3).ppf(0.75), rtol=0.1)
    np.testing.assert_allclose(got.success["kernel"], [0.5 + correction.mean[0], 0, 0.5 + correction.mean[2]])
    assert got.members["tabular"] is members
    numbers = correction.numbers()
    assert numbers["relinearised_correction_at_end"] == correction.mean[2]


@pytest.mark.parametrize("networks", [4, 8])
def test_draws_hold_the_true_mean_as_often_as_they_say(networks: int) -> None:
    """The truth is one more draw: within the range of 39 in 38 of 40 cases. Fails for one seed in a million."""
    rng, cases = np.random.default_rng(0), 2000
    none = np.zeros((1, networks))
    held = 0
    for case in range(cases):
        draws = Correction((1,), rng.normal(0.1, 0.02, (networks, 1)), none, none).draws(39, case)
        held += bool(draws.min() < 0.1 < draws.max())
    assert stats.binomtest(held, cases, 38 / 40).pvalue > 1e-6


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

    whole = enumerate_model(tiny, "7+6=", run.reward_of, 3, run.spec.adapter).responses
    right = [y for y, paid in zip(whole.tokens, whole.rewards, strict=True) if paid > 0]
    trainer = Trainer(run.split, [run.question], run.spec.rule, replicas=64, max_tokens=3, seed=5, chunk=64)
    for _ in trainer.run(23):
        pass
    prompt = read_prompt(run.split, run.prompt)
    real = masses(run.split, prompt, trainer.factors, 64, right).sum(axis=1)
    error = real.std(ddof=1) / 8
    old, new = (float(x.forecast().success["kernel"][-1]) for x in (plain, run))
    own = relinearised(run.out, run.spec.stage("forecast"))["relinearised_correction_at_end_error"]
    assert old - real.mean() > 4 * error, "no gap, no test"
    assert abs(new - real.mean()) < 3 * np.hypot(error, own)
    assert abs(new - real.mean()) < abs(old - real.mean()) / 2


def test_a_forecast_is_found_again_and_goes_on_where_it_stopped(tmp_path: Path, tiny, monkeypatch) -> None:
    run = Run(spec(), tmp_path, model=tiny)
    calls: list[int] = []
    measured = run.measured

    def stopping(factors=None, rollouts=None, stream=0):
        calls.append(stream)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(factors, rollouts, stream)

    run.probe()
    monkeypatch.setattr(run, "measured", stopping)
    with pytest.raises(KeyboardInterrupt):
        run.forecast()
    made = run.forecast()
    assert len(calls) == 5 and calls[1] == calls[2] != calls[0], "network 0 is not probed again"
    folders = sorted(
        str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("network-*/probe.json")
    )
    assert folders == [f"relinearised/round-4/network-{k}" for k in range(4)]
    again = Run(spec(), tmp_path).forecast()  # no model is loaded
    np.testing.assert_allclose(again.members["kernel"], made.members["kernel"], atol=1e-6)

    numbers = relinearised(tmp_path, run.spec.stage("forecast"))
    assert numbers["relinearised_rounds"] == [4] and numbers["relinearised_mean"][:4] == [0] * 4
    assert numbers["relinearised_network"] != numbers["relinearised_linear"]
    plain = forecast(
        run.probe(), run.spec.rule, rounds=6, replicas=4, spec=run.spec.forecast, seed=run.spec.seed
    ).success
    np.testing.assert_allclose(
        made.success["kernel"], plain["kernel"] + np.array(numbers["relinearised_mean"]), rtol=1e-6
    )
    np.testing.assert_array_equal(made.success["tabular"], plain["tabular"])


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
    networks = run.networks()
    assert networks is not None
    correction = networks.correction()
    # The kept response's mass by the tree, and by the network put there.
    base, prompt = run.probe(), read_prompt(run.split, run.prompt)
    leaves = [base.leaf_of(response, 1.0) for response in base.kept]
    told, found = [], []
    for k in range(4):
        factors = networks.factors(k, 1)
        assert factors is not None
        told.append(base.tree().leaf_probability(networks.state(k, 1)[1])[leaves].sum())
        found.append(masses(run.split, prompt, factors, 1, base.kept).sum())
    assert np.ptp(told) > 0.04, "no learning, no test"
    np.testing.assert_allclose(found, told, atol=0.005)
    # A tree's success holds an estimate of what the probe did not see, hence the wider margin.
    np.testing.assert_allclose(correction.network, correction.linear, atol=0.01)
    meta = json.loads((tmp_path / "relinearised/round-1/network-1/probe.json").read_text())["meta"]
    assert meta["rollouts"] == 150 and meta["sketch"] == 2048


def test_no_correct_rollout_of_a_network_is_said(tmp_path: Path, tiny, monkeypatch) -> None:
    run = Run(spec(), tmp_path, model=tiny)
    run.probe()
    monkeypatch.setattr(Run, "reward_of", lambda self, tokens: 0.0)
    with pytest.raises(
        ValueError, match=r"after round 4: no correct rollout among 200 of network 0; raise --relin"
    ):
        run.forecast()


def test_a_rise_is_of_the_same_responses_before_and_after(tmp_path: Path, tiny, monkeypatch) -> None:
    """Paid is whatever begins with a 1, of which a longer probe keeps more."""
    monkeypatch.setattr(Run, "reward_of", lambda self, tokens: float(tokens[0] == 1))
    asked = small(relinearise=RelineariseSpec(rounds=(1,), rollouts=1000))
    run = Run(spec(rounds=2, probe=ProbeSpec(rollouts=60), forecast=asked), tmp_path, model=tiny)
    networks, prompt = run.networks(), read_prompt(run.split, run.prompt)
    assert networks is not None
    first, kept = run.split.adapters.fresh(1), [networks.probe(k, 1).kept for k in range(4)]
    base = [masses(run.split, prompt, first, 1, own).sum() for own in kept]
    assert min(base) > masses(run.split, prompt, first, 1, run.probe().kept).sum() + 0.005, "no test"
    for look in drift(run):
        assert look.base == pytest.approx(np.mean(base))


def test_what_is_wrong_with_a_new_linearisation_is_mended_by_its_own_options(
    tmp_path: Path, tiny, monkeypatch
) -> None:
    run = Run(spec(rounds=3, forecast=small(1)), tmp_path / "new", model=tiny)
    with monkeypatch.context() as patched:
        patched.setattr(Probe, "kept", property(lambda self: []))
        with pytest.raises(ValueError, match=r"no correct response .* raise --relinearise-rollouts"):
            drift(run)
        with pytest.raises(ValueError, match=r"no correct response .* raise --probe-rollouts"):
            drift(Run(spec(rounds=3, forecast=small()), tmp_path / "old", model=tiny))
    monkeypatch.setattr("experiments.drift.LIMIT", 0)
    with pytest.warns(
        ForecastWarning, match=r"range; relinearise more often \(--relinearise\), give a smaller"
    ):
        foretold_drift(run)


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
        ValidationError, match=rf"forecast.relinearise: .*{message}.*or leave relinearise out \(--relin"
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
    with pytest.raises(ValidationError, match=r"after round 6 of 6 changes nothing; give rounds from 1 to 5"):
        spec(forecast=small(2, 6))
    with pytest.raises(ValidationError, match=r"rounds 4, 4 do not increase"):
        small(4, 4)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        small(0)
    with pytest.raises(ValidationError, match="greater than or equal to 4"):
        RelineariseSpec(rounds=(1,), networks=3)
    with pytest.raises(ValidationError, match=r"forecast.relinearise after rounds \(4,\) is of one query"):
        ContextsSpec(queries=(spec().query,), batch=1, rule=spec().rule, forecast=small(4))


def test_older_forecasts_keep_their_hash() -> None:
    assert set(ForecastSpec().model_dump(mode="json")) == {"bootstraps", "seeds", "members"}
    assert spec(forecast=small()).stage("forecast") != spec().stage("forecast")
    assert spec(forecast=small()).stage("train") == spec().stage("train")


def test_the_command_line_relinearises(tmp_path: Path) -> None:
    words = ["--model", "tiny-arithmetic", "--query", "3+4=", "--answer", "7", "--verifier", "integer", "--rounds", "4",
             "--replicas", "2", "--max-tokens", "3", "--probe-rollouts", "200", "--eta", "0.001", "--json"]  # fmt: skip
    asked = ["--relinearise", "2", "--relinearise-networks", "5", "--relinearise-rollouts", "150"]

    def call(command: str, *more: str):
        return CliRunner().invoke(app, [command, *words, *more, "--out", str(tmp_path / "run")])

    refused = call("forecast", "--relinearise-networks", "3")
    assert refused.exit_code == 2 and "--relinearise-networks is of --relinearise" in refused.stdout
    late = call("forecast", "--relinearise", "2", "--relinearise", "4")
    assert late.exit_code == 2 and "give rounds from 1 to 3 (--relinearise)" in late.stdout
    several = call("overlay", "--relinearise", "3", "--relinearise", "1")
    assert several.exit_code == 2 and "rounds 3, 1 do not increase" in several.stdout

    told = json.loads(call("forecast", *asked).stdout)
    assert told["relinearised_rounds"] == [2] and len(told["relinearised_mean"]) == 4
    assert {
        "relinearised_drift",
        "relinearised_correction_at_end",
        "relinearised_correction_at_end_error",
    } <= set(told)
    read = RunSpec.read(tmp_path / "run" / "spec.toml").forecast.relinearise
    assert read == RelineariseSpec(rounds=(2,), networks=5, rollouts=150)
    compared = json.loads(call("overlay", *asked).stdout)
    assert compared["relinearised_correction_at_end"] == told["relinearised_correction_at_end"]
    assert compared["forecast_mean"] == told["forecast_mean"]
