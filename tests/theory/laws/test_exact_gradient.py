"""Exact-gradient bounds against random instances, the constant between them, and the corner that holds a policy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import softmax

from bandit_sim import Arms, expected_step
from tests.theory.laws.mutation import survivors
from theory.laws import exact_gradient as law
from theory.refusal import Refusal
from theory.rules import SGD, Rule

ROUNDS = np.arange(1, 301)


def run(reward, theta, eta: float = law.STEP, steps: int = 300):
    policies = law.ascent(theta, reward, eta, steps)
    return policies, np.max(reward) - policies @ np.asarray(reward)


def test_the_ascent_is_the_simulators_mean_step():
    """eta = 1e-4 by enumeration of every pull: the expected step of the mean reward."""
    reward, masses = np.array([0.9, 0.4, 0.1]), np.array([0.2, 0.5, 0.3])
    step = expected_step(Arms.from_masses(masses, reward), Rule(optimiser=SGD(eta=1e-2)))

    def agrees(ascent) -> bool:
        policies = ascent(np.log(masses), reward, 1e-2, 1)
        return abs((policies[1] - policies[0]) @ reward / step - 1) < 0.02

    assert survivors(law.ascent, agrees, equivalent=("steps",)) == []


@given(
    reward=st.lists(st.floats(0, 0.9), min_size=1, max_size=5),
    theta=st.lists(st.floats(-3, 3), min_size=6, max_size=6),
)
def test_no_instance_is_above_the_upper_bounds(reward, theta):
    reward = np.array([1.0, *reward])
    policies, gap = run(reward, theta[: len(reward)])
    least = policies[:, 0].min()
    assert np.all(gap[1:] <= law.upper_bound(ROUNDS, least))
    assert np.all(np.cumsum(gap[1:])[1:] <= law.cumulative_bound(ROUNDS[1:], least))


def test_the_instance_of_the_notes():
    """K = 5, r = (1, .8, .6, .4, .2), even start: gap t c^2/5 at most .051 to .053, gap t near 2 late, >= .0067."""
    _, gap = run(np.array([1, 0.8, 0.6, 0.4, 0.2]), np.zeros(5), steps=4000)
    t = np.arange(1, 4001)
    used = lambda bound: 0.04 < (gap[1:] / bound(t, 0.2)).max() < 0.055  # noqa: E731
    assert survivors(law.upper_bound, used, 1.4) == []
    assert gap[-1] * 4000 == pytest.approx(2.05, abs=0.01)
    assert law.lower_bound(4000, 0.2) == pytest.approx(0.2**2 / 6 / 4000) and gap[-1] > law.lower_bound(
        4000, 0.2
    )


def test_the_cumulative_bound_is_its_formula_on_both_sides():
    # sqrt(5 100)/.5 = 44.72; 5 ln(1e6)/.25 + 1 = 277.31
    agrees = lambda f: np.allclose(f([100, 1e6], 0.5), [44.7214, 277.3102], rtol=1e-5)  # noqa: E731
    assert survivors(law.cumulative_bound, agrees) == []


@pytest.mark.parametrize(("eta", "gap", "wrong"), [(1.0, 0.5, 1), (0.4, 0.8, 3)])
def test_between_the_bounds_the_constant_is_known(eta, gap, wrong):
    reward = np.array([1.0, *[1 - gap] * wrong])
    seen = run(reward, np.zeros(wrong + 1), eta, 20_000)[1][-1]
    agrees = lambda f: abs(f(20_000, eta, wrong) / seen - 1) < 0.005  # noqa: E731
    assert agrees(law.late_gap)
    assert law.lower_bound(20_000, gap) < seen < law.upper_bound(20_000, 1 / (wrong + 1))
    if eta != 1 and wrong != 1:
        assert survivors(law.late_gap, agrees) == []


def test_a_start_next_to_the_optimum_is_below_the_lower_bound():
    """The instance that violates it early: gap e^-12 at the start. It holds only for large t."""
    _, gap = run(np.array([1.0, 0.5]), np.array([12.0, 0.0]))
    assert np.all(gap[1:] < law.lower_bound(ROUNDS, 0.5))


def escape(best: float, worse: float, distance: float, deficit: float, eta: float) -> float:
    """Time until pi_1 = 1/2 in the softmax flow of three arms."""
    reward = np.array([distance, 0.0, -deficit])
    start = np.log([best, 1 - best - worse, max(worse, 1e-300)])

    def flow(_, theta):
        pi = softmax(theta)
        return eta * pi * (reward - pi @ reward)

    def half(_, theta) -> float:
        return softmax(theta)[0] - 0.5

    event: Any = half
    event.terminal = True
    return solve_ivp(flow, (0, 1e12), start, "LSODA", events=event, rtol=1e-8, atol=1e-10).t_events[0][0]


def test_a_worse_arm_squares_the_time_in_a_corner():
    """pi_1 = 1e-4, pi_3 = 0 and .01: 2 ln(1/pi_1) of next order for the first; no mutant is as near."""
    seen = np.array([escape(1e-4, worse, 0.2, 0.5, 0.7) for worse in (0.0, 0.01)])
    agrees = lambda f: np.allclose(f(1e-4, 0.2, 0.7, np.array([0, 0.01]), 0.5), seen, rtol=0.02)  # noqa: E731
    assert survivors(law.corner_time, agrees) == []
    rarer = escape(1e-5, 0.01, 0.2, 0.5, 0.7)
    assert rarer / seen[1] == pytest.approx(100, rel=0.05)  # ten times rarer, a hundred times longer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: law.upper_bound(0, 0.5), "steps = 0; give a value finite and above 0"),
        (lambda: law.upper_bound(1, 1.5), "least = 1.5; give a value strictly between 0 and 1"),
        (lambda: law.corner_time(0.0, 0.2, 0.7), "best = 0; give"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()


def ladder_time(arms: int, rare: float) -> float:
    """Time until the best of `arms` has half the mass: rewards 1, .8, ..., each arm `rare` times the next worse one."""
    reward, start = 1 - 0.2 * np.arange(arms), np.log(rare) * np.arange(arms)[::-1]

    def flow(_, theta):
        pi = softmax(theta)
        return pi * (reward - pi @ reward)

    def half(_, theta) -> float:
        return softmax(theta)[0] - 0.5

    event: Any = half
    event.terminal = True
    return solve_ivp(flow, (0, 1e18), start, "LSODA", events=event, rtol=1e-8, atol=1e-10).t_events[0][0]


def test_a_ladder_of_corners_takes_a_time_exponential_in_its_length():
    """Li et al.: T ~ rare^-x with x near 2^(K-1) - 1, found here: 1, 3, 7 for two, three and four arms.

    x between rare = 10^-1.5 and 10^-2 is within an eighth of that; the logit distance to the best arm grows only as
    K - 1, so its exponent would be 1, 2, 3 if a corner cost no more than the distance.
    """
    for arms, wanted in ((2, 1), (3, 3), (4, 7)):
        x = 2 * np.log10(ladder_time(arms, 1e-2) / ladder_time(arms, 10**-1.5))
        assert x == pytest.approx(wanted, rel=0.13)
        if arms > 2:
            assert x > 1.4 * (arms - 1)
