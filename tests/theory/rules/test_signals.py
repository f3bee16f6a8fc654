"""Signals: relations between them, bounds, singletons, and the trainers' golden vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.rules import Batch, GroupMean, GroupMeanStd, LeaveOneOut, MaxRL, Raw, Rule, Sign, preset

quick = settings(max_examples=50, deadline=None, derandomize=True, database=None)
reward = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e3, 1e3))
groups_of_rewards = st.lists(reward, min_size=2, max_size=9)
ALL = [Raw(), GroupMean(), GroupMeanStd(), GroupMeanStd(ddof=0, eps=0), LeaveOneOut()]


def advantage(signal, rewards, groups=None) -> np.ndarray:
    n = len(rewards)
    ones = np.ones((n, 1))
    labels = np.zeros(n, dtype=int) if groups is None else np.asarray(groups)
    return signal.advantage(Batch(-ones, -ones, -ones, np.asarray(rewards, float), labels, ones))


@quick
@given(rewards=groups_of_rewards)
def test_leave_one_out_is_n_over_n_minus_one_times_the_group_mean(rewards):
    n = len(rewards)
    np.testing.assert_allclose(
        advantage(LeaveOneOut(), rewards),
        n / (n - 1) * advantage(GroupMean(), rewards),
        rtol=1e-12,
        atol=1e-12,
    )


@quick
@given(rewards=groups_of_rewards)
def test_group_signals_sum_to_zero(rewards):
    for signal in ALL[1:]:
        assert abs(advantage(signal, rewards).sum()) <= 1e-9 * max(1, np.abs(rewards).max())


@quick
@given(rewards=groups_of_rewards, ddof=st.sampled_from([0, 1]), eps=st.sampled_from([0, 1e-12, 1e-4]))
def test_standardised_advantages_are_bounded(rewards, ddof, eps):
    n = len(rewards)
    bound = (n - 1) / np.sqrt(n) if ddof else np.sqrt(n - 1)
    for place in ("std+eps", "sqrt(var+eps)", "sqrt(max(var,eps))")[: 3 if eps else 1]:
        a = advantage(GroupMeanStd(ddof=ddof, eps=eps, eps_place=place), rewards)
        assert np.all(np.isfinite(a)) and np.all(np.abs(a) <= bound * (1 + 1e-9))


@quick
@given(n=st.integers(2, 9), ddof=st.sampled_from([0, 1]))
def test_one_success_of_n_attains_the_bound(n, ddof):
    a = advantage(GroupMeanStd(ddof=ddof, eps=0), [1.0] + [0.0] * (n - 1))
    assert a[0] == pytest.approx((n - 1) / np.sqrt(n) if ddof else np.sqrt(n - 1))


@quick
@given(value=st.floats(allow_nan=False, allow_infinity=False), n=st.integers(2, 9))
def test_equal_rewards_of_any_float_give_exactly_zero(value, n):
    for signal in ALL[1:]:
        assert np.all(advantage(signal, [value] * n) == 0)


@quick
@given(rewards=st.lists(st.sampled_from([0.0, 1.0, 0.25]), min_size=2, max_size=8))
def test_a_large_offset_of_rewards_cancels(rewards):
    for signal in ALL[1:]:  # 2^40 + r is exact for these rewards, a one-pass variance would lose every digit
        shifted = advantage(signal, [r + 2.0**40 for r in rewards])
        np.testing.assert_array_equal(shifted, advantage(signal, rewards))


@quick
@given(rewards=groups_of_rewards, scale=st.sampled_from([0.5, 4.0, 1024.0]))
def test_scaling_rewards_scales_linear_signals_and_leaves_standardised_ones(rewards, scale):
    scaled = [scale * r for r in rewards]
    for signal in (Raw(), GroupMean(), LeaveOneOut()):
        np.testing.assert_allclose(advantage(signal, scaled), scale * advantage(signal, rewards), rtol=1e-12)
    signal = GroupMeanStd(eps=0)
    if np.ptp(rewards) == 0 or np.ptp(rewards) > 1e-100:  # below that the square underflows
        np.testing.assert_allclose(advantage(signal, scaled), advantage(signal, rewards), rtol=1e-9)


@quick
@given(rewards=groups_of_rewards, other=reward)
def test_another_group_is_never_read(rewards, other):
    groups = [4] * len(rewards) + [-4, -4]
    for signal in ALL:
        joined = advantage(signal, [*rewards, other, 0.0], groups)[: len(rewards)]
        np.testing.assert_allclose(joined, advantage(signal, rewards), rtol=1e-12, atol=1e-12)


@quick
@given(value=st.floats(-1e3, 1e3), companions=groups_of_rewards)
def test_a_group_of_one_gets_exactly_what_its_policy_says(value, companions):
    rewards, groups = [value, *companions], [0] + [1] * len(companions)
    for kind in (GroupMean, GroupMeanStd, LeaveOneOut):
        assert advantage(kind(singleton="raw"), rewards, groups)[0] == value
        assert advantage(kind(singleton="zero"), rewards, groups)[0] == 0
        assert advantage(kind(singleton="error"), rewards, groups)[0] == 0


def test_golden_advantage_of_the_failures():
    """One success of eight: leave-one-out gives a failure 0 - 1/7, the group mean 0 - 1/8."""
    one_of_eight = [1] + [0] * 7
    np.testing.assert_allclose(advantage(LeaveOneOut(), one_of_eight)[1:], -1 / 7, rtol=1e-14)
    np.testing.assert_allclose(advantage(GroupMean(), one_of_eight)[1:], -1 / 8, rtol=1e-14)


def test_a_floored_variance_differs_from_an_added_eps_where_the_spread_is_tiny():
    """Spread 2e-4: variance 2e-8 lies below the floor 1e-6, so the scale is 1e-3 and not 1.4e-4."""
    floored = advantage(GroupMeanStd(eps=1e-6, eps_place="sqrt(max(var,eps))"), [0.0, 2e-4])
    assert floored[1] == pytest.approx(1e-4 / 1e-3)
    assert advantage(GroupMeanStd(eps=1e-6), [0.0, 2e-4])[1] == pytest.approx(1e-4 / (2e-8**0.5 + 1e-6))


@quick
@given(rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8))
def test_the_two_max_rl_forms_differ_by_one_where_there_is_a_success(rewards):
    """r/m - 1 = (r - m)/m; without a success both are silent, which is what biases the second."""
    paper = advantage(MaxRL(singleton="raw"), rewards)
    prime = advantage(MaxRL(baseline="mean", singleton="zero"), rewards)
    if any(rewards):
        np.testing.assert_allclose(prime, paper - 1, atol=1e-14)
    else:
        assert not paper.any() and not prime.any()


@quick
@given(rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8))
def test_the_paper_s_max_rl_divides_by_the_number_of_successes(rewards):
    weights = advantage(MaxRL(singleton="raw"), rewards) / len(rewards)
    np.testing.assert_allclose(weights, np.array(rewards) / max(sum(rewards), 1), atol=1e-14)


@quick
@given(rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8))
def test_weighted_negative_is_a_tenth_of_the_positive_plus_the_negative(rewards):
    psr, nsr, both = (advantage(preset(name).signal, rewards) for name in ("psr", "nsr", "w-reinforce"))
    np.testing.assert_allclose(both, 0.1 * psr + nsr, atol=1e-15)
    np.testing.assert_array_equal(psr + nsr, advantage(Sign(), rewards))
    np.testing.assert_array_equal(psr + nsr, 2 * advantage(Raw(), rewards) - 1)


def test_sign_tells_minus_one_from_one_by_a_reference_of_zero():
    np.testing.assert_array_equal(advantage(Sign(reference=0), [-1.0, 1.0, 0.0]), [-1, 1, 0])


@pytest.mark.parametrize("extra", [1, 7])
def test_extra_rollouts_make_the_baseline_of_a_single_one(extra):
    """onerpo: the mean and spread of 1 + extra rewards, one advantage. Leave-one-out: the extras' mean alone."""
    rewards = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])[: 1 + extra]
    one = np.ones((1 + extra, 1))
    role = np.array([0] + [1] * extra)
    batch = Batch(-one, -one, -one, rewards, np.zeros(1 + extra, dtype=int), one, role)
    rule = Rule(signal=GroupMeanStd(extra=extra), optimiser={"kind": "sgd", "eta": 1})
    assert rule.roles == tuple(role) and rule.drawn == 1 + extra
    expected = (1 - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    w = rule.weights(batch)[0][:, 0]
    np.testing.assert_allclose(w, [expected] + [0] * extra, rtol=1e-12)
    alone = LeaveOneOut(extra=extra).advantage(batch)[0]
    assert alone == pytest.approx(1 - rewards[1:].mean())
