"""Time laws: integrals of the drifts, check values of the notes, limits, simulated curves, and mutants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, logit

from bandit_sim import Arms, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import clocks, two_class
from theory.refusal import Refusal
from theory.rules import preset

SIGNALS = list(two_class.SIGNALS)


@pytest.mark.parametrize("signal", SIGNALS)
@given(q0=st.floats(0.01, 0.5), rise=st.floats(0.1, 0.99), geometry=st.floats(0.2, 2))
def test_the_time_is_the_integral_of_slowness(signal, q0, rise, geometry):
    q, eta = q0 + rise * (0.99 - q0), 0.3
    slowness = lambda x: 1 / (geometry * eta * two_class.moments(signal, expit(x)).drift)  # noqa: E731
    wanted = quad(slowness, logit(q0), logit(q), epsrel=1e-9)[0]
    assert clocks.time_to(signal, q, q0, eta, geometry) == pytest.approx(wanted, rel=1e-7)


def test_no_mutant_of_the_time_or_of_the_flow_agrees():
    """Mean-std from .2 to .7 at eta = .3, C = 1.5, by the integral of slowness; the flow must invert it."""
    slowness = lambda x: 1 / (1.5 * 0.3 * two_class.moments("plus_minus", expit(x)).drift)  # noqa: E731
    wanted = quad(slowness, logit(0.2), logit(0.7), epsrel=1e-9)[0]
    agrees = lambda law: abs(law("plus_minus", 0.7, 0.2, 0.3, 1.5) / wanted - 1) < 1e-6  # noqa: E731
    assert survivors(clocks.time_to, agrees, helpers=("_speed",)) == []
    drift = lambda q: 2 * q * (1 - q)  # noqa: E731
    inverts = lambda law: abs(law(np.array([wanted]), 0.2, 0.45, drift)[0] - 0.7) < 1e-6  # noqa: E731
    assert survivors(clocks.flow, inverts) == []
    groups = clocks.time_to("raw", 0.7, 0.2, 0.3, 1.5) * 4 / 3  # a group mean of four has 3/4 of the drift
    agrees = lambda law: abs(law("group_mean", 0.7, 0.2, 0.3, 4, 1.5) / groups - 1) < 1e-6  # noqa: E731
    assert survivors(clocks.time_to_with_groups, agrees, helpers=("_speed",)) == []


def half_time(clock) -> np.ndarray:
    return np.array([clock(np.array(0.5)) - clock(np.array(p0)) for p0 in (0.01, 0.05, 0.2)])


def test_the_half_times_of_the_notes():
    """T_half(p0) = 1/p0 - 1/(1-p0) + 2 ln((1-p0)/p0) at eta = 1: 108.18, 24.84, 6.52."""
    assert (
        survivors(clocks.raw_clock, lambda f: np.allclose(half_time(f), [108.18, 24.84, 6.52], atol=0.006))
        == []
    )
    # phi(1/2) - phi(q0) = (1 - 2 q0)/sqrt(q0 (1 - q0)), twice.
    wanted = [2 * 0.98 / np.sqrt(0.0099), 2 * 0.9 / np.sqrt(0.0475), 2 * 0.6 / 0.4]
    assert survivors(clocks.std_clock, lambda f: np.allclose(half_time(f), wanted, rtol=1e-9)) == []
    # ln(0.99/0.01) + 2 - 1/0.99, and so on.
    wanted = [np.log((1 - p) / p) + 2 - 1 / (1 - p) for p in (0.01, 0.05, 0.2)]
    assert survivors(clocks.max_rl_clock, lambda f: np.allclose(half_time(f), wanted, rtol=1e-9)) == []


def test_one_correct_arm_among_a_thousand():
    """K = 1000, p0 = .02: formula 56.76; with C = 1 + 1/999 it is 56.71, and an Euler step of .01 reads 56.74.

    The notes say "56.74 integrated vs 56.76 formula": their integral carries that step's error.
    """
    assert clocks.time_to("raw", 0.5, 0.02, 1.0) == pytest.approx(56.763, abs=1e-3)
    assert clocks.time_to("raw", 0.5, 0.02, 1.0, 1 + 1 / 999) == pytest.approx(56.706, abs=1e-3)
    p, steps = 0.02, 0
    while p < 0.5:
        p, steps = p + 0.01 * p**2 * (1 - p) ** 2 * (1 + 1 / 999), steps + 1
    assert 0.01 * steps == pytest.approx(56.74, abs=0.006)


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_curve_inverts_the_time(signal):
    q = clocks.success_after(signal, [0.0, 5.0, 20.0, 60.0], 0.1, 0.5, 2.0)
    np.testing.assert_allclose(clocks.time_to(signal, q, 0.1, 0.5, 2.0), [0, 5, 20, 60], atol=1e-4)


def solves_the_flow(std_success) -> bool:
    times = np.array([0.0, 3.0, 10.0, 40.0])
    seen = clocks.success_after("group_mean_std", times, 0.07, 0.4, 1.5)
    return np.abs(std_success(times, 0.07, 0.4, 1.5) - seen).max() < 1e-7


def test_the_closed_form_of_mean_std_solves_its_flow():
    assert survivors(clocks.std_success, solves_the_flow) == []


@pytest.mark.parametrize(("signal", "rollouts"), [("group_mean_std", 4), ("group_mean", 4), ("max_rl", 8)])
def test_finite_groups_by_simpson_and_by_the_flow(signal, rollouts):
    t = clocks.time_to_with_groups(signal, 0.8, 0.05, 0.5, rollouts, 2.0)
    q = clocks.success_after(signal, [t], 0.05, 0.5, 2.0, rollouts)[0]
    assert q == pytest.approx(0.8, abs=1e-6)
    if signal == "group_mean":  # (G-1)/G of the speed
        assert t == pytest.approx(4 / 3 * clocks.time_to("raw", 0.8, 0.05, 0.5, 2.0), rel=1e-6)


@pytest.mark.parametrize(("signal", "exponent"), [("raw", -1), ("group_mean_std", -0.5), ("plus_minus", -1)])
def test_escape_has_its_exponent_and_its_constant(signal, exponent):
    q0 = np.array([1e-6, 1e-7, 1e-8])
    exact = clocks.time_to(signal, 0.5, q0, 0.3, 1.5)
    slopes = np.diff(np.log(exact)) / np.diff(np.log(q0))
    assert np.abs(slopes - exponent).max() < 2e-3

    def agrees(law) -> bool:
        return np.abs(law(signal, q0, 0.3, 1.5) / exact - 1).max() < 1e-3

    assert agrees(clocks.escape_time)
    assert not agrees(lambda *a: 1.1 * clocks.escape_time(*a))
    assert not agrees(lambda *a: clocks.escape_time(*a) ** 1.1)


def test_max_rl_escapes_in_logarithmic_time():
    q0 = np.array([1e-6, 1e-9, 1e-12])
    exact, leading = clocks.time_to("max_rl", 0.5, q0, 1.0), clocks.escape_time("max_rl", q0, 1.0)
    np.testing.assert_allclose(exact - leading, 1.0, atol=1e-5)  # F(1/2) = 2, and 1/(1 - q0) = 1


def test_groups_too_small_to_see_a_success_lose_the_better_exponent():
    """Mean-std with G q0 << 1: sqrt(G)/((G-1) eta q0) to leave the start, eight times G = 8's q0 for an eighth."""
    times = [clocks.time_to_with_groups("group_mean_std", 100 * q, q, 1.0, 8) for q in (1e-6, 1e-7)]
    assert times[1] / times[0] == pytest.approx(10, rel=1e-3)
    assert times[1] == pytest.approx(0.99 * np.sqrt(8) / (7 * 1e-7), rel=1e-2)


@pytest.mark.parametrize("signal", ["raw", "group_mean_std", "plus_minus", "max_rl"])
def test_the_tail_has_its_exponent_and_its_constant(signal):
    times = np.array([1e3, 4e3]) if signal == "group_mean_std" else np.array([1e5, 1e6])
    exact = 1 - np.asarray(clocks.success_after(signal, times, 0.5, 0.3, 1.5))

    def agrees(law) -> bool:
        return np.abs(law(signal, times, 0.3, 1.5) / exact - 1).max() < 1e-3

    assert agrees(clocks.tail)
    assert not agrees(lambda *a: 1.1 * clocks.tail(*a))
    assert not agrees(lambda *a: clocks.tail(*a) ** 1.1)


@pytest.mark.parametrize(
    ("name", "signal", "rollouts", "factor"),
    [
        ("minimalist", "raw", 1, 1.0),
        ("rloo", "leave_one_out", 4, 1.0),
        ("verl-grpo", "group_mean_std", 8, 1.0),
    ],
)
def test_simulated_curves_at_a_small_step_follow_the_mean_field(name, signal, rollouts, factor):
    """Two arms, 256 seeds: the mean curve within 4.5 standard errors and the O(eta) bias of the flow (0.01)."""
    eta, p0, rounds = 0.02, 0.2, 400
    p = simulate(
        Arms.two_class(arms=2, correct=1, p0=p0), preset(name, eta=eta, rollouts=rollouts), rounds, 256, 1
    )
    at = np.array([100, 200, 399])
    mean, error = p.mean("success")[at], p["success"][:, at].std(axis=0) / 16

    def agrees(geometry: float) -> bool:
        law = clocks.success_after(signal, at, p0, eta, geometry, rollouts if rollouts > 1 else None)
        return bool(np.all(np.abs(law - mean) < 4.5 * error + 0.01))

    assert agrees(2.0)
    assert not agrees(1.0) and not agrees(2.6)  # the single-logit convention is not the simulator's


def test_an_unknown_signal_is_named():
    with pytest.raises(Refusal, match="signal 'gae' is unknown; choose one of raw"):
        clocks.time_to("gae", 0.5, 0.1, 1.0)
