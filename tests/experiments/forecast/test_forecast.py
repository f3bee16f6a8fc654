"""The forecast's own pieces: which paths a rule needs, when it warns, the tabular comparison."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from bandit_sim import TreeArms, simulate
from experiments.compare.exact import enumerate_model
from experiments.forecast.forecast import forecast, held_rule, largest_step, scored, tabular_arms
from experiments.specs.run_spec import ForecastSpec
from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.probe.measure import measure
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.rollouts.asked import Question
from theory.refusal import Refusal
from theory.rules.dialects import preset
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import Rule
from theory.trees.probe import Probe
from theory.warning import ForecastWarning

SMALL = ForecastSpec(bootstraps=2, seeds=32, members=40)


@pytest.fixture(scope="module")
def probe() -> Probe:
    model = load_model("tiny-arithmetic", dtype="float64")
    whole = enumerate_model(
        model, "3+4=", lambda t: float(model.decode(list(t)) == "7"), 3, AdapterSpec(rank=2, blocks=1)
    )
    question = Question(whole.prompt.tokens, lambda t: float(model.decode(list(t)) == "7"), model.end_tokens)
    spec = ProbeSpec(rollouts=400)
    return measure(whole.split, [question], spec, max_tokens=3, seed=0, keep="correct").probes[0]


def test_no_warning_at_a_small_step_and_one_with_the_number_at_a_large_one(probe: Probe) -> None:
    gentle = preset("minimalist", eta=0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast(probe, gentle, rounds=3, replicas=4, spec=SMALL)
    wild = preset("minimalist", eta=1000.0)
    with pytest.warns(ForecastWarning, match=r"by up to .* nats .* use eta <="):
        forecast(probe, wild, rounds=3, replicas=4, spec=SMALL)
    assert largest_step(probe, wild) == pytest.approx(1e6 * largest_step(probe, gentle))


def test_adam_needs_the_scores_themselves(probe: Probe) -> None:
    with pytest.raises(Refusal, match=r"optimiser adam acts on parameters.*--coordinates 4096"):
        forecast(probe, Rule(optimiser=Adam(eta=0.01)), rounds=3, replicas=4, spec=SMALL)
    with pytest.raises(Refusal, match=r"optimiser sgd with clip_norm acts on parameters"):
        forecast(probe, Rule(optimiser=SGD(eta=0.01, clip_norm=1.0)), rounds=3, replicas=4, spec=SMALL)


def test_an_optimiser_on_all_parameters_is_the_kernels_where_it_is_linear(probe: Probe) -> None:
    """A clip that never bites is SGD, which the kernel carries: the same success but for the tails' correction."""
    tree, coefficient = probe.tree_and_scores()
    # Any factor of the kernel will do for scores; the correction of the tails is no inner product and stays out.
    values, vectors = np.linalg.eigh(probe.gram)
    held = replace(probe, scores=vectors * np.sqrt(np.maximum(values, 0)))
    plain = replace(tree, kernel=coefficient @ probe.gram @ coefficient.T)
    curves = [
        simulate(arms, rule, 5, 64, 0, dtype="float64")["success"].mean(axis=0)
        for arms, rule in (
            (TreeArms.from_tree(plain), Rule(optimiser=SGD(eta=0.01))),
            (scored(held, tree, coefficient), Rule(optimiser=SGD(eta=0.01, clip_norm=1e6))),
        )
    ]
    np.testing.assert_allclose(*curves, rtol=1e-6)
    made = forecast(held, Rule(optimiser=Adam(eta=1e-4)), rounds=3, replicas=4, spec=SMALL)
    for name in ("kernel", "sequence_kernel", "tabular"):
        assert made.success[name][0] == pytest.approx(probe.p0, rel=0.05)
    assert made.success["kernel"][-1] > made.success["kernel"][0]


def test_the_norm_of_a_sample_of_parameters_is_that_of_its_share(probe: Probe) -> None:
    held = replace(probe, scores=np.zeros((len(probe.gram), 4)), share=0.25)
    got = held_rule(held, Rule(optimiser=Adam(eta=0.01, clip_norm=2.0)))
    assert got.optimiser.clip_norm == 1.0


def test_tabular_comparison_starts_at_p0(probe: Probe) -> None:
    arms = tabular_arms(probe)
    mass = np.exp(np.asarray(arms.logits))
    assert float(mass @ np.asarray(arms.reward)) == pytest.approx(probe.p0, rel=1e-6)


def test_same_seed_same_forecast_and_members_are_means_over_replicas(probe: Probe) -> None:
    rule = preset("minimalist", eta=0.01)
    one, two = (forecast(probe, rule, rounds=5, replicas=4, spec=SMALL, seed=3) for _ in range(2))
    for name in one.members:
        np.testing.assert_array_equal(one.members[name], two.members[name])
        # A mean of four 0/1 outcomes is a multiple of a quarter.
        np.testing.assert_allclose(one.members[name] * 4, np.round(one.members[name] * 4), atol=1e-6)
