"""A language model as a world, on the model that can be enumerated."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.compare.exact import enumerate_model
from experiments.forecast.network import question_of
from experiments.studies.layers import run as runner
from experiments.studies.layers.configuration import Configuration
from experiments.studies.layers.ladder import read_ladder
from experiments.studies.layers.measures import gain, held_out_gain
from experiments.studies.layers.models import ModelWorld, _model
from experiments.studies.layers.worlds import read_worlds
from llm_bridge.models.language_model import load_model

WORLD = read_worlds()["tiny-arithmetic"]
assert isinstance(WORLD, ModelWorld)
BUDGET = WORLD.quick.model_copy(
    update={"rounds": 5, "replicas": 4, "least": 2, "probe": 128, "bootstraps": 1, "seeds": 16}
)
SMALL = WORLD.model_copy(update={"quick": BUDGET})
LADDER = read_ladder()
MADE = {v.key: v.configuration for row in LADDER for v in row.variants}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("reward/shaped", "seen and not drawn"),
        ("base-model/half-overlap", "its own"),
        ("base-model/no-overlap", "no queries of another kind"),
        ("dress/free-logits", "its own"), ("batch/raw-1x1", "no whole number"),
        ("difficulty/extremely-hard", "no query of tiny-arithmetic"), ("rollouts/raw-64", "cost too much"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_run_is_refused_with_its_reason(key, reason):
    assert reason in str(SMALL.refusal(MADE[key], "quick"))


def test_where_queries_share_nothing_those_of_another_kind_are_held_out():
    for name in ("smollm2-135m", "gemma3-270m"):
        world = read_worlds()[name]
        assert isinstance(world, ModelWorld)
        alike = world.spec(MADE["minimalist/minimalist"], "full")
        unlike = world.spec(MADE["base-model/no-overlap"], "full")
        assert alike.held_out and unlike.held_out
        assert alike.held_out.queries == world.held_out[:1] and unlike.held_out.queries == world.unlike[:1]
        assert unlike.model_copy(update={"held_out": alike.held_out}) == alike


def test_helpers_count_as_rollouts_and_the_verifier_is_handed_on():
    made = SMALL.spec(MADE["advantage/extra-rollouts"], "full")
    assert made.rule.drawn == 8 and made.replicas == SMALL.full.least
    assert "8 rollouts a round cost" in str(
        SMALL.model_copy(update={"quick": BUDGET.model_copy(update={"most": 7})}).refusal(
            MADE["advantage/extra-rollouts"], "quick"
        )
    )
    assert SMALL.spec(MADE["reward/noisy"], "full").pay == MADE["reward/noisy"].pay


def test_several_queries_keep_the_share_of_a_batch_and_the_budget_of_a_round():
    """256 rollouts a round of the simulator are as many as a model has queries, split alike."""
    for key, batch, rollouts in (
        ("batch/raw-256x1", 8, 1),
        ("batch/loo-64x4", 2, 4),
        ("batch/std-32x8", 1, 8),
    ):
        made = SMALL.spec(MADE[key], "quick")
        assert (made.batch, made.rule.rollouts, len(made.queries)) == (batch, rollouts, 8)
        assert made.held_out is not None and len(made.held_out.queries) == 2
    smollm = read_worlds()["smollm2-135m"]
    assert "left to --full" in str(smollm.refusal(MADE["batch/raw-32x1"], "quick"))
    assert smollm.refusal(MADE["batch/raw-32x1"], "full") is None


@pytest.mark.slow
def test_predicted_probed_once_and_run(tmp_path, monkeypatch):
    _model("tiny-arithmetic")  # from the cache that has it
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONEARM_PROBE_CACHE")
    wanted = ("minimalist/minimalist", "advantage/moving-average", "dress/adam")
    todo = [c for c in runner.cells(LADDER, {"tiny": SMALL}, "quick", tmp_path) if c.variant.key in wanted]
    runner.run(todo[:1], {"tiny": SMALL})
    monkeypatch.setattr(
        "experiments.forecast.network.measure", None
    )  # the variants of one query share its probe
    runner.run(todo, {"tiny": SMALL})
    lowest, compared, adam = todo
    assert lowest.result is not None and compared.result is not None and adam.prediction is not None
    assert "optimiser adam" in str(adam.prediction.reason) and adam.prediction.success is None
    assert lowest.prediction is not None and lowest.prediction.made < lowest.result.started
    # Seeds are paired: in the first round all variants draw the same responses.
    np.testing.assert_array_equal(lowest.result.success[:, 0], compared.result.success[:, 0])


@pytest.mark.slow
def test_success_at_the_end_is_the_trained_replicas_own(tmp_path):
    """Enumerated: a replica without a success is the base model, the others are not; a lost end is measured again."""
    asked: Configuration = MADE["minimalist/minimalist"]
    (cell,) = [c for c in runner.cells(LADDER, {"tiny": SMALL}, "quick", tmp_path) if c.variant.number == 0]
    runner.run([cell], {"tiny": SMALL})
    assert cell.result is not None
    end = cell.result.end
    assert end is not None
    run = SMALL._run(SMALL.spec(asked, "quick"), tmp_path / "x")
    tiny, query = load_model("tiny-arithmetic"), run.spec.queries[0]
    question = question_of(tiny, query, run.spec.max_tokens)
    exact = enumerate_model(tiny, query.prompt, question.reward_of, 3, run.spec.adapter).success()
    moved = cell.result.success.sum(axis=1) > 0
    assert moved.any() and not moved.all(), "choose a budget in which some replicas succeed"
    np.testing.assert_allclose(end.base, exact, rtol=1e-5)
    np.testing.assert_array_equal(end.success[~moved], end.base[~moved])
    assert end.held_out is not None and end.held_out_base is not None
    np.testing.assert_array_equal(end.held_out[~moved], end.held_out_base[~moved])
    assert np.abs(end.success[moved] - exact).min() > 1e-4
    np.testing.assert_array_equal(gain(cell.result), end.success - end.base)
    np.testing.assert_array_equal(held_out_gain(cell.result), end.held_out - end.held_out_base)
    (cell.folder / "end.parquet").unlink()
    assert cell.result is None and cell.ran is not None
    runner.run([cell], {"tiny": SMALL})
    assert cell.result is not None and cell.result.end is not None
    np.testing.assert_array_equal(cell.result.end.success, end.success)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["advantage/extra-rollouts", "reward/shuffled"])
def test_helpers_and_a_reward_by_chance_run_on_a_model(tmp_path, key):
    """Round 1 draws what the minimalist variant draws; and success at the end is enumerated."""
    world = WORLD.model_copy(update={"full": BUDGET})
    todo = [
        c
        for c in runner.cells(LADDER, {"tiny": world}, "full", tmp_path)
        if c.variant.key in (LADDER[0].shows[0], key)
    ]
    runner.run(todo, {"tiny": world})
    plain, other = (cell.result for cell in todo)
    assert plain is not None and other is not None and other.end is not None
    shared = min(len(plain.success), len(other.success))
    np.testing.assert_array_equal(plain.success[:shared, 0], other.success[:shared, 0])
    assert todo[1].prediction is not None and todo[1].prediction.success is not None
