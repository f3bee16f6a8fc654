"""The diffusion: the exact chain at small steps, simulated seeds, its weak-noise limits, where it breaks, mutants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, logit

from bandit_sim import Arms, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import birth_chain, clocks, diffusion, martingale, two_class
from theory.refusal import Refusal
from theory.rules import preset

ALONE = ["raw", "value_baseline", "plus_minus", "negative_only"]


@given(q0=st.floats(0.01, 0.9), eta=st.floats(0.05, 1), signal=st.sampled_from(ALONE))
def test_the_density_stays_one(q0, eta, signal):
    law = diffusion.fokker_planck(signal, q0, eta, 20, cells=41)
    np.testing.assert_allclose(law.probability.sum(axis=1), 1, atol=1e-9)
    assert law.mean[0] == pytest.approx(q0) and law.spread[0] == pytest.approx(0, abs=1e-7)


def test_the_density_is_positive_where_the_grid_resolves_the_noise():
    assert diffusion.fokker_planck("raw", 0.1, 0.1, 200, 2.0, reach=(0.01, 0.995)).probability.min() > -1e-9


RUNGS = birth_chain.ladder(0.1, 0.1, 400, 2.0)
MEAN, SPREAD = birth_chain.success_moments(RUNGS, 200)


def follows_the_chain(fokker_planck) -> bool:
    law = fokker_planck("raw", 0.1, 0.1, 200, 2.0, cells=200, reach=(0.01, 0.995))
    return np.abs(law.mean - MEAN).max() < 0.008 and np.abs(law.spread - SPREAD).max() < 0.014


def test_at_a_small_step_it_is_the_birth_chain():
    """Two arms from .1 at eta = .1: within .008 of the mean and .014 of the spread (.18), which no mutant is."""
    assert SPREAD.max() == pytest.approx(0.1776, abs=1e-3)
    left = survivors(
        diffusion.fokker_planck,
        follows_the_chain,
        1.3,
        helpers=("_coefficients",),
        equivalent=("rollouts", "- 0.0001", " - 1.3", "high **"),  # one rollout; where the grid ends
    )
    assert left == []


def test_its_error_is_of_first_order_in_the_step():
    error = []
    for eta in (0.4, 0.1):
        rungs = birth_chain.ladder(0.1, eta, 400, 2.0)
        spread = birth_chain.success_moments(rungs, int(20 / eta))[1]
        law = diffusion.fokker_planck("raw", 0.1, eta, int(20 / eta), 2.0, cells=200, reach=(0.01, 0.999))
        error.append(np.abs(law.spread - spread).max())
    assert 2.5 < error[0] / error[1] < 6


def test_at_a_large_step_it_breaks():
    """eta = 1: the chain never falls below its start, the diffusion puts an eighth of the seeds there."""
    law = diffusion.fokker_planck("raw", 0.1, 1.0, 15, 2.0)
    below = law.probability[15] @ (law.success < 0.09)
    assert below == pytest.approx(0.133, abs=0.01)


ETA, START, ROUNDS = 0.1, 0.2, 121


@pytest.fixture(scope="module")
def seeds():
    rule = preset("rloo", eta=ETA, rollouts=4)
    return simulate(Arms.two_class(arms=2, correct=1, p0=START), rule, ROUNDS, 1024, 11)["success"]


def test_simulated_groups_have_its_mean_and_spread(seeds):
    """1,024 seeds, leave-one-out of four: mean and spread within 4.5 standard errors and O(eta): .004, 3%."""
    at = np.array([20, 60, 120])
    mean, spread = seeds.mean(axis=0)[at], seeds.std(axis=0)[at]

    def agrees(rollouts: int, eta: float) -> bool:
        law = diffusion.fokker_planck("leave_one_out", START, eta, 120, 2.0, rollouts, 400, (0.01, 0.995))
        near = np.abs(law.mean[at] - mean) < 4.5 * spread / 32 + 0.004
        wide = np.abs(law.spread[at] / spread - 1) < 4.5 / np.sqrt(2 * 1024) + 0.03
        return bool(np.all(near) and np.all(wide))

    assert agrees(4, ETA)
    assert not agrees(2, ETA) and not agrees(8, ETA) and not agrees(4, 1.3 * ETA)


def standard_residuals(seeds: np.ndarray, residuals) -> bool:
    left = martingale.summary(residuals(seeds, "leave_one_out", ETA, 2.0, 4))
    return max(abs(left.mean_z), abs(left.variance_z), abs(left.correlation_z)) < 4.5


def test_residuals_of_a_simulation_are_a_martingale_and_of_a_wrong_law_are_not(seeds):
    """120 x 1,024 residuals, three z-scores below 4.5: false alarm 2e-5."""
    assert survivors(martingale.residuals, lambda law: standard_residuals(seeds, law)) == []
    wrong = martingale.residuals(seeds, "leave_one_out", ETA, 2.0, 5)  # one rollout too many
    assert martingale.summary(wrong).variance_z > 10


def test_a_correlation_of_residuals_is_seen():
    noise = np.random.default_rng(0).normal(size=(50, 401))
    assert abs(martingale.summary(noise).correlation_z) < 4
    assert martingale.summary(noise[:, 1:] + 0.3 * noise[:, :-1]).correlation_z > 10


def has_the_time_of_the_chain(time_moments) -> bool:
    """From rung to rung, so that no level falls between two: raw, two arms, eta = .01."""
    rungs = birth_chain.ladder(0.05, 0.01, 300, 2.0)
    mean, deviation = birth_chain.time_moments(rungs, rungs[200])
    got = time_moments("raw", 0.05, rungs[200], 0.01, 2.0)
    return np.allclose(got, [mean, deviation], rtol=0.01)


def test_mean_and_spread_of_the_time_are_those_of_the_chain():
    left = survivors(
        diffusion.time_moments,
        has_the_time_of_the_chain,
        helpers=("_clock", "_coefficients"),
        equivalent=("rollouts",),  # the chain has one
    )
    assert left == []
    mean = diffusion.time_moments("leave_one_out", 0.05, 0.6, 0.1, 1.5, 4)[0]
    assert mean == pytest.approx(clocks.time_to("leave_one_out", 0.6, 0.05, 0.1, 1.5), rel=1e-6)


def is_the_spread_of_the_density(success_spread) -> bool:
    law = diffusion.fokker_planck("plus_minus", 0.2, 0.02, 100, 1.5, 4, 400, (0.1, 0.9))
    at = np.array([40, 70, 100])
    q = clocks.success_after("plus_minus", at, 0.2, 0.02, 1.5)
    return np.allclose(success_spread("plus_minus", 0.2, q, 0.02, 1.5, 4), law.spread[at], rtol=0.05)


def test_linear_noise_is_the_limit_of_the_density():
    assert (
        survivors(diffusion.success_spread, is_the_spread_of_the_density, 1.2, helpers=("_coefficients",))
        == []
    )


def relative(signal: str, q0: float) -> float:
    """sd(T)/E T from q0 to .3 by quadrature, endless groups' moments, noise C eta / G = .03."""
    law = lambda x: two_class.moments(signal, expit(x))  # noqa: E731
    mean = quad(lambda x: 1 / law(x).drift, logit(q0), logit(0.3), limit=200)[0]
    variance = quad(lambda x: law(x).variance / law(x).drift ** 3, logit(q0), logit(0.3), limit=200)[0]
    return float(np.sqrt(0.03 * variance) / mean)


# What is left at q0 = 1e-7, relative: the next order is q0, sqrt(q0), or 1/ln(1/q0).
CLOSE = {
    "raw": 1e-5,
    "leave_one_out": 1e-5,
    "plus_minus": 1e-5,
    "group_mean_std": 5e-4,
    "negative_only": 5e-3,
}


def is_the_leading_order(hard_query_spread) -> bool:
    return all(
        abs(hard_query_spread(signal, 1e-7, 0.1, 1.2, 4) / relative(signal, 1e-7) - 1) < close
        for signal, close in CLOSE.items()
    )


def test_the_spread_of_a_hard_query_has_its_constants_and_its_exponents():
    equivalent = ("ones_like", "1.1 / q")  # a factor within the logarithm is not of leading order
    assert survivors(diffusion.hard_query_spread, is_the_leading_order, equivalent=equivalent) == []


def test_small_groups_spread_whatever_the_difficulty():
    """Mean-std in groups of four at q0 = 1e-6, by quadrature of its exact moments."""
    mean, deviation = diffusion.time_moments("group_mean_std", 1e-6, 0.001, 0.1, 1.5, 4, 20_001)
    agrees = lambda f: abs(f(4, 0.1, 1.5) / (deviation / mean) - 1) < 5e-3  # noqa: E731
    assert survivors(diffusion.small_group_spread, agrees) == []


def test_the_spread_of_a_hard_query_is_that_of_the_ladder():
    law = diffusion.hard_query_spread("raw", 1e-6, 0.01, 1.5)
    assert law == pytest.approx(birth_chain.relative_spread(0.01, 1.5), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diffusion.fokker_planck("gae", 0.5, 1.0, 3), "signal 'gae' is unknown; choose one of raw"),
        (lambda: diffusion.fokker_planck("raw", 1e-5, 1.0, 3), "q0 = 1e-05 lies outside reach"),
        (lambda: diffusion.fokker_planck("leave_one_out", 0.5, 1.0, 3), "rollouts = 1; give at least 2"),
        (lambda: diffusion.hard_query_spread("max_rl", 0.1, 1.0), "signal 'max_rl' has no such law"),
        (lambda: martingale.residuals([[0.5, 1.0]], "raw", 1.0), "success = 1; give a value strictly"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
