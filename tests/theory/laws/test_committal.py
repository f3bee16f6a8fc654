"""Commitment: streaks by hand, survival by simulation, the 1/m boundary, baselines of equal variance, mutants."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import binom

from tests.theory.laws.mutation import survivors
from theory.laws import committal
from theory.refusal import Refusal


def natural_run(
    reward: list[float],
    start: list[float],
    eta: float,
    baseline: float | None,
    rounds: int,
    seeds: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(seeds, rounds) arms pulled and (seeds, K) final policy; theta_a += eta (r_a - b)/pi_a, b = V for None."""
    rng, r = np.random.default_rng(seed), np.array(reward)
    theta, row = np.tile(np.log(start), (seeds, 1)), np.arange(seeds)
    pulled = np.empty((seeds, rounds), dtype=int)
    for t in range(rounds):
        pi = softmax(theta, axis=1)
        arm = np.minimum((np.cumsum(pi, axis=1) < rng.random(seeds)[:, None]).sum(axis=1), len(r) - 1)
        b = pi @ r if baseline is None else baseline
        theta[row, arm] += eta * (r[arm] - b) / np.maximum(pi[row, arm], 1e-12)
        pulled[:, t] = arm
    return pulled, softmax(theta, axis=1)


def test_streaks_are_the_softmax_updates_by_hand():
    """Three arms, (.2, .4, .4), reward .7 of the first: one pull of each kind, through K logits."""
    pi, eta, r = np.array([0.2, 0.4, 0.4]), 0.5, np.array([0.7, 0.3, 0.3])
    for gradient, value in (("natural", False), ("natural", True), ("softmax", False), ("softmax", True)):
        weight = eta * (r[0] - (pi @ r if value else 0))
        push = weight / pi[0] * np.eye(3)[0] if gradient == "natural" else weight * (np.eye(3)[0] - pi)
        wanted = softmax(np.log(pi) + push)[0]

        def agrees(streak, gradient=gradient, value=value, wanted=wanted) -> bool:
            path = streak(0.2, eta, 1, 0.4 if value else 0.7, value=value, gradient=gradient, geometry=1.5)
            return bool(abs(path[1] - wanted) < 1e-12)

        equivalent = ("geometry", "rest", "1 / p", "1.1 / p", "p ** 1.1", "pulls")
        assert survivors(committal.streak, agrees, equivalent=equivalent) == []
    assert not np.isclose(committal.streak(0.2, eta, 1, 0.7, gradient="softmax")[1], wanted)


def test_natural_gradient_commits_to_the_worse_arm_as_often_as_the_product_says():
    """r = (1, .7), start (.6, .4), eta = .3: seeds whose every pull is the worse arm; exact binomial, 1e-5."""
    pulled, _ = natural_run([1.0, 0.7], [0.6, 0.4], 0.3, 0.0, 80, 4000, 0)
    stuck = int((pulled == 1).all(axis=1).sum())

    def agrees(law) -> bool:
        low, high = binom.ppf([5e-6, 1 - 5e-6], 4000, law(0.4, 0.3, 0.7))
        return bool(low <= stuck <= high)

    assert stuck > 100 and agrees(committal.commits_for_ever)
    assert not agrees(lambda p, *a: committal.commits_for_ever(0.7 * p, *a))
    assert not agrees(lambda p, eta, a: committal.commits_for_ever(p, 1.3 * eta, a))
    exact = np.prod(committal.streak(0.4, 0.3, 3000, 0.7))
    assert committal.commits_for_ever(0.4, 0.3, 0.7) == pytest.approx(exact, rel=1e-12)


def test_baselines_of_equal_variance_commit_or_explore():
    """r = (1, .7, 0), even start, b = b* -+ 1/2 (equal variance): the lower one ends on the middle arm, Chung et al.

    b* = sum of r/pi^.. weights; at even pi it is the mean reward, 17/30. 400 seeds, 400 rounds, eta = .5.
    """
    middle = {}
    for name, baseline in (("low", 17 / 30 - 0.5), ("high", 17 / 30 + 0.5), ("value", None)):
        _, final = natural_run([1.0, 0.7, 0.0], [1 / 3] * 3, 0.5, baseline, 400, 400, 1)
        middle[name] = float((final[:, 1] > 0.99).mean())
    assert middle["low"] > 0.15 and middle["high"] < 0.02 and middle["value"] < middle["low"] / 2


def late(law, gradient: committal.Gradient, value: bool, geometry: float) -> bool:
    path = committal.streak(0.2, 0.5, 20_000, 0.7, gradient=gradient, value=value, geometry=geometry)
    return bool(abs(law(20_000, 0.5, 0.7, geometry) / (1 - path[-1]) - 1) < 0.005)


def test_a_value_baseline_damps_to_one_over_m():
    cases: list[tuple[committal.Gradient, bool, float]] = [("natural", True, 1.0), ("softmax", False, 2.0)]
    for gradient, value, geometry in cases:
        agrees = lambda f, a=(gradient, value, geometry): late(f, *a)  # noqa: E731
        equivalent = ("geometry",) if geometry == 1 else ()
        assert survivors(committal.damped_failure, agrees, equivalent=equivalent) == []
    path = committal.streak(0.2, 0.5, 100, 0.7)
    assert 1 - path[-1] < 1e-12  # without a baseline: exponentially


def test_a_damped_streak_survives_with_its_exponent():
    path = committal.streak(0.2, 0.5, 20_000, 0.7, gradient="softmax", geometry=2.0)
    alive = committal.survival(path)
    slope = -np.log(alive[19_999] / alive[4_999]) / np.log(4)
    agrees = lambda f: abs(f(0.5, 0.7, 2.0) / slope - 1) < 0.01  # noqa: E731
    assert survivors(committal.damped_exponent, agrees) == []
    np.testing.assert_allclose(alive[:3], np.cumprod(path[:3]), rtol=1e-12)


def test_a_high_baseline_leaves_the_arm_again():
    path = committal.streak(0.5, 0.3, 10, -0.3)
    assert np.all(np.diff(path) < 0)
    assert path[1] == pytest.approx(expit(logit(0.5) - 0.3 * 0.3 / 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: committal.commits_for_ever(0.5, 0.3, -0.1),
            "advantage = -0.1; give a value finite and above 0",
        ),
        (lambda: committal.streak(1.0, 0.3, 3, 0.7), "p0 = 1; give a value strictly"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()


def test_twenty_arms_hold_natural_gradient_without_a_baseline_and_not_with_one():
    """Mei et al. 2023: K = 20, .97 against .95, the second best arm starts at .88; eta = .1, 60 rounds, 2,000 seeds.

    Without a baseline the seeds that pulled nothing else are as many as the product says (binomial, 1e-5), and their
    1 - p falls exponentially; with the value baseline streaks end as the damped product says, and none lasts.
    """
    reward = [0.97, 0.95, *np.linspace(0.9, 0.0, 18)]
    start = [0.05, 0.88, *[0.07 / 18] * 18]
    pulled, final = natural_run(reward, start, 0.1, 0.0, 60, 2000, 3)
    stuck = (pulled == 1).all(axis=1)
    survive = np.prod(committal.streak(0.88, 0.1, 59, 0.95))
    low, high = binom.ppf([5e-6, 1 - 5e-6], 2000, survive)
    assert low <= stuck.sum() <= high
    assert survive == pytest.approx(committal.commits_for_ever(0.88, 0.1, 0.95), rel=0.01)
    others = 1 - final[stuck, 1]
    assert others.max() < np.exp(-0.1 * 0.95 * 60)  # faster than exp(-eta r m), as 1/p > 1
    pulled, final = natural_run(reward, start, 0.1, None, 60, 2000, 3)
    mean_of_others = (np.dot(start, reward) - 0.88 * 0.95) / 0.12
    for m in (5, 20):
        survive = np.prod(committal.streak(0.88, 0.1, m - 1, 0.95 - mean_of_others, value=True))
        low, high = binom.ppf([5e-6, 1 - 5e-6], 2000, survive)
        assert low <= (pulled[:, :m] == 1).all(axis=1).sum() <= high
    assert stuck.mean() > 0.2 > 0.001 > (pulled == 1).all(axis=1).mean()
