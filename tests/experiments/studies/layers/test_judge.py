"""Effects and verdicts: against SciPy's paired test, Holm's definition, enumeration of verdicts, and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.studies.layers.judge import Effect, effect, holm, p_values, together, verdict
from theory.refusal import Refusal

chances = st.lists(st.floats(0, 1), min_size=1, max_size=12)
claims = st.sampled_from(["more", "less", "same", "no_more"])


@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_an_effect_is_scipys_paired_t_test(seed, seeds):
    a, b = np.random.default_rng(seed).normal([[0.2], [0.0]], 1.0, (2, seeds))
    seen, known = effect([(a, 1), (b, -1)]), stats.ttest_rel(a, b)
    assert seen.freedom == pytest.approx(seeds - 1) and seen.seeds == seeds
    assert seen.mean == pytest.approx(float(np.mean(a - b)))
    low, high = known.confidence_interval()
    assert (seen.low, seen.high) == pytest.approx((low, high))
    assert 2 * min(seen.above(0), seen.below(0)) == pytest.approx(known.pvalue)
    assert seen.above(0.1) == pytest.approx(stats.ttest_1samp(a - b, 0.1, alternative="greater").pvalue)


@given(st.floats(-1, 1), st.integers(2, 9))
def test_equal_differences_are_known_without_error(value, seeds):
    seen = effect([([value] * seeds, 1)])
    assert seen.error == 0 and seen.low == seen.mean == seen.high and seen.power(0.1) == 1
    assert (seen.above(value - 0.1), seen.above(value + 0.1)) == (0, 1)


def test_one_seed_is_no_evidence():
    with pytest.raises(Refusal, match=r"shape \(1,\).*at least 2 seeds"):
        effect([([0.3], 1)])


@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(2, 20))
def test_seeds_that_both_variants_have_are_paired_and_the_others_count_too(seed, both, more):
    """Of independent blocks the variance is the sum: of the paired block's and of what the longer variant adds."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=both + more), rng.normal(size=both)
    seen = effect([(a, 1), (b, -1)])
    assert seen.mean == pytest.approx(a.mean() - b.mean()) and seen.seeds == both
    inside = both * np.var(a[:both] / len(a) - b / both, ddof=1)
    beyond = more * np.var(a[both:] / len(a), ddof=1)
    assert seen.error**2 == pytest.approx(inside + beyond)
    assert min(both, more) - 1 <= seen.freedom + 1e-9 and seen.freedom <= both + more - 2 + 1e-9
    assert effect([(b, -1), (a, 1)]) == pytest.approx(seen)


def test_a_single_seed_left_out_leaves_the_next_two_in():
    """Sizes 4, 5, 6: the fifth seed alone is no stratum, the fifth and sixth of the third variant are."""
    draws = np.random.default_rng(0).normal(size=6)
    four_and_six = effect([(draws[:4], 1), (draws, -1)])
    assert effect([(draws[:4], 1), (draws[:5], 0), (draws, -1)]) == four_and_six
    assert four_and_six.mean == pytest.approx(draws[:4].mean() - draws.mean())


def test_a_single_seed_beyond_the_shared_ones_joins_nothing():
    a, b = np.array([0.3, 0.5, 0.1, 9.0]), np.array([0.2, 0.1, 0.0])
    assert effect([(a, 1), (b, -1)]) == effect([(a[:3], 1), (b, -1)])


def test_partly_shared_seeds_keep_the_level_and_gain_power():
    """12 seeds shared of 32, correlation .3, no difference: 4,000 tests at 5%; 4.5 standard errors are .016. With a
    difference of .7 the pairs alone see it less often."""
    rng, false, seen, pairs = np.random.default_rng(5), 0, 0, 0
    for _ in range(4000):
        a = rng.normal(size=32)
        b = 0.3 * a[:12] + np.sqrt(1 - 0.09) * rng.normal(size=12)
        whole = effect([(a, 1), (b, -1)])
        false += 2 * min(whole.above(0), whole.below(0)) < 0.05
        seen += effect([(a + 0.7, 1), (b, -1)]).above(0) < 0.025
        pairs += effect([(a[:12] + 0.7, 1), (b, -1)]).above(0) < 0.025
    assert abs(false / 4000 - 0.05) < 0.016
    assert seen > pairs


@given(chances)
def test_holm_is_its_definition(p):
    """Step down: the i-th smallest of m is multiplied by m - i + 1, and no value lies below an earlier one."""
    corrected, largest = {}, 0.0
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - step) * p[i]))
        corrected[i] = largest
    np.testing.assert_allclose(holm(p), [corrected[i] for i in range(len(p))])


@given(chances, st.randoms())
def test_holm_does_not_depend_on_the_order(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_allclose([holm([p[i] for i in order])[order.index(i)] for i in range(len(p))], holm(p))


def test_holm_keeps_the_chance_of_any_false_alarm():
    """20 true nulls, 4,000 tables: at most 5% of the tables hold a rejection (4.5 standard errors: +.016)."""
    p = np.random.default_rng(0).uniform(size=(4000, 20))
    assert np.mean([min(holm(row)) < 0.05 for row in p.tolist()]) < 0.05 + 0.016


@pytest.mark.parametrize("size", [0.0, 0.3, 0.6, 40.0])
def test_power_is_the_share_of_tests_that_see_the_effect(size):
    """12 seeds of deviation 1: simulated with 20,000 tests, 4.5 standard errors of a share are at most .016."""
    seen = Effect(0.0, 0.0, 0.0, 1 / np.sqrt(12), 11, 12)
    draws = np.random.default_rng(1).normal(size, 1, (20_000, 12))
    # The law conditions on the standard error being what it is in truth; so does this test.
    p = stats.ttest_1samp(draws, 0.0, axis=1).pvalue
    assert seen.power(size) == pytest.approx(float(np.mean(p < 0.05)), abs=0.016)


@given(claims, st.floats(-0.5, 0.5), st.floats(0.001, 0.1), st.floats(0.01, 0.2))
def test_for_and_against_are_never_both_right_about_the_mean_itself(claim, mean, error, margin):
    """A claim and what contradicts it overlap only where an effect is there but too small to matter."""
    seen = Effect(mean, 0, 0, error, 29, 30)
    supports, contradicts = p_values(seen, claim, margin)
    assert 0 <= supports <= 1 and 0 <= contradicts <= 1
    if supports < 0.05 and contradicts < 0.05:
        assert claim in ("more", "less") and 0 < abs(mean) < margin


@pytest.mark.parametrize(
    ("claim", "mean", "expected"),
    [
        ("more", 0.3, "reproduced"), ("more", 0.01, "not reproduced"), ("more", -0.3, "not reproduced"),
        ("less", -0.3, "reproduced"), ("less", 0.3, "not reproduced"),
        ("same", 0.0, "reproduced"), ("same", 0.3, "not reproduced"), ("same", -0.3, "not reproduced"),
        ("no_more", -0.3, "reproduced"), ("no_more", 0.0, "reproduced"), ("no_more", 0.3, "not reproduced"),
        ("more", 0.05, "reproduced"), ("same", 0.05, "undecided"), ("no_more", 0.05, "undecided"),
    ],
)  # fmt: skip
def test_verdicts_of_clear_effects(claim, mean, expected):
    assert verdict(*p_values(Effect(mean, 0, 0, 0.005, 49, 50), claim, 0.05)) == expected


def test_noise_decides_nothing():
    for claim, mean in itertools.product(("more", "less", "same", "no_more"), (-0.1, 0.0, 0.1)):
        assert verdict(*p_values(Effect(mean, 0, 0, 1.0, 9, 10), claim, 0.05)) == "undecided"


def test_comparisons_that_disagree_depend():
    assert together([]) == together(["undecided"]) == "undecided"
    assert together(["reproduced", "undecided"]) == "reproduced"
    assert together(["not reproduced"]) == "not reproduced"
    assert together(["reproduced", "not reproduced"]) == "depends"
