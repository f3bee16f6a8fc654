"""Finite groups: enumeration through the simulator, the check values of the notes, limits and mutants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.laws.engine import one_round
from tests.theory.laws.mutation import survivors
from theory.laws import finite_group
from theory.refusal import Refusal
from theory.rules import SGD, GroupMeanStd, LeaveOneOut, Raw, Rule

inside = st.floats(0.001, 0.999)

# (q, G): kappa_G sqrt(q (1-q)), from the notes (three of them also by Monte Carlo there: .647, .842, .983).
CHECKS = {
    (0.7, 4): 0.6487,
    (0.7, 8): 0.8413,
    (0.7, 64): 0.9828,
    (0.05, 4): 0.323,
    (0.95, 4): 0.323,
    (0.05, 8): 0.504,
    (0.95, 8): 0.504,
    (0.05, 64): 0.938,
    (0.95, 64): 0.938,
}


def has_the_check_values(kappa) -> bool:
    return all(
        abs(kappa(q, g) * np.sqrt(q * (1 - q)) - value) < (6e-5 if value > 0.6 and q == 0.7 else 6e-4)
        for (q, g), value in CHECKS.items()
    )


def test_kappa_has_the_check_values_of_the_notes():
    # ddof is 0 or 1: no power changes it.
    assert survivors(finite_group.kappa, has_the_check_values, equivalent=("ddof ->",)) == []


@given(q=inside, rollouts=st.integers(2, 12), ddof=st.sampled_from([0, 1]))
def test_kappa_is_the_drift_of_the_rule_over_v(q, rollouts, ddof):
    rule = Rule(signal=GroupMeanStd(ddof=ddof, eps=0), optimiser=SGD(eta=1), rollouts=rollouts)
    drift = finite_group.round_moments(rule, q).drift
    assert finite_group.kappa(q, rollouts, ddof) * q * (1 - q) == pytest.approx(drift, rel=1e-9)


@given(q=inside, rollouts=st.integers(2, 40))
def test_kappa_is_symmetric_and_below_its_limit(q, rollouts):
    kappa = finite_group.kappa(q, rollouts)
    assert kappa == pytest.approx(finite_group.kappa(1 - q, rollouts), rel=1e-9)
    assert kappa * np.sqrt(q * (1 - q)) <= 1 + 1e-12
    population = finite_group.kappa(q, rollouts, ddof=0)
    assert population == pytest.approx(kappa * np.sqrt(rollouts / (rollouts - 1)), rel=1e-9)


def test_kappa_reaches_its_limit_as_groups_grow():
    q = np.array([0.1, 0.5, 0.9])
    gap = [np.abs(finite_group.kappa(q, g) * np.sqrt(q * (1 - q)) - 1).max() for g in (100, 400, 1600)]
    assert 3 < gap[0] / gap[1] < 5 and 3 < gap[1] / gap[2] < 5  # error O(1/G)


def counts_silent_groups(zero_signal) -> bool:
    """Share of the groups of three whose enumerated update is zero under the mean-std signal."""
    rule = Rule(signal=GroupMeanStd(eps=0), optimiser=SGD(eta=1), rollouts=3)
    outcomes = one_round([0.3, 0.7], 1, rule)
    return abs(outcomes.probability[np.abs(outcomes.move) < 1e-12].sum() - zero_signal(0.3, 3)) < 1e-12


def test_the_share_of_silent_groups_is_the_enumerated_one():
    assert survivors(finite_group.zero_signal, counts_silent_groups) == []


def test_the_share_of_mixed_groups_of_eight_in_the_notes():
    mixed = 1 - finite_group.zero_signal([0.02, 0.1, 0.3, 0.5], 8)
    np.testing.assert_allclose(mixed, [0.149, 0.570, 0.942, 0.992], atol=6e-4)


SEEN = one_round([0.3, 0.7], 1, Rule(signal=LeaveOneOut(), optimiser=SGD(eta=1), rollouts=3), pay=(-0.5, 2.0))


def has_the_simulators_moments(round_moments) -> bool:
    """Two logits: twice the drift, four times the variance of the single logit."""
    rule = Rule(signal=LeaveOneOut(), optimiser=SGD(eta=1), rollouts=3)
    drift, variance = round_moments(rule, 0.3, (-0.5, 2.0))
    return bool(np.isclose(2 * drift, SEEN.mean) and np.isclose(4 * variance / 3, SEEN.variance))


def test_the_moments_of_a_rule_are_the_simulators():
    law, helpers = finite_group.round_moments, ("moments_of", "binomial")
    # Left out: the count of the successes, and powers of zeros and ones.
    equivalent = ("np.arange", "rollouts + 1", "trials + 1", "successes", "chance **")
    assert survivors(law, has_the_simulators_moments, helpers=helpers, equivalent=equivalent) == []


def test_raw_reward_drifts_alike_however_a_budget_is_split():
    """(P4) one query, B G = 24 rollouts in groups of G: the mean move of the logit never changes."""
    drift = [
        finite_group.round_moments(Rule(optimiser=SGD(eta=1), rollouts=g), 0.3).drift for g in (1, 2, 6, 24)
    ]
    np.testing.assert_allclose(drift, 0.3 * 0.7, rtol=1e-12)


def separates_the_variances(threshold) -> bool:
    """The enumerated variance of leave-one-out is below that of raw reward just under q*, above it just over."""
    for g in (3, 4, 8):
        for shift, lower in ((-1e-3, True), (1e-3, False)):
            q = threshold(g) + shift
            raw, centred = (
                finite_group.round_moments(Rule(signal=s, optimiser=SGD(eta=1), rollouts=g), q).variance
                for s in (Raw(), LeaveOneOut())
            )
            if (centred < raw) != lower:
                return False
    return threshold() == 2 / 3 and threshold(2) == 0


def test_the_threshold_is_where_the_enumerated_variances_cross():
    assert survivors(finite_group.variance_threshold, separates_the_variances) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: finite_group.kappa(1.5, 4), "q = 1.5; give a value between 0 and 1"),
        (lambda: finite_group.kappa(0.5, 1), "rollouts = 1; give at least 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
