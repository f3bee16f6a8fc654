"""The simulator as a world: mean-field predictions against the laws they are made of, and against small steps."""

from pathlib import Path

import numpy as np
import pytest

from experiments.studies.layers.configuration import Configuration
from experiments.studies.layers.ladder import read_ladder
from experiments.studies.layers.simulator import GRID, SimulatorWorld, gap_of
from experiments.studies.layers.worlds import read_worlds
from theory.laws.finite_group import kappa
from theory.laws.two_class import advantage_gap
from theory.rules import SGD, GroupMeanStd, LeaveOneOut, MovingAverage, Raw, RewardWindow, Rule, Sign

WORLD = read_worlds()["simulator"]
assert isinstance(WORLD, SimulatorWorld)
MADE = {v.key: v.configuration for row in read_ladder() for v in row.variants}


def rule(signal, rollouts: int = 1) -> Rule:
    return Rule(signal=signal, optimiser=SGD(eta=1.0), rollouts=rollouts)


@pytest.mark.parametrize(
    ("made", "law"),
    [
        (rule(Raw()), advantage_gap("raw", GRID)),
        (rule(LeaveOneOut(), 4), advantage_gap("leave_one_out", GRID, 4)),
        (rule(Sign()), advantage_gap("plus_minus", GRID)),
        (rule(Sign(positive=0.0)), advantage_gap("negative_only", GRID)),
        (rule(MovingAverage()), np.ones_like(GRID)),
        (rule(GroupMeanStd(eps=1e-9), 8), kappa(GRID, 8)),
        (rule(GroupMeanStd(eps=1e-9, extra=7)), kappa(GRID, 8)),
        (rule(RewardWindow(window=8)), kappa(GRID, 8)),
    ],
)
def test_a_rules_gap_is_its_laws(made, law):
    np.testing.assert_allclose(gap_of(made, (0.0, 1.0))(GRID), law, rtol=1e-4, atol=1e-6)


def test_noisy_pay_scales_the_gap_by_youdens_j():
    np.testing.assert_allclose(gap_of(rule(Raw()), (0.1, 0.7))(GRID), 0.6, rtol=1e-9)


def told(key: str, **changes):
    """A prediction of the quick run, nothing simulated."""
    asked = Configuration.model_validate({**MADE[key].model_dump(), **changes})
    return WORLD.predict(asked, WORLD.spec(asked, "quick"), Path())


def test_predictions_know_what_each_layer_changes():
    lowest, none = told("minimalist/minimalist"), told("base-model/no-overlap")
    assert lowest.success == pytest.approx(none.success) and lowest.held_out is not None
    assert none.held_out == pytest.approx([none.held_out[0]] * len(none.held_out))  # pyright: ignore[reportOptionalSubscript]
    assert lowest.held_out[-1] > lowest.held_out[0] + 0.1
    assert told("reward/shuffled").success == pytest.approx([WORLD.p0["medium"]] * 21)
    ends = [told(f"difficulty/{name}").success[-1] for name in ("easy", "hard", "extremely-hard")]  # pyright: ignore[reportOptionalSubscript]
    assert ends[0] > ends[1] > ends[2]
    assert told("batch/raw-32x1").success == pytest.approx(told("batch/raw-1x1").success)
    assert told("dress/free-adam-raw-8").reason and told("dress/kl-32x1").reason


def test_runs_follow_the_prediction_where_steps_are_small(tmp_path):
    """64 seeds of 32 rollouts at a fifth of the step: within .03 of the mean field over the whole run.

    The tolerance is the mean field's own error at this step, not chance: the scatter of such a run is below .01.
    """
    world = WORLD.model_copy(
        update={
            "step": WORLD.step.model_copy(update={"sgd": 0.1}),
            "quick": WORLD.quick.model_copy(update={"rounds": 200, "seeds": 64}),
        }
    )
    asked = Configuration.model_validate({**MADE["rollouts/raw-32"].model_dump(), "difficulty": "easy"})
    spec = world.spec(asked, "quick")
    (tmp_path / "prediction.json").write_text("{}")
    seen, forecast = world.run(asked, spec, tmp_path), world.predict(asked, spec, tmp_path)
    np.testing.assert_allclose(seen.success.mean(axis=0), forecast.success, atol=0.03)  # pyright: ignore[reportArgumentType]
    assert seen.held_out is not None and forecast.held_out is not None
    np.testing.assert_allclose(seen.held_out.mean(axis=0), forecast.held_out, atol=0.03)
    wrong = np.array(forecast.without_sharing)
    assert np.abs(seen.success.mean(axis=0) - wrong).max() > 0.1, (
        "responses share features, and the tabular law does not"
    )
