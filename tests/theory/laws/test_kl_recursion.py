"""Regularised policy iteration: numerical maximisation on the simplex, slopes, fixed points, and mutants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit, logsumexp, softmax

from tests.theory.laws.mutation import survivors
from theory.laws import kl_recursion
from theory.refusal import Refusal

CORRECT = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
ANCHOR = np.array([0.05, 0.15, 0.3, 0.4, 0.1])  # p = .2


def maximised(p_old: float, beta: float, eps: float | None) -> float:
    """Success of argmax E[A] - beta KL(pi || anchor) over the five-arm simplex; A from the statistics at p_old."""
    deviation = 1.0 if eps is None else np.sqrt(p_old * (1 - p_old) + eps)
    advantage = (CORRECT - p_old) / deviation

    def loss(theta):
        logs = theta - logsumexp(theta)
        return -np.exp(logs) @ (advantage - beta * (logs - np.log(ANCHOR)))

    best = minimize(loss, np.zeros(5), tol=1e-14, options={"gtol": 1e-9}).x
    return float(softmax(best) @ CORRECT)


BEST = {
    (p, beta, eps): maximised(p, beta, eps) for p in (0.1, 0.6) for beta in (1.0, 4.0) for eps in (1e-6, 0.1)
}


def maximises(amplify) -> bool:
    return all(abs(amplify(p, 0.2, beta, eps) - best) < 1e-6 for (p, beta, eps), best in BEST.items())


def test_one_round_is_the_numerical_maximum_on_the_simplex():
    assert survivors(kl_recursion.amplify, maximises) == []


def is_the_derivative(slope) -> bool:
    for p, beta, eps in ((0.2, 2.0, 1e-6), (0.7, 5.0, 0.05)):
        ends = kl_recursion.amplify([p - 1e-6, p + 1e-6], 0.1, beta, eps)
        if abs(slope(p, 0.1, beta, eps) - np.diff(ends)[0] / 2e-6) > 1e-7:
            return False
    return True


def test_the_slope_is_the_derivative():
    assert survivors(kl_recursion.slope, is_the_derivative) == []


@given(p_ref=st.floats(1e-6, 0.99), beta=st.floats(0.2, 50), eps=st.sampled_from([1e-6, 1e-3, 0.1]))
def test_fixed_points_are_fixed_above_the_reference_and_odd_in_number(p_ref, beta, eps):
    points = kl_recursion.fixed_points(p_ref, beta, eps)
    assert len(points) % 2 == 1
    known = points[points < 1 - 1e-9]
    np.testing.assert_allclose(kl_recursion.amplify(known, p_ref, beta, eps), known, rtol=1e-6)
    assert np.all(points > p_ref)


def rests(fixed_points) -> bool:
    points = fixed_points(0.1, 0.9, 0.01)
    moved = logit(0.1) + 1 / 0.9 / np.sqrt(points * (1 - points) + 0.01)
    return len(points) == 3 and np.allclose(logit(points), moved, rtol=1e-6)


def test_no_mutant_of_the_fixed_points_rests():
    # Left out: the end of the search, which lies beyond every root.
    assert survivors(kl_recursion.fixed_points, rests, equivalent=("start + reach", "positive(")) == []


def test_a_hard_query_under_strong_kl_has_three_fixed_points():
    """p_ref = .1, beta = 1, eps = .01: one holds the recursion, one is a threshold, one is success."""
    points = kl_recursion.fixed_points(0.1, 1.0, 0.01)
    slopes = kl_recursion.slope(points, 0.1, 1.0, 0.01)
    np.testing.assert_allclose(
        logit(points) - logit(0.1), 1 / np.sqrt(points * (1 - points) + 0.01), rtol=1e-6
    )
    assert len(points) == 3 and np.all(np.abs(slopes[[0, 2]]) < 1) and slopes[1] > 1
    for p0, end in ((points[1] - 1e-3, points[0]), (points[1] + 1e-3, points[2])):
        path = kl_recursion.recursion("reference", p0, 1.0, 400, p_ref=0.1, eps=0.01)
        assert path[-1] == pytest.approx(end, abs=1e-8)


def test_a_hard_query_overshoots_its_fixed_point_and_cycles():
    """p_ref = 1e-3: odds lifted less than e^2 times at beta = 7, more at beta = 5, where the slope is below -1."""
    for beta, settles in ((7.0, True), (5.0, False)):
        point = kl_recursion.fixed_points(1e-3, beta)[0]
        lift = logit(point) - logit(1e-3)
        slope = kl_recursion.slope(point, 1e-3, beta)
        assert slope == pytest.approx(-(1 - 2 * point) * lift / 2, rel=1e-3)
        assert (slope > -1) == settles == ((1 - 2 * point) * lift < 2)
        path = kl_recursion.recursion("reference", 1e-3, beta, 400)
        assert path[-1] == pytest.approx(path[-3], rel=1e-6)
        assert (abs(path[-1] / path[-2] - 1) < 1e-6) == settles


def test_weak_kl_leaves_one_fixed_point_at_success():
    points = kl_recursion.fixed_points(0.1, 0.5)
    assert len(points) == 1 and points[0] > 0.999


def test_a_stable_fixed_point_draws_errors_in_at_the_rate_of_its_slope():
    point = kl_recursion.fixed_points(0.1, 5.0)[0]
    path = kl_recursion.recursion("reference", point + 1e-4, 5.0, 3, p_ref=0.1)
    assert (path[3] - point) / (path[2] - point) == pytest.approx(
        kl_recursion.slope(point, 0.1, 5.0), rel=1e-2
    )


def iterates_the_maximum(recursion) -> bool:
    """Every kind from the best response of one round; the mirror kinds replace the anchor each round."""
    anchor, p = logit(0.2), 0.2
    reference, mirror = [p], [p]
    for _ in range(3):
        sigma = np.sqrt(reference[-1] * (1 - reference[-1]) + 0.01)
        reference.append(expit(anchor + 1 / (4 * sigma)))
        sigma = np.sqrt(mirror[-1] * (1 - mirror[-1]) + 0.01)
        mirror.append(expit(logit(mirror[-1]) + 1 / (4 * sigma)))
    logistic = expit(anchor + np.arange(4) / 4)
    still = np.append(0.2, [expit(anchor + 1 / 4)] * 3)
    return (
        np.allclose(recursion("reference", 0.2, 4.0, 3, eps=0.01), reference, rtol=1e-9)
        and np.allclose(recursion("mirror", 0.2, 4.0, 3, eps=0.01), mirror, rtol=1e-9)
        and np.allclose(recursion("mean_only_mirror", 0.2, 4.0, 3), logistic, rtol=1e-9)
        and np.allclose(recursion("mean_only_reference", 0.2, 4.0, 3), still, rtol=1e-9)
    )


def test_every_kind_iterates_its_round():
    assert survivors(kl_recursion.recursion, iterates_the_maximum) == []
    # The first round of the two mean-only kinds is the numerical maximum too.
    first = kl_recursion.recursion("mean_only_mirror", 0.2, 4.0, 1)[1]
    assert first == pytest.approx(maximised(0.2, 4.0, None), abs=1e-6)


@given(p0=st.floats(0.01, 0.9), beta=st.floats(0.5, 20))
def test_every_kind_climbs(p0, beta):
    for kind in kl_recursion.KINDS:
        path = kl_recursion.recursion(kind, p0, beta, 5)
        assert np.all(path[1:] >= path[0]) and (kind == "reference" or np.all(np.diff(path) >= -1e-12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kl_recursion.recursion("both", 0.1, 1.0, 3),
            "kind 'both' is unknown; choose one of reference",
        ),
        (
            lambda: kl_recursion.recursion("mirror", 0.1, 1.0, 3, p_ref=0.2),
            "p_ref = 0.2 is ignored by mirror",
        ),
        (lambda: kl_recursion.recursion("mean_only_mirror", 0.1, 1.0, 3, eps=0.1), "eps = 0.1 is ignored by"),
        (lambda: kl_recursion.amplify(0.5, 0.0, 1.0), "p_ref = 0; give a value strictly between 0 and 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
