"""Empirical laws: known parameters recovered, intervals that cover, and what extrapolates a simulated curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from bandit_sim import Arms, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import birth_chain, clocks, fits
from theory.refusal import Refusal
from theory.rules import preset

T = np.geomspace(1, 1000, 60)
TRUE = {
    "sigmoid_in_log": (0.1, 0.8, 60.0, 1.3),
    "saturation": (0.1, 0.7, 150.0),
    "logistic": (0.9, 300.0, 80.0),
    "entropy_law": (0.2, 0.9),
}
BY_HAND = {
    "sigmoid_in_log": lambda t, s, a, m, b: s + (a - s) * t**b / (t**b + m**b),
    "saturation": lambda t, s, a, k: a + (s - a) * np.exp(-t / k),
    "logistic": lambda t, a, m, k: a * expit((t - m) / k),
    "entropy_law": lambda t, a, b: b - a * np.e**t,
}


def points(family: str) -> np.ndarray:
    return np.linspace(0.05, 2, 60) if family == "entropy_law" else T


@pytest.mark.parametrize("family", TRUE)
def test_the_curves_are_the_papers_formulas(family):
    t, true = points(family), TRUE[family]
    wanted = BY_HAND[family](t, *true)
    agrees = lambda f: np.allclose(f(t, *true), wanted, rtol=1e-9)  # noqa: E731
    assert survivors(fits.FAMILIES[family].curve, agrees) == []


@pytest.mark.parametrize("family", TRUE)
def test_without_noise_the_parameters_come_back(family):
    t = points(family)
    found = fits.fit(family, t, fits.FAMILIES[family].curve(t, *TRUE[family]))
    assert tuple(found.parameters.values()) == pytest.approx(TRUE[family], rel=1e-4)
    np.testing.assert_allclose(found(t), fits.FAMILIES[family].curve(t, *TRUE[family]), atol=1e-6)


@given(slope=st.floats(0.05, 0.5), top=st.floats(0.5, 1), seed=st.integers(0, 10**6))
def test_the_entropy_law_is_linear_regression_on_the_exponential(slope, top, seed):
    t = points("entropy_law")
    y = fits.entropy_law(t, slope, top) + 0.02 * np.random.default_rng(seed).normal(size=60)
    design = np.stack([-np.exp(t), np.ones(60)], axis=1)
    wanted, rest, *_ = np.linalg.lstsq(design, y)
    found = fits.fit("entropy_law", t, y)
    np.testing.assert_allclose(list(found.parameters.values()), wanted, rtol=1e-4)
    covariance = np.linalg.inv(design.T @ design) * rest[0] / 58
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-3)


@pytest.mark.parametrize("family", ["sigmoid_in_log", "saturation", "logistic"])
def test_intervals_cover_the_truth_as_often_as_they_say(family):
    """60 noisy curves, 90% intervals: per parameter 45 to 60 hits (binomial(60, .9) is below 45 with 1e-4)."""
    rng, hits = np.random.default_rng(1), np.zeros(len(TRUE[family]))
    clean = fits.FAMILIES[family].curve(T, *TRUE[family])
    for _ in range(60):
        bounds = fits.fit(family, T, clean + 0.01 * rng.normal(size=60)).interval(0.9).values()
        hits += [low < true < high for (low, high), true in zip(bounds, TRUE[family], strict=True)]
    assert hits.min() >= 45
    assert hits.min() < 60  # an interval that always holds says nothing


def test_the_family_that_made_the_curve_extrapolates_it():
    rng, t = np.random.default_rng(2), np.linspace(1, 600, 100)
    for family in ("sigmoid_in_log", "saturation", "logistic"):
        y = fits.FAMILIES[family].curve(t, *TRUE[family]) + 0.003 * rng.normal(size=100)
        order = fits.choose(t, y, 0.6)
        assert next(iter(order)) == family
        assert order[family] < 0.02 and list(order.values()) == sorted(order.values())


def test_log_odds_linear_in_time_are_logistic():
    t = np.arange(1.0, 100)
    errors = fits.choose(t, expit(logit(0.05) + 0.1 * t))
    assert next(iter(errors)) == "logistic" and errors["logistic"] < 1e-6 < 0.05 < errors["sigmoid_in_log"]


@pytest.fixture(scope="module")
def seeds():
    arms = Arms.two_class(arms=2, correct=1, p0=0.05)
    return simulate(arms, preset("minimalist", eta=0.25), 401, 256, 9, every=4)["success"][:, 1:]


def test_on_a_simulated_curve_the_logistic_in_log_time_wins_once_the_bend_is_seen(seeds):
    """Raw reward has a tail 1/t, which of the three families only the ScaleRL sigmoid has."""
    t, mean = np.arange(4.0, 401, 4), seeds.mean(axis=0)
    errors = fits.choose(t, mean, 0.5)
    assert next(iter(errors)) == "sigmoid_in_log" and errors["sigmoid_in_log"] < 0.03 < errors["saturation"]
    tail = fits.fit("sigmoid_in_log", t[50:], clocks.success_after("raw", t, 0.05, 0.25, 2.0)[50:])
    assert 0.9 < tail.parameters["ceiling"] < 1.1


def test_before_the_bend_no_family_knows_what_the_exact_law_knows(seeds):
    """From the first 8 points (p from .05 to .2) each family misses the rest by .1 and more; the chain by .03."""
    t, mean = np.arange(4.0, 401, 4), seeds.mean(axis=0)
    chain = birth_chain.success_moments(birth_chain.ladder(0.05, 0.25, 400, 2.0), 400)[0][4::4]
    miss = np.sqrt(np.mean((chain[8:] - mean[8:]) ** 2))
    assert miss < 0.03 and min(fits.choose(t, mean, 0.08).values()) > 0.1


def test_seeds_drawn_again_give_a_wider_interval_than_their_points(seeds):
    t = np.arange(4.0, 401, 4)
    drawn = fits.bootstrap("sigmoid_in_log", t, seeds, np.random.default_rng(0), samples=40)
    points_alone = fits.fit("sigmoid_in_log", t, seeds.mean(axis=0)).interval()
    low, high = drawn["middle"]
    assert low < fits.fit("sigmoid_in_log", t, seeds.mean(axis=0)).parameters["middle"] < high
    assert high - low > 2 * (points_alone["middle"][1] - points_alone["middle"][0])
    again = fits.bootstrap("sigmoid_in_log", t, seeds, np.random.default_rng(0), samples=3)
    assert again == fits.bootstrap("sigmoid_in_log", t, seeds, np.random.default_rng(0), samples=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fits.fit("spline", T, T), "family 'spline' is unknown; choose one of sigmoid_in_log"),
        (
            lambda: fits.fit("logistic", [1.0, 2.0, 3.0], [0.1, 0.2, 0.3]),
            "3 points for 3 parameters of logistic",
        ),
        (lambda: fits.fit("logistic", [0.0, 1, 2, 3], [0.1] * 4), "t = 0; give a value finite and above 0"),
        (lambda: fits.extrapolation_error("logistic", T, T, 1.0), "share = 1 of 60 points; leave some"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
