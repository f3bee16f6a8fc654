"""The forecast's own pieces: when it warns, what an optimiser needs, the comparisons, one query and several."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bandit_sim import Arms, TreeArms, simulate
from bandit_sim.arms.scored_tree import ScoredTree
from experiments.compare.exact import enumerate_model
from experiments.forecast.bandits import Drawn, held_rule, sequences_of, tabular_arms, tabular_of
from experiments.forecast.forecast import forecast, step_of
from experiments.specs import ForecastSpec, ProbeSpec, RunSpec
from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.probe.measure import measure
from llm_bridge.queries.query import Query
from llm_bridge.rollouts.asked import Question
from theory.refusal import Refusal
from theory.rules.dialects import preset
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import Rule
from theory.trees.joint_probe import JointProbe

SMALL = ForecastSpec(bootstraps=2, seeds=32, members=40)
ASKED = (("3+4=", "7"), ("1+1=", "2"), ("2+6=", "8"))


def silent(label: str, done: int, total: int) -> None:
    return None


def spec(rule: Rule, queries: int = 1, **changes: Any) -> RunSpec:
    asked = tuple(Query(prompt=p, answer=a, verifier="integer") for p, a in ASKED[:queries])
    fields = {"rounds": 3, "replicas": 4, "forecast": SMALL, "seed": 0, "max_tokens": 3}
    if not rule.optimiser.linear:
        fields["probe"] = ProbeSpec(coordinates=4)
    return RunSpec(queries=asked, rule=rule, **(fields | changes))


@pytest.fixture(scope="module")
def several() -> JointProbe:
    model = load_model("tiny-arithmetic", dtype="float64")
    whole = enumerate_model(
        model, "3+4=", lambda t: float(model.decode(list(t)) == "7"), 3, AdapterSpec(rank=2, blocks=1)
    )
    questions = [
        Question(
            model.encode_prompt(prompt),
            lambda t, answer=answer: float(model.decode(list(t)) == answer),
            model.end_tokens,
        )
        for prompt, answer in ASKED
    ]
    return measure(whole.split, questions, ProbeSpec(rollouts=400), max_tokens=3, seed=0)


@pytest.fixture(scope="module")
def joint(several: JointProbe) -> JointProbe:
    """The first query's alone."""
    return JointProbe(several.probes[:1], several.probes[0].gram)


def scored(joint: JointProbe, width: int = 4) -> JointProbe:
    """With scores of a few coordinates in place of none."""
    rng = np.random.default_rng(0)
    probes = tuple(
        replace(probe, scores=rng.normal(size=(len(probe.gram), width)), share=0.5) for probe in joint.probes
    )
    return JointProbe(probes, joint.gram)


def test_no_warning_at_a_small_step_and_one_with_the_number_at_a_large_one(joint: JointProbe) -> None:
    gentle, wild = preset("minimalist", eta=0.001), preset("minimalist", eta=1000.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast(spec(gentle), joint, silent)
    with pytest.warns(UserWarning, match=r"by up to .* nats .* use eta <="):
        forecast(spec(wild), joint, silent)
    probe = joint.probes[0]
    assert step_of(probe, wild) == pytest.approx(1e6 * step_of(probe, gentle))


def test_what_no_forecast_can_be_made_of_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(Refusal, match=r"optimiser adam acts on parameters.*--coordinates 4096"):
        spec(Rule(optimiser=Adam(eta=0.01)), probe=ProbeSpec()).check_forecast()
    with pytest.raises(Refusal, match=r"optimiser sgd with clip_norm acts on parameters"):
        spec(Rule(optimiser=SGD(eta=0.01, clip_norm=1.0)), probe=ProbeSpec()).check_forecast()


def test_a_probe_without_scores_carries_no_adam(joint: JointProbe) -> None:
    with pytest.raises(Refusal, match=r"the probe holds the scores of none.*--coordinates 4096"):
        forecast(spec(Rule(optimiser=Adam(eta=0.01))), joint, silent)


def test_an_optimiser_on_all_parameters_is_the_kernels_where_it_is_linear(joint: JointProbe) -> None:
    """A clip that never bites is SGD, which the kernel carries: the same success but for the tails' correction."""
    (probe,) = joint.probes
    tree, coefficient = probe.tree_and_scores()
    # Any factor of the kernel will do for scores; the correction of the tails is no inner product and stays out.
    values, vectors = np.linalg.eigh(probe.gram)
    own = vectors * np.sqrt(np.maximum(values, 0))
    plain = replace(tree, kernel=coefficient @ probe.gram @ coefficient.T)
    curves = [
        simulate(arms, rule, 5, 64, 0, dtype="float64")["success"].mean(axis=0)
        for arms, rule in (
            (TreeArms.from_tree(plain), Rule(optimiser=SGD(eta=0.01))),
            (ScoredTree.from_tree(tree, coefficient @ own), Rule(optimiser=SGD(eta=0.01, clip_norm=1e6))),
        )
    ]
    np.testing.assert_allclose(*curves, rtol=1e-6)
    held = JointProbe((replace(probe, scores=own),), joint.gram)
    made = forecast(spec(Rule(optimiser=Adam(eta=1e-4))), held, silent)
    for engine in ("kernel", "sequence_kernel", "tabular"):
        assert made.success[engine, "training"][0] == pytest.approx(probe.p0, rel=0.05)
    assert made.ends("training")[1] > made.ends("training")[0]


def test_adam_on_several_queries(several: JointProbe) -> None:
    """One set of parameters for all: each query's success begins at its own p0 and moves with the others'."""
    rule = Rule(optimiser=Adam(eta=1e-3))
    made = forecast(spec(rule, 3, batch=2), scored(several), silent)
    assert made.engines == ["kernel", "sequence_kernel"]
    p0 = np.mean([probe.p0 for probe in several.probes])
    assert made.ends("training")[0] == pytest.approx(p0, rel=0.05)
    assert made.ends("training")[1] != pytest.approx(made.ends("training")[0], rel=1e-3)


def test_the_norm_of_a_sample_of_parameters_is_that_of_its_share(joint: JointProbe) -> None:
    held = JointProbe(
        (replace(joint.probes[0], scores=np.zeros((len(joint.gram), 4)), share=0.25),), joint.gram
    )
    got = held_rule(held, Rule(optimiser=Adam(eta=0.01, clip_norm=2.0)))
    assert got.optimiser.clip_norm == 1.0


def test_tabular_comparison_starts_at_p0(joint: JointProbe, several: JointProbe) -> None:
    arms = tabular_arms(joint.probes[0])
    mass = np.exp(np.asarray(arms.logits))
    assert float(mass @ np.asarray(arms.reward)) == pytest.approx(joint.probes[0].p0, rel=1e-6)
    assert isinstance(tabular_of(spec(preset("minimalist")), joint), Arms)
    many = tabular_of(spec(preset("minimalist"), 3), several)
    assert isinstance(many, TreeArms)
    each = np.bincount(np.asarray(many.query), np.asarray(many.probability) * np.asarray(many.reward))
    np.testing.assert_allclose(each, [probe.p0 for probe in several.probes], rtol=1e-6)


def test_tabular_of_several_is_tabular_of_each(several: JointProbe) -> None:
    """All queries in every round: each learns as if alone at a third of the step. 2,000 seeds, 4 standard errors."""
    rule = preset("minimalist", eta=3.0)
    curves = simulate(tabular_of(spec(rule, 3), several), rule, 8, 2000, 0)["success"]
    own = [
        simulate(tabular_arms(probe), preset("minimalist", eta=1.0), 8, 2000, 1 + q)["success"]
        for q, probe in enumerate(several.probes)
    ]
    alone = np.mean([x.mean(axis=0) for x in own], axis=0)
    error = np.sqrt(curves.var(axis=0) / 2000 + sum(x.var(axis=0) for x in own) / 9 / 2000)
    assert alone[-1] > alone[0] + 10 * error[-1], "no learning, no test"
    assert (np.abs(curves.mean(axis=0) - alone) <= 4 * error + 1e-6).all()


def test_sequences_of_several_begin_where_their_trees_do(several: JointProbe) -> None:
    asked = spec(preset("minimalist", eta=0.01), 3)
    arms = sequences_of(asked, several, Drawn.of(several))
    begin = simulate(arms, asked.rule, 1, 1, 0)["success"][0, 0]
    assert begin == pytest.approx(np.mean([tree.success() for tree in Drawn.of(several).trees]), rel=1e-5)


def test_same_seed_same_forecast_and_members_are_means_over_replicas(joint: JointProbe) -> None:
    asked = spec(preset("minimalist", eta=0.01), rounds=5, seed=3)
    one, two = (forecast(asked, joint, silent) for _ in range(2))
    for key in one.members:
        np.testing.assert_array_equal(one.members[key], two.members[key])
        # A mean of four 0/1 outcomes is a multiple of a quarter.
        np.testing.assert_allclose(one.members[key] * 4, np.round(one.members[key] * 4), atol=1e-6)
    assert {key: x.shape[1] for key, x in one.members.items()} == {
        (engine, "training"): 5 for engine in ("kernel", "sequence_kernel", "tabular")
    }
    assert all(len(x) == 6 for x in one.success.values())
