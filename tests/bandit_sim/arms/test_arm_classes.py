"""Classes of alike arms: what each constructor represents, and what it refuses."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.arms.plain import Arms
from theory.refusal import Refusal

SIDES = {"arms": 10**6, "correct": 100, "p0": 1e-4}
PROFILES = {
    "two_class": lambda arms, correct, p0: ArmClasses.two_class(arms=arms, correct=correct, p0=p0),
    "power_law": lambda arms, correct, p0: ArmClasses.power_law(
        arms=arms, correct=correct, p0=p0, exponent=1.2
    ),
    "log_normal": lambda arms, correct, p0: ArmClasses.log_normal(
        arms=arms, correct=correct, p0=p0, sigma=2.0
    ),
}


@pytest.mark.parametrize("profile", PROFILES)
@given(arms=st.integers(2, 10**18), share=st.floats(0, 1), p0=st.floats(1e-12, 0.999))
def test_every_profile_holds_its_arms_exactly_and_its_success_probability(profile, arms, share, p0):
    correct = min(max(1, int(share * arms)), arms - 1)
    made = PROFILES[profile](arms, correct, p0)
    right = made.reward > 0
    assert made.arms == arms
    assert sum(int(n) for n in made.count[right]) == correct
    assert made.masses()[right].sum() == pytest.approx(p0, rel=1e-9)


@given(arms=st.integers(3, 400), exponent=st.floats(0, 3))
def test_power_law_bins_hold_the_sums_of_the_masses_of_their_ranks(arms, exponent):
    made = ArmClasses.power_law(arms=arms, correct=arms // 3, p0=0.3, exponent=exponent, classes=8)
    for right, number in ((1.0, arms // 3), (0.0, arms - arms // 3)):
        side = made.reward == right
        rank_mass = np.arange(1, number + 1.0) ** -exponent
        first = np.concatenate([[0], np.cumsum(made.count[side])[:-1]]).astype(int)
        wanted = np.add.reduceat(rank_mass, first) / rank_mass.sum()
        assert np.allclose(made.masses()[side] / made.masses()[side].sum(), wanted, rtol=1e-9)
        assert np.all(made.count[side][: min(number, 4)] == 1), "the likeliest arms are classes of their own"


def test_a_long_power_law_sum_agrees_with_the_zeta_function():
    """zeta(1.5) = 2.6123753486854883; beyond 10^15 ranks the tail is 2 / sqrt(10^15)."""
    made = ArmClasses.power_law(arms=10**15 + 1, correct=10**15, p0=0.5, exponent=1.5)
    first = made.masses()[0] / 0.5
    assert 1 / first == pytest.approx(2.6123753486854883 - 2 / np.sqrt(1e15), rel=1e-9)


def test_log_normal_has_the_moments_of_a_log_normal():
    """E[m^2] / E[m]^2 = exp(sigma^2) up to the width of the bins (12 / 96 sigma: its variance / 12 is .0013)."""
    made = ArmClasses.log_normal(arms=10**15 + 1, correct=10**15, p0=0.5, sigma=1.0, classes=96)
    side = made.reward > 0
    mass, count = np.exp(made.logit[side]), made.count[side].astype(float)
    ratio = (count * mass**2).sum() * count.sum() / (count * mass).sum() ** 2
    assert ratio == pytest.approx(np.e, rel=2e-3)


def test_masses_are_merged_by_mass_reward_and_flip():
    made = ArmClasses.from_masses([1, 1, 1, 1, 0], [1, 0, 0, 0, 1], flip=[0, 0, 0, 0.5, 0])
    assert made.arms == 4 and sorted(made.count.tolist()) == [1, 1, 2]
    assert made.masses() @ made.reward == pytest.approx(0.25)


def test_expanding_gives_the_same_bandit():
    made = ArmClasses.power_law(arms=50, correct=7, p0=0.2, exponent=1.0)
    arms = made.expand()
    assert isinstance(arms, Arms) and len(arms.logits) == 50
    weight = np.exp(arms.logits)
    assert (weight / weight.sum()) @ arms.reward == pytest.approx(0.2)
    with pytest.raises(Refusal, match=r"50 arms are more than limit = 10"):
        made.expand(10)


def test_a_uniform_profile_is_two_classes_of_equal_logit():
    made = ArmClasses.uniform(arms=10**18, correct=10**6)
    assert made.logit[0] == pytest.approx(made.logit[1], abs=1e-12)
    assert made.masses()[0] == pytest.approx(1e-12, rel=1e-9)


def test_classes_pass_through_jax_as_a_tree():
    made = ArmClasses.two_class(**SIDES)
    assert jax.tree.structure(jax.jit(lambda a: a)(made)) == jax.tree.structure(made)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ArmClasses(np.zeros(2), np.array([1, 0]), np.ones(2)),
            r"count of class 1 is 0; give 1 to 2\*\*62",
        ),
        (lambda: ArmClasses(np.zeros(2), np.array([1.0, 2.0]), np.ones(2)), r"count has dtype float64"),
        (lambda: ArmClasses(np.array([0, np.inf]), np.array([1, 1]), np.ones(2)), r"logit of class 1 is inf"),
        (lambda: ArmClasses(np.zeros(2), np.array([1, 1]), np.array([0, np.nan])), r"reward of arm 1 is nan"),
        (
            lambda: ArmClasses(np.zeros(1), np.array([1]), np.ones(1), np.array([1.5])),
            r"flip of class 0 is 1.5",
        ),
        (
            lambda: ArmClasses(np.zeros(2), np.array([1]), np.ones(2)),
            r"count has shape \(1,\), expected \(2,\)",
        ),
        (lambda: ArmClasses.two_class(arms=3, correct=3, p0=0.1), r"correct = 3 of arms = 3"),
        (lambda: ArmClasses.two_class(arms=10**19, correct=3, p0=0.1), r"give at most 2\*\*62"),
        (lambda: ArmClasses.two_class(arms=3, correct=1, p0=0.0), r"p0 = 0.0"),
        (lambda: ArmClasses.power_law(**SIDES, exponent=-1.0), r"exponent = -1.0"),
        (lambda: ArmClasses.power_law(**SIDES, exponent=1.0, classes=2), r"classes = 2; give at least 4"),
        (lambda: ArmClasses.log_normal(**SIDES, sigma=0.0), r"sigma = 0.0; .* use two_class"),
    ],
)
def test_bad_classes_are_named(build, message):
    with pytest.raises(Refusal, match=message):
        build()
