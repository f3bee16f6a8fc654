"""Smoothing, crossing times, coverage, CRPS, baselines and residuals: invariants first, then oracles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.compare.numbers import pooled
from experiments.scoring import scores
from experiments.scoring.scores import Interval, pooled_z, window_z
from theory.refusal import Refusal

unit = st.floats(0, 1, allow_subnormal=False)
curves = hnp.arrays(np.float64, st.integers(1, 40), elements=unit)
widths = st.integers(0, 12).map(lambda half: 2 * half + 1)
quick = settings(max_examples=60, deadline=None)


# Smoothing


@quick
@given(unit, st.integers(1, 60), widths)
def test_a_constant_curve_stays_what_it_is(value, rounds, width):
    np.testing.assert_allclose(scores.smooth(np.full(rounds, value), width), value, rtol=1e-14, atol=0)


@quick
@given(curves, widths)
def test_smoothing_is_the_mean_over_the_window_cut_off_at_the_ends(curve, width):
    half = width // 2
    expected = [curve[max(0, t - half) : t + half + 1].mean() for t in range(len(curve))]
    np.testing.assert_allclose(scores.smooth(curve, width), expected, rtol=1e-12, atol=1e-15)


@quick
@given(hnp.arrays(np.float64, (3, 17), elements=unit), widths)
def test_smoothing_commutes_with_the_mean_over_replicas_and_keeps_the_range(outcomes, width):
    smoothed = scores.smooth(outcomes, width)
    np.testing.assert_allclose(smoothed.mean(0), scores.smooth(outcomes.mean(0), width), atol=1e-14)
    assert outcomes.min() - 1e-15 <= smoothed.min() and smoothed.max() <= outcomes.max() + 1e-15


@quick
@given(curves)
def test_width_one_changes_nothing_and_time_reversal_commutes(curve):
    np.testing.assert_array_equal(scores.smooth(curve, 1), curve)
    np.testing.assert_allclose(scores.smooth(curve[::-1], 5), scores.smooth(curve, 5)[::-1], atol=1e-15)


@quick
@given(st.integers(1, 10_000))
def test_the_default_width_is_the_odd_number_nearest_to_a_tenth(rounds):
    width = scores.default_width(rounds)
    assert width % 2 == 1 and width >= 1
    assert all(
        abs(width - rounds / 10) <= abs(odd - rounds / 10) for odd in (width - 2, width + 2) if odd > 0
    )


@pytest.mark.parametrize("width", [0, -3, 4])
def test_an_even_or_empty_window_is_rejected(width):
    with pytest.raises(Refusal, match=f"width is {width}"):
        scores.smooth(np.zeros(5), width)


# Ensembles


def test_members_are_means_over_distinct_seeds():
    pool = np.eye(6)  # a seed drawn twice would show as 2/3
    members = scores.ensemble_of_means(pool, replicas=3, members=50, seed=0)
    assert members.shape == (50, 6)
    np.testing.assert_allclose(np.sort(members, axis=1), np.tile([0, 0, 0, 1 / 3, 1 / 3, 1 / 3], (50, 1)))


def test_all_seeds_in_one_member_give_the_pool_mean_and_the_seed_fixes_the_draw():
    pool = np.random.default_rng(0).random((8, 5))
    np.testing.assert_allclose(scores.ensemble_of_means(pool, 8, 3, 0), np.tile(pool.mean(0), (3, 1)))
    first, again, other = (scores.ensemble_of_means(pool, 4, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_the_spread_of_members_is_that_of_a_mean_without_replacement():
    pool = np.random.default_rng(3).random((200, 1))
    members = scores.ensemble_of_means(pool, 20, 4000, 0)
    expected = pool.var(ddof=1) / 20 * (1 - 20 / 200)  # Cochran: finite population correction
    # relative standard error of a variance of 4,000 near-normal draws: sqrt(2 / 4000) = 2.2%; five of them
    assert members.var() == pytest.approx(expected, rel=0.11)


def test_more_replicas_than_seeds_is_rejected():
    with pytest.raises(Refusal, match="replicas is 9, but 8 seeds"):
        scores.ensemble_of_means(np.zeros((8, 4)), 9, 10, 0)


# Crossing times


@quick
@given(curves, unit, unit)
def test_crossing_never_decreases_with_the_level(curve, first, second):
    low, high = sorted((first, second))
    early, late = scores.crossing(curve, low), scores.crossing(curve, high)
    assert late is None or (early is not None and early <= late)


@quick
@given(curves, unit)
def test_crossing_is_none_exactly_when_the_level_lies_above_the_curve(curve, level):
    time = scores.crossing(curve, level)
    assert (time is None) == (curve.max() < level)
    if time is not None:
        assert 1 <= time <= len(curve)
        assert np.interp(time, np.arange(1, len(curve) + 1), curve) == pytest.approx(level) or time == 1


def test_crossing_reads_straight_lines_between_rounds():
    assert scores.crossing([0.0, 0.2, 0.4], 0.3) == pytest.approx(2.5)
    assert scores.crossing([0.3, 0.2], 0.3) == 1.0
    assert scores.crossing([0.0, 0.5, 0.1, 0.9], 0.5) == 2.0


def test_members_that_never_cross_count_as_late():
    rising, flat = np.linspace(0, 1, 11), np.zeros(11)
    assert scores.crossing_interval([rising] * 60 + [flat] * 40, 0.5) == Interval(6.0, 6.0, None)
    assert scores.crossing_interval([rising] * 40 + [flat] * 60, 0.5) == Interval(None, 6.0, None)
    assert scores.crossing_interval([flat] * 10, 0.5) == Interval(None, None, None)


def test_equal_replicas_leave_no_doubt_about_the_observed_time():
    replicas = np.tile(np.linspace(0, 1, 11), (5, 1))
    assert scores.observed_crossing(replicas, 0.5, 1, bootstrap=50, seed=0) == pytest.approx((6.0, 6.0, 6.0))
    assert scores.observed_crossing(replicas, 1.5, 1, bootstrap=50, seed=0) == (None, None, None)


def test_the_bootstrap_interval_has_the_width_of_the_sampling_distribution():
    rng = np.random.default_rng(0)
    p = np.linspace(0.05, 0.6, 60)

    def run():
        return (rng.random((32, 60)) < p).astype(float)

    truth = [scores.crossing(scores.smooth(run(), 7).mean(0), 0.3) for _ in range(200)]
    low, high = np.quantile([time for time in truth if time is not None], [0.025, 0.975])
    widths = [
        time.high - time.low for time in (scores.observed_crossing(run(), 0.3, 7, 200) for _ in range(20))
    ]
    assert 0.6 < np.mean(widths) / (high - low) < 1.7


intervals = st.tuples(st.floats(1, 100), st.floats(0, 30), st.floats(0, 30)).map(
    lambda drawn: Interval(drawn[0], drawn[0] - drawn[1], drawn[0] + drawn[2])
)


@quick
@given(intervals, intervals)
def test_agreement_is_symmetric_and_certain_inside_either_interval(forecast, observed):
    agree = scores.times_agree(forecast, observed)
    assert agree == scores.times_agree(observed, forecast)
    gap = 1e-9  # rounding of value + half-width - value
    if forecast.low + gap <= observed.value <= forecast.high - gap:
        assert agree
    if agree:
        assert max(forecast.low, observed.low) <= min(forecast.high, observed.high) + gap


@pytest.mark.parametrize(
    ("forecast", "observed", "expected"),
    [
        (Interval(None, None, None), Interval(None, 80, None), None),
        (Interval(50, 40, 60), Interval(60, 52, 70), True),  # 10 <= hypot(10, 8)
        (Interval(50, 45, 55), Interval(60, 53, 70), False),  # 10 > hypot(5, 7)
        (Interval(50, 40, None), Interval(95, 90, None), True),  # forecast unbounded above
        (Interval(50, 40, 60), Interval(None, None, None), False),  # surely late against surely early
        (Interval(90, 80, None), Interval(None, 95, None), True),
        (Interval(None, 70, None), Interval(80, 60, 95), True),
        (Interval(None, 97, None), Interval(80, 60, 95), False),
        (Interval(50, 45, 55), Interval(60, None, None), False),  # no room known below the second
    ],
)
def test_agreement_by_hand(forecast, observed, expected):
    assert scores.times_agree(forecast, observed) is expected


# Coverage and CRPS


@quick
@given(hnp.arrays(np.float64, (12, 9), elements=unit), hnp.arrays(np.float64, 9, elements=unit))
def test_coverage_is_a_share_of_rounds_that_grows_with_the_level(ensemble, observed):
    shares = [scores.coverage(ensemble, observed, level) for level in (0.2, 0.5, 0.9)]
    assert shares == sorted(shares) and all(share * 9 == pytest.approx(round(share * 9)) for share in shares)


def test_the_median_is_always_covered_and_what_lies_outside_never():
    ensemble = np.random.default_rng(0).random((101, 7))
    assert scores.coverage(ensemble, np.median(ensemble, axis=0), 0.1) == 1
    assert scores.coverage(ensemble, np.full(7, 2.0), 0.99) == 0


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_a_calibrated_ensemble_covers_its_level(level):
    # Independent rounds: the count of covered rounds is binomial(4000, level).  Four standard deviations, and
    # two more for edges estimated from 1,000 members: false alarm below 1e-4, for a fixed seed never.
    rng = np.random.default_rng(1)
    share = scores.coverage(rng.standard_normal((1000, 4000)), rng.standard_normal(4000), level)
    assert abs(share - level) < 6 * math.sqrt(level * (1 - level) / 4000)


@pytest.mark.parametrize("level", [0, 1, 90])
def test_a_level_outside_zero_and_one_is_rejected(level):
    with pytest.raises(Refusal, match=f"level is {level}"):
        scores.central_band(np.zeros((3, 2)), level)


@quick
@given(curves)
def test_crps_of_a_perfect_point_ensemble_is_zero_and_of_a_shifted_one_the_shift(curve):
    assert scores.crps(np.tile(curve, (5, 1)), curve) == pytest.approx(0, abs=1e-14)
    assert scores.crps(np.tile(curve + 0.25, (5, 1)), curve) == pytest.approx(0.25)


@quick
@given(hnp.arrays(np.float64, (6, 4), elements=unit), hnp.arrays(np.float64, 4, elements=unit))
def test_crps_is_the_fair_estimator(ensemble, observed):
    error = np.abs(ensemble - observed).mean(0)
    pairs = np.abs(ensemble[:, None] - ensemble[None]).sum((0, 1)) / (6 * 5)
    assert scores.crps(ensemble, observed) == pytest.approx(float(np.mean(error - pairs / 2)), abs=1e-12)


def test_crps_of_a_normal_ensemble_matches_its_closed_form():
    # N(0, 1) at y = 0: (sqrt(2) - 1) / sqrt(pi) (Gneiting and Raftery 2007, eq. 21)
    ensemble = np.random.default_rng(0).standard_normal((2000, 50))
    expected = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    assert scores.crps(ensemble, np.zeros(50)) == pytest.approx(expected, rel=0.01)


def test_crps_needs_two_members():
    with pytest.raises(Refusal, match="1 member"):
        scores.crps(np.zeros((1, 3)), np.zeros(3))


def test_replica_spread_is_mean_plus_minus_deviation_within_zero_and_one():
    low, high = scores.replica_spread([[0.0, 1.0], [1.0, 1.0]], 1)
    np.testing.assert_allclose(low, [0, 1])  # 0.5 - 0.707 is cut
    np.testing.assert_allclose(high, [1, 1])


# Baselines


def test_the_constant_baseline_carries_p0s_interval_and_binomial_noise():
    members = scores.constant_ensemble(0.2, 0.15, 0.3, replicas=10_000, rounds=40, members=4000, seed=0)
    assert members.shape == (4000, 40)
    p = members.mean(axis=1)  # 400,000 rollouts each: noise of p below 0.001
    np.testing.assert_allclose(np.quantile(p, [0.025, 0.5, 0.975]), [0.15, 0.2, 0.3], atol=0.006)
    noise = scores.constant_ensemble(0.2, 0.2, 0.2, replicas=32, rounds=500, members=100, seed=0)
    assert noise.var() == pytest.approx(0.2 * 0.8 / 32, rel=0.05)


def test_the_constant_baseline_at_zero_is_zero_and_a_bad_interval_is_rejected():
    assert not scores.constant_ensemble(0, 0, 0, 32, 10, 20, 0).any()
    with pytest.raises(Refusal, match="need 0 <= low <= p0"):
        scores.constant_ensemble(0.1, 0.2, 0.3, 32, 10, 20, 0)


def test_the_logistic_baseline_recovers_a_known_logistic_curve():
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(3 - 0.06 * np.arange(1, 101)))
    outcomes = (rng.random((4000, 100)) < p).astype(float)
    members = scores.logistic_ensemble(outcomes, 200, seed=1, bootstrap=50)
    # Slope from 4,000 x 25 rollouts: standard error about 0.0016, times 80 rounds of extrapolation
    # = 0.13 in the logit = 0.03 in p at worst; three of them.
    np.testing.assert_allclose(members.mean(0), p, atol=0.1)
    np.testing.assert_allclose(members.mean(0)[:25], p[:25], atol=0.01)


def test_the_logistic_baseline_looks_at_the_first_quarter_only():
    outcomes = (np.random.default_rng(0).random((16, 40)) < 0.3).astype(float)
    later = outcomes.copy()
    later[:, 10:] = 1 - later[:, 10:]
    first, second = (scores.logistic_ensemble(x, 30, seed=0, bootstrap=10) for x in (outcomes, later))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_logistic_baseline_survives_a_quarter_without_contrast(value):
    members = scores.logistic_ensemble(np.full((32, 100), value), 400, seed=0, bootstrap=5)
    flat = 1 / (2 * (32 * 25 + 1))  # half a pseudo-success over 801 rollouts, at every round
    # 400 members x 100 rounds x 32 rollouts at p = flat: standard error 2.2e-5; five of them
    assert members.mean() == pytest.approx(abs(value - flat), abs=1.1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 24), st.integers(0, 2**31))
def test_the_logistic_baseline_is_finite_for_any_outcomes(replicas, rounds, seed):
    outcomes = (np.random.default_rng(seed).random((replicas, rounds)) < 0.3).astype(float)
    members = scores.logistic_ensemble(outcomes, 5, seed=0)
    assert members.shape == (5, rounds) and np.isfinite(members).all()
    assert members.min() >= 0 and members.max() <= 1


def test_the_logistic_fit_has_no_gradient_left():
    time = np.arange(1, 26) / 25
    successes = np.random.default_rng(0).binomial(32, 0.1 + 0.2 * time).astype(float)
    a, b = scores._logistic_fit(successes, 32, time)
    gap = (32 + 1 / 25) / (1 + np.exp(-(a + b * time))) - (successes + 0.5 / 25)
    np.testing.assert_allclose([gap.sum(), (gap * time).sum()], 0, atol=1e-3)


# Martingale residuals


@pytest.mark.parametrize("rollouts", [1, 4])
def test_residuals_of_a_right_model_have_mean_zero_and_variance_one(rollouts):
    rng = np.random.default_rng(2)
    p = rng.uniform(0.02, 0.7, (64, 80))
    result = scores.martingale_residuals(rng.random((64, 80, rollouts)) < p[..., None], p)
    assert abs(result.mean) < 4 * result.mean_error and abs(result.variance - 1) < 4 * result.variance_error


def test_the_standard_errors_are_those_of_repeated_runs():
    rng = np.random.default_rng(0)
    p = np.full((8, 10), 0.1)
    runs = [scores.martingale_residuals(rng.random((8, 10)) < p, p) for _ in range(2000)]
    # 2,000 runs give a standard deviation to 1.6% when near normal; the variance is skewed, hence 10%
    assert np.std([run.mean for run in runs]) == pytest.approx(runs[0].mean_error, rel=0.1)
    assert np.std([run.variance for run in runs]) == pytest.approx(runs[0].variance_error, rel=0.1)


def test_a_wrong_model_shows():
    rng = np.random.default_rng(0)
    result = scores.martingale_residuals(rng.random((32, 100)) < 0.3, np.full((32, 100), 0.1))
    assert result.mean > 10 * result.mean_error


def test_certain_predictions_say_nothing_when_right_and_shout_when_wrong():
    right = scores.martingale_residuals([[0.0, 1.0]], [[0.0, 1.0]])
    assert np.isnan(right.z).all() and math.isnan(right.mean) and math.isnan(right.variance)
    mixed = scores.martingale_residuals([[0.0, 1.0]], [[0.0, 0.5]])
    assert mixed.mean == pytest.approx(1.0) and mixed.mean_error == 1.0
    wrong = scores.martingale_residuals([[1.0]], [[0.0]])
    assert wrong.mean == pytest.approx(1000, rel=1e-3)


def test_bad_residual_input_is_named():
    with pytest.raises(Refusal, match="shape"):
        scores.martingale_residuals(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(Refusal, match="predicted holds values outside"):
        scores.martingale_residuals(np.zeros((2, 3)), np.full((2, 3), 1.5))
    with pytest.raises(Refusal, match="outcomes hold NaN"):
        scores.martingale_residuals(np.full((2, 3), np.nan), np.full((2, 3), 0.5))


@given(st.integers(1, 6), st.integers(6, 30), st.integers(0, 2**32 - 1))
def test_windows_add_up_to_the_whole(windows: int, rounds: int, seed: int) -> None:
    """sum over windows of z_k sqrt(C_k) is z sqrt(C), whatever is missing."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((5, rounds))
    z[rng.random(z.shape) < 0.2] = np.nan
    counts = [np.isfinite(part).sum() for part in np.array_split(z, windows, axis=1)]
    total = np.dot(window_z(z, windows), np.sqrt(counts))
    assert total == pytest.approx(window_z(z, 1)[0] * np.sqrt(sum(counts)), abs=1e-9)


def test_pooled_z_is_standard_normal_and_adds_up_a_common_error() -> None:
    """Of 4,000 pools of 8 standard normals the mean square is 1 within 4.5 standard errors sqrt(2/4000) (false
    alarm 7e-6); eight runs that are each one standard error too low are sqrt(8) together."""
    draws = np.random.default_rng(0).standard_normal((4000, 8))
    assert np.mean([pooled_z(row) ** 2 for row in draws]) == pytest.approx(1, abs=4.5 * np.sqrt(2 / 4000))
    assert pooled_z([-1.0] * 8) == pytest.approx(-np.sqrt(8))


def test_pooled_leaves_out_what_failed_and_pools_window_by_window() -> None:
    rows = [
        {"residual_z": 1.0, "residual_z_windows": [1.0, 0.0]},
        {"error": "no correct rollout"},
        {"residual_z": 3.0, "residual_z_windows": [1.0, 2.0]},
    ]
    # (1 + 3) / sqrt 2, (1 + 1) / sqrt 2, (0 + 2) / sqrt 2
    assert pooled(rows) == {
        "overlays": 2,
        "residual_z": pytest.approx(4 / np.sqrt(2)),
        "residual_z_windows": pytest.approx([2 / np.sqrt(2), 2 / np.sqrt(2)]),
    }
    assert pooled([{"error": "none"}]) == {"overlays": 0}
