"""The birth chain: enumeration of every draw, then the law over simulated seeds, then limits and mutants."""

from itertools import product

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from bandit_sim import Arms, replay, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import birth_chain, clocks
from theory.refusal import Refusal
from theory.rules import preset

probability = st.floats(1e-4, 0.9)
step = st.floats(0.01, 5)


@given(p0=probability, eta=step, wrong=st.integers(1, 20))
def test_the_ladder_climbs_and_even_arms_need_one_number(p0, eta, wrong):
    even = birth_chain.ladder(p0, eta, 30, 1 + 1 / wrong)
    masses = [p0, *[(1 - p0) / wrong] * wrong]
    np.testing.assert_allclose(birth_chain.uneven_ladder(masses, eta, 30), even, rtol=1e-9)
    assert even[0] == pytest.approx(p0) and np.all(np.diff(even) >= 0) and even[-1] <= 1


@given(p0=probability, eta=step)
def test_the_law_is_a_law(p0, eta):
    rungs = birth_chain.ladder(p0, eta, 40)
    law = birth_chain.occupancy(rungs, 40)
    np.testing.assert_allclose(law.sum(axis=1), 1, atol=1e-12)
    mean, spread = birth_chain.success_moments(rungs, 40)
    assert np.all(np.diff(mean) >= -1e-12) and np.all(spread >= 0)
    low, high = birth_chain.success_quantiles(rungs, 40, [0.1, 0.9])
    assert np.all(low <= high)


def follows_the_simulator(ladder) -> bool:
    """Two arms, only correct pulls: the engine's p is the ladder (log-odds move by 2 eta (1-p))."""
    choices, rewards = np.zeros((1, 12, 1), dtype=int), np.ones((1, 12, 1))
    with jax.enable_x64(True):
        p = replay(Arms.two_class(arms=2, correct=1, p0=0.1), preset("minimalist", eta=0.7), choices, rewards)
    return np.abs(ladder(0.1, 0.7, 11, 2.0) - p[0]).max() < 1e-12


def test_the_ladder_is_the_simulators_and_no_mutant_is():
    assert survivors(birth_chain.ladder, follows_the_simulator) == []


def follows_uneven_arms(ladder) -> bool:
    masses = np.array([0.1, 0.5, 0.3, 0.1])
    choices, rewards = np.zeros((1, 12, 1), dtype=int), np.ones((1, 12, 1))
    with jax.enable_x64(True):
        p = replay(Arms.from_masses(masses, [1, 0, 0, 0]), preset("minimalist", eta=3.0), choices, rewards)
    return np.abs(ladder(masses, 3.0, 11) - p[0]).max() < 1e-12


def test_uneven_wrong_arms_follow_the_simulator():
    assert survivors(birth_chain.uneven_ladder, follows_uneven_arms) == []


def enumerated(p0: float, eta: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """(2^T,) probability of every sequence of draws on two arms, and (2^T, T+1) p along it, by the engine."""
    draws = np.array(list(product((0, 1), repeat=rounds)))
    choices = np.pad(draws, ((0, 0), (0, 1)))[..., None]
    with jax.enable_x64(True):
        arms = Arms.two_class(arms=2, correct=1, p0=p0)
        p = replay(arms, preset("minimalist", eta=eta), choices, (choices == 0).astype(float))
    return np.where(draws == 0, p[:, :-1], 1 - p[:, :-1]).prod(axis=1), p


CHANCE, PATHS = enumerated(0.2, 1.5, 7)
RUNGS = birth_chain.ladder(0.2, 1.5, 7, 2.0)


def has_the_enumerated_moments(success_moments) -> bool:
    mean, spread = success_moments(RUNGS, 7)
    wanted = CHANCE @ PATHS
    wanted_spread = np.sqrt(CHANCE @ (PATHS - wanted) ** 2)
    return np.abs(mean - wanted).max() < 1e-12 and np.abs(spread - wanted_spread).max() < 1e-7


def test_mean_and_spread_of_p_equal_enumeration():
    assert survivors(birth_chain.success_moments, has_the_enumerated_moments) == []


def has_the_enumerated_law(occupancy) -> bool:
    law = occupancy(RUNGS, 7)
    wanted = [[CHANCE[np.isclose(PATHS[:, t], rung)].sum() for rung in RUNGS] for t in range(8)]
    return np.abs(law - wanted).max() < 1e-12


def test_the_law_of_p_equals_enumeration():
    assert survivors(birth_chain.occupancy, has_the_enumerated_law) == []


def test_the_quantile_is_the_smallest_rung_that_holds_enough():
    median = birth_chain.success_quantiles(RUNGS, 7, 0.5)[0]
    for t in range(8):
        assert CHANCE[PATHS[:, t] <= median[t] + 1e-12].sum() >= 0.5
        assert CHANCE[PATHS[:, t] < median[t] - 1e-12].sum() < 0.5


def test_the_time_to_a_level_equals_enumeration_and_its_moments_sum_the_tail():
    reached = birth_chain.time_law(RUNGS, 0.6, 7)
    np.testing.assert_allclose(reached, [CHANCE[PATHS[:, t] >= 0.6].sum() for t in range(8)], atol=1e-12)


def test_a_level_that_the_rounds_cannot_reach_is_never_reached():
    assert np.all(birth_chain.time_law(birth_chain.ladder(0.01, 0.1, 10), 0.5, 9) == 0)


def has_moments_of_its_law(time_moments) -> bool:
    rungs = birth_chain.ladder(0.1, 1.0, 40)
    late = 1 - birth_chain.time_law(rungs, 0.5, 2000)  # P(T > t)
    mean, square = late.sum(), (late * (2 * np.arange(2001) + 1)).sum()
    got = time_moments(rungs, 0.5)
    return np.allclose(got, [mean, np.sqrt(square - mean**2)], rtol=1e-8)


def test_mean_and_spread_of_the_time_are_those_of_its_law():
    assert survivors(birth_chain.time_moments, has_moments_of_its_law) == []


@pytest.fixture(scope="module")
def seeds():
    arms = Arms.two_class(arms=50, correct=1, p0=0.05)
    return simulate(arms, preset("minimalist", eta=1.0), 121, 4096, 7)["success"]


def have_the_law(seeds: np.ndarray, eta: float) -> bool:
    """Chi-square over the rungs with 5 or more expected seeds, at three rounds; false alarm 1e-5 each."""
    rungs = birth_chain.ladder(0.05, eta, 121, 1 + 1 / 49)
    laws = birth_chain.occupancy(rungs, 121)
    for t in (20, 60, 120):
        rung = np.abs(seeds[:, t, None] - rungs[None, :]).argmin(axis=1)
        counts, expected = np.bincount(rung, minlength=len(rungs)), len(seeds) * laws[t]
        big = expected >= 5
        observed, wanted = (np.append(x[big], x[~big].sum()) for x in (counts, expected))
        if ((observed - wanted) ** 2 / np.maximum(wanted, 0.5)).sum() > chi2.isf(1e-5, big.sum()):
            return False
    return True


def test_simulated_seeds_have_the_law_of_p_and_not_that_of_a_wrong_step(seeds):
    assert have_the_law(seeds, 1.0)
    assert not have_the_law(seeds, 0.9) and not have_the_law(seeds, 1.1)


def within_the_band(seeds: np.ndarray, law: np.ndarray) -> bool:
    """Dvoretzky-Kiefer-Wolfowitz band at false alarm 1e-5."""
    reached = (seeds >= 0.5).mean(axis=0)
    return np.abs(reached - law[: len(reached)]).max() < np.sqrt(np.log(2 / 1e-5) / (2 * len(seeds)))


def test_simulated_seeds_have_the_law_of_the_time_and_not_that_of_a_wrong_step(seeds):
    law = {
        eta: birth_chain.time_law(birth_chain.ladder(0.05, eta, 121, 1 + 1 / 49), 0.5, 121)
        for eta in (0.8, 1.0, 1.25)
    }
    assert within_the_band(seeds, law[1.0])
    assert not within_the_band(seeds, law[0.8]) and not within_the_band(seeds, law[1.25])


@pytest.mark.parametrize(("rule", "rollouts"), [("minimalist", 1), ("rloo", 4)])
def test_the_risk_of_never_starting_is_that_of_simulated_seeds(rule, rollouts):
    """Two correct arms; 4,096 seeds without a reward in 30 rounds: exact binomial test, false alarm 1e-5."""
    arms = Arms.two_class(arms=20, correct=2, p0=0.01)
    reward = simulate(arms, preset(rule, eta=0.1, rollouts=rollouts), 30, 4096, 3)["reward"]
    never = int((reward.max(axis=1) == 0).sum())

    def agrees(p0: float) -> bool:
        low, high = binom.ppf([5e-6, 1 - 5e-6], 4096, birth_chain.never_started(p0, 30, rollouts))
        return bool(low <= never <= high)

    assert agrees(0.01) and not agrees(0.008) and not agrees(0.0125)


def test_the_risk_of_never_starting_counts_every_rollout():
    agrees = lambda law: abs(law(0.1, 5, 2) - 0.9**10) < 1e-12  # noqa: E731
    assert survivors(birth_chain.never_started, agrees) == []


@given(p0=st.floats(1e-6, 0.5), risk=st.floats(1e-6, 0.5), rollouts=st.integers(1, 16))
def test_the_rounds_to_start_are_the_fewest_that_hold_the_risk(p0, risk, rollouts):
    rounds = float(birth_chain.rounds_to_start(p0, risk, rollouts))
    assert birth_chain.never_started(p0, rounds, rollouts) <= risk * (1 + 1e-6)
    if rounds > 1:
        assert birth_chain.never_started(p0, rounds - 1, rollouts) > risk * (1 - 1e-6)


def test_the_mean_time_becomes_the_mean_field_time_linearly_in_eta():
    wanted = clocks.time_to("raw", 0.5, 0.05, 1.0)
    assert wanted == pytest.approx(24.84, abs=0.005)
    error = []
    for eta in (0.1, 0.01, 0.001):
        rungs = birth_chain.ladder(0.05, eta, int(10 / eta))
        # The level falls between two rungs: interpolate, so that only the law's own error is left.
        n = int(np.argmax(rungs >= 0.5))
        share = (0.5 - rungs[n - 1]) / (rungs[n] - rungs[n - 1])
        error.append(abs(eta * (np.sum(1 / rungs[: n - 1]) + share / rungs[n - 1]) - wanted) / wanted)
    assert 8 < error[0] / error[1] < 12 and 8 < error[1] / error[2] < 12 and error[2] < 1e-3


def test_the_mean_over_seeds_lags_the_mean_field_at_a_large_step():
    """q0 = .05, 50 arms: up to .28 below at eta = 1, as `clocks.time_to` says, and .046 at eta = .05."""
    lag = []
    for eta, rounds in ((1.0, 120), (0.05, 1000)):
        rungs = birth_chain.ladder(0.05, eta, 500, 1 + 1 / 49)
        mean = birth_chain.success_moments(rungs, rounds)[0]
        flow = clocks.success_after("raw", np.arange(rounds + 1), 0.05, eta, 1 + 1 / 49)
        lag.append((flow - mean).max())
    np.testing.assert_allclose(lag, [0.284, 0.046], atol=1e-3)


def spreads_as_hard_queries_do(relative_spread) -> bool:
    """p0 = 1e-6; the mean-field limit is sqrt(C eta / 2), and a large step needs one success: 1."""
    for eta, geometry in ((0.05, 1.0), (0.5, 2.0), (3.0, 1.25)):
        mean, deviation = birth_chain.time_moments(
            birth_chain.ladder(1e-6, eta, int(40 / eta), geometry), 0.3
        )
        if abs(relative_spread(eta, geometry) / (deviation / mean) - 1) > 1e-3:
            return False
    return True


def test_the_relative_spread_of_a_hard_query_does_not_depend_on_its_difficulty():
    assert survivors(birth_chain.relative_spread, spreads_as_hard_queries_do) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: birth_chain.ladder(0.0, 1.0, 3), "p0 = 0; give a value strictly between 0 and 1"),
        (lambda: birth_chain.ladder(0.1, -1.0, 3), "eta = -1; give a value finite and above 0"),
        (lambda: birth_chain.uneven_ladder([0.1, 0.0], 1.0, 3), "masses = 0; give"),
        (lambda: birth_chain.occupancy([0.1, 0.2], -1), "rounds = -1; give at least 0"),
        (lambda: birth_chain.time_law([0.1, 0.2], 0.5, 3), r"level = 0.5, but the ladder ends at 0.2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
