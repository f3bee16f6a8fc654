"""Every signal's drift and variance: every group through the simulator, every rule's own arithmetic, and mutants."""

from itertools import product

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim import Arms, expected_step
from tests.theory.laws.engine import one_round
from tests.theory.laws.mutation import survivors
from theory.laws import finite_group, two_class
from theory.refusal import Refusal
from theory.rules import SGD, GroupMean, GroupMeanStd, LeaveOneOut, Raw, Rule

inside = st.floats(0.001, 0.999)
ONE = SGD(eta=1)

# Signal -> (the rule's signal, its pay). A value baseline is raw reward paid -q and 1 - q.
RULES = {
    "raw": (Raw(), lambda q: (0.0, 1.0)),
    "value_baseline": (Raw(), lambda q: (-q, 1.0 - q)),
    "plus_minus": (Raw(), lambda q: (-1.0, 1.0)),
    "negative_only": (Raw(), lambda q: (-1.0, 0.0)),
    "leave_one_out": (LeaveOneOut(), lambda q: (0.0, 1.0)),
    "group_mean": (GroupMean(), lambda q: (0.0, 1.0)),
    "group_mean_std": (GroupMeanStd(eps=0), lambda q: (0.0, 1.0)),
}
GROUPED = ["leave_one_out", "group_mean", "group_mean_std"]


def rule_of(signal: str, rollouts: int) -> Rule:
    return Rule(signal=RULES[signal][0], optimiser=ONE, rollouts=rollouts)


def reaches_its_limit(signal: str, form) -> bool:
    """Endless groups against groups of 2,000 and 4,000, extrapolated: what is left is O(1/G^2)."""
    q = np.array([0.2, 0.4, 0.8])
    few, many, limit = two_class.moments(signal, q, 2000), two_class.moments(signal, q, 4000), form(q, None)
    return all(
        np.allclose(2 * b - a, wanted, rtol=1e-4) for a, b, wanted in zip(few, many, limit, strict=True)
    )


@pytest.mark.parametrize("signal", RULES)
def test_two_arms_in_the_simulator_move_twice_the_single_logit(signal):
    """Every group of G pulls through the dense engine: drift 2 D, variance 4 V/G. G = 1 where no group is needed."""
    q = 0.3
    for rollouts in (3, 4) if signal in GROUPED else (1, 3):
        seen = one_round([q, 1 - q], 1, rule_of(signal, rollouts), RULES[signal][1](q))

        def agrees(form, seen=seen, rollouts=rollouts) -> bool:
            law = form(np.array(q), rollouts)
            right = np.isclose(2 * law.drift, seen.mean, rtol=1e-9)
            wide = np.isclose(4 * law.variance, rollouts * seen.variance, rtol=1e-9)
            return bool(right and wide and reaches_its_limit(signal, form))

        assert survivors(two_class.SIGNALS[signal], agrees) == []


@pytest.mark.parametrize("signal", RULES)
@given(q=inside, rollouts=st.integers(2, 9))
def test_closed_forms_equal_the_rules_own_arithmetic(signal, q, rollouts):
    rule, pay = RULES[signal]
    seen = finite_group.round_moments(Rule(signal=rule, optimiser=ONE, rollouts=rollouts), q, pay(q))
    law = two_class.moments(signal, q, rollouts)
    assert law.drift == pytest.approx(seen.drift, rel=1e-9)
    assert law.variance == pytest.approx(seen.variance, rel=1e-8, abs=1e-13)


def paper_max_rl(rewards: np.ndarray, centred: bool) -> np.ndarray:
    """One weight per rollout: 1/successes for each success, and minus 1/G for all if centred."""
    if not rewards.any():
        return np.zeros(len(rewards))
    return rewards / rewards.sum() - (1 / len(rewards) if centred else 0)


@pytest.mark.parametrize(("signal", "terms"), [("max_rl", 4), ("max_rl_centred", 3)])
def test_max_rl_of_four_rollouts_by_enumeration_and_its_objective(signal, terms):
    """The drift is the derivative of -sum_{k <= terms} (1-q)^k / k: four terms uncentred, three centred."""
    q = 0.2
    groups = np.array(list(product((1.0, 0.0), repeat=4)))
    chance = np.where(groups == 1, q, 1 - q).prod(axis=1)
    weights = np.stack([paper_max_rl(rewards, signal == "max_rl_centred") for rewards in groups])
    move = (weights * (groups - q)).sum(axis=1)
    mean = chance @ move
    objective = lambda x: -sum((1 - x) ** k / k for k in range(1, terms + 1))  # noqa: E731
    slope = (objective(q + 1e-6) - objective(q - 1e-6)) / 2e-6

    def agrees(form) -> bool:
        law = form(np.array(q), 4)
        return bool(
            np.isclose(law.drift, mean, rtol=1e-9)
            and np.isclose(law.drift, q * (1 - q) * slope, rtol=1e-6)
            and np.isclose(law.variance, 4 * chance @ (move - mean) ** 2, rtol=1e-9)
            and reaches_its_limit(signal, form)
        )

    assert survivors(two_class.SIGNALS[signal], agrees) == []


@given(q=inside)
def test_exchanging_the_classes_exchanges_raw_and_negative_only(q):
    raw, negative = two_class.moments("raw", q), two_class.moments("negative_only", 1 - q)
    assert raw.variance == pytest.approx(negative.variance, rel=1e-9)
    for signal in ("value_baseline", "plus_minus", "group_mean_std"):
        here, there = (two_class.moments(signal, x, 5) for x in (q, 1 - q))
        assert here.drift == pytest.approx(there.drift, rel=1e-9)
        assert here.variance == pytest.approx(there.variance, rel=1e-6, abs=1e-12)


def test_signal_to_noise_at_small_q():
    """Raw q/(1-q), value baseline v/(1-2q)^2, +-1 four times that; negative-only (1-q)/q: it learns with less noise."""
    q = 0.01
    wanted = {"raw": q / 0.99, "value_baseline": 0.0099 / 0.98**2, "plus_minus": 4 * 0.0099 / 0.98**2}
    for signal, value in (wanted | {"negative_only": 99.0}).items():
        assert two_class.signal_to_noise(signal, q) == pytest.approx(value, rel=1e-9)
    leading = [two_class.signal_to_noise(s, 1e-5) / 1e-5 for s in ("raw", "value_baseline", "plus_minus")]
    np.testing.assert_allclose(leading, [1, 1, 4], rtol=1e-4)


def test_ratios_of_the_moments_are_what_they_say():
    """Mean-std with four rollouts at q = .3: D = v kappa, and D^2 / variance."""
    drift, variance = two_class.moments("group_mean_std", 0.3, 4)
    noise = lambda law: abs(law("group_mean_std", 0.3, 4) - drift**2 / variance) < 1e-12  # noqa: E731
    assert survivors(two_class.signal_to_noise, noise) == []
    gap = lambda law: abs(law("group_mean_std", 0.3, 4) - finite_group.kappa(0.3, 4)) < 1e-12  # noqa: E731
    assert survivors(two_class.advantage_gap, gap) == []


def test_a_value_baseline_lowers_variance_below_two_thirds_only():
    ratio = [
        two_class.moments("value_baseline", q).variance / two_class.moments("raw", q).variance
        for q in (0.01, 0.3, 2 / 3 - 1e-6, 2 / 3 + 1e-6, 0.9)
    ]
    assert ratio[0] == pytest.approx(1 - 2 * 0.01, abs=5e-4)  # buys almost nothing on a hard query
    assert ratio[1] < 1 and ratio[2] < 1 < ratio[3] < ratio[4]


def test_mean_std_of_a_hard_query_is_linear_in_q_again():
    for g in (4, 8, 64):
        q = 1e-3 / g
        assert two_class.moments("group_mean_std", q, g).drift == pytest.approx(
            q * (g - 1) / np.sqrt(g), rel=2e-3
        )


@pytest.mark.parametrize(("correct", "wrong"), [(1, 1), (1, 5), (2, 3), (4, 1)])
@pytest.mark.parametrize("signal", ["raw", "plus_minus", "negative_only", "value_baseline"])
def test_many_even_arms_move_by_the_geometry(correct, wrong, signal):
    """dq = C eta q (1-q) D with C = 1/K + 1/M, by the enumerated expected step at a small eta."""
    q, eta = 0.3, 1e-5
    low, high = RULES[signal][1](q)
    masses = [q / correct] * correct + [(1 - q) / wrong] * wrong
    with jax.enable_x64(True):
        arms = Arms.from_masses(masses, [high] * correct + [low] * wrong)
        step = expected_step(arms, Rule(optimiser=SGD(eta=eta))) / (high - low)  # of q, not of the reward
    geometry = 1 / correct + 1 / wrong

    def agrees(form) -> bool:
        return abs(step / (geometry * eta * q * (1 - q) * form(np.array(q), None).drift) - 1) < 1e-3

    assert agrees(two_class.SIGNALS[signal])
    assert not agrees(lambda q, g: two_class.Moments(1.1 * two_class.SIGNALS[signal](q, g).drift, q))


@given(q=inside, rollouts=st.integers(2, 9))
def test_the_gap_of_advantages_is_kappa_for_mean_std_and_one_for_raw(q, rollouts):
    assert two_class.advantage_gap("raw", q) == pytest.approx(1)
    gap = two_class.advantage_gap("group_mean_std", q, rollouts)
    assert gap == pytest.approx(finite_group.kappa(q, rollouts), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gae", 0.5), "signal 'gae' is unknown; choose one of raw, value_baseline"),
        (("raw", 1.0), "q = 1; give a value strictly between 0 and 1"),
        (("raw", 0.5, 1), "rollouts = 1; give at least 2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(Refusal, match=message):
        two_class.moments(*arguments)
