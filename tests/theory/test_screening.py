"""The sequential test: a martingale at its bound, error rates by exact enumeration and by simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from theory.refusal import Refusal
from theory.screening import (
    evidence_above,
    evidence_below,
    interval,
    most_in_range,
    nearest_verdict,
    verdict,
)

WANTED = (0.02, 0.5)
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
inside = st.floats(1e-3, 1 - 1e-3)


def ever(stops: Callable[[int, int], bool], p: float, rollouts: int) -> float:
    """Exact P(stops(s, n) for some n <= rollouts): mass walks over the counts (s, n) until it is stopped."""
    alive, stopped = {0: 1.0}, 0.0
    for n in range(1, rollouts + 1):
        ahead: dict[int, float] = {}
        for s, mass in alive.items():
            ahead[s] = ahead.get(s, 0.0) + mass * (1 - p)
            ahead[s + 1] = ahead.get(s + 1, 0.0) + mass * p
        caught = [s for s in ahead if stops(s, n)]
        stopped += sum(ahead.pop(s) for s in caught)
        alive = ahead
    return stopped


@given(counts, inside, st.floats(0, 1))
def test_the_evidence_is_a_martingale_at_the_bound_and_falls_below_it(count, bound, share) -> None:
    s, n = count
    now = float(evidence_above(s, n, bound))
    assume(now > -300)  # below that it is zero, to a float's precision
    failure, success = (float(x) for x in evidence_above([s, s + 1], [n + 1, n + 1], bound) - now)
    mean = bound * np.exp(success) + (1 - bound) * np.exp(failure)
    assert mean == pytest.approx(1, rel=1e-8)
    p = share * bound
    assert p * np.exp(success) + (1 - p) * np.exp(failure) <= 1 + 1e-8


@given(counts, inside)
def test_the_two_sides_are_mirror_images(count, bound) -> None:
    s, n = count
    assert float(evidence_below(s, n, bound)) == float(evidence_above(n - s, n, 1 - bound))
    low, high = interval(s, n)
    other = interval(n - s, n)
    assert (1 - high, 1 - low) == pytest.approx(other, abs=1e-9)
    assert low <= s / n <= high


@pytest.mark.parametrize(("s", "n", "bound"), [(0, 5, 0.3), (3, 4, 0.2), (7, 30, 0.05), (2, 30, 0.4)])
def test_the_evidence_is_the_integral_it_is_said_to_be(s: int, n: int, bound: float) -> None:
    def integrand(q: float) -> float:
        ratio = (q / bound) ** s * ((1 - q) / (1 - bound)) ** (n - s)
        return ratio / np.sqrt(q * (1 - q))

    top, _ = integrate.quad(integrand, bound, 1)
    cut, _ = integrate.quad(lambda q: 1 / np.sqrt(q * (1 - q)), bound, 1)
    assert float(evidence_above(s, n, bound)) == pytest.approx(np.log(top / cut), rel=1e-6)


@cache
def intervals() -> dict[tuple[int, int], tuple[float, float]]:
    """At error .2, after each count of up to 30 rollouts."""
    return {(s, n): interval(s, n, 0.2) for n in range(1, 31) for s in range(n + 1)}


@pytest.mark.parametrize("bound", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("error", [0.2, 0.02])
def test_ville_by_enumeration(bound: float, error: float) -> None:
    """P(E >= 1/error at any of 80 looks), exactly: at most the error at the bound, less below it, and not zero."""
    enough = np.log(1 / error)
    table = {n: evidence_above(np.arange(n + 1), n, bound) >= enough for n in range(1, 81)}
    at, below = (ever(lambda s, n: bool(table[n][s]), p, 80) for p in (bound, 0.7 * bound))
    assert below < at <= error
    assert at > error / 20, "a test that never rejects has no error and no power"


@pytest.mark.parametrize("p", [0.0, 0.01, 0.1, 0.5, 0.93, 1.0])
def test_the_interval_covers_at_all_times_by_enumeration(p: float) -> None:
    kept = intervals()
    missed = ever(lambda s, n: not kept[s, n][0] <= p <= kept[s, n][1], p, 30)
    assert missed <= 0.2
    assert missed > 0 or p in (0.0, 1.0)


@given(counts, st.floats(0.01, 0.5))
def test_everything_beyond_the_interval_is_rejected(count, error: float) -> None:
    """One crossing on each side: no p outside has less evidence against it than the limit, and none inside more."""
    s, n = count
    low, high = interval(s, n, error)
    enough = np.log(2 / error)
    for share in np.linspace(0.02, 0.98, 13):
        assert low == 0 or float(evidence_above(s, n, share * low)) >= enough - 1e-6
        assert high == 1 or float(evidence_below(s, n, 1 - share * (1 - high))) >= enough - 1e-6
        middle = low + share * (high - low)
        assert max(evidence_above(s, n, middle), evidence_below(s, n, middle)) <= enough + 1e-6


@given(counts, st.tuples(inside, inside).filter(lambda x: x[0] < x[1]), st.floats(0.01, 0.5))
def test_the_verdict_is_where_the_interval_lies(count, wanted, error: float) -> None:
    s, n = count
    low, high = interval(s, n, error)
    edges = (abs(x - bound) for x in (low, high) for bound in wanted)
    assume(min(edges) > 1e-9)
    said = verdict(s, n, wanted, error)
    if high < wanted[0]:
        assert said == "too hard"
    elif low > wanted[1]:
        assert said == "too easy"
    else:
        assert said == ("in range" if wanted[0] < low and high < wanted[1] else "undecided")


def test_open_ended_ranges() -> None:
    """With low = 0 nothing is too hard, and one success is enough on that side; with high = 1 nothing too easy."""
    assert verdict(0, 4000, (0.0, 0.5)) == "undecided"
    assert verdict(1, 60, (0.0, 0.5)) == "in range"
    assert verdict(50, 50, (0.2, 1.0)) == "in range"


@pytest.mark.parametrize(
    ("p", "wrong", "limit"),
    [(0.01, {"in range", "too easy"}, 0.025), (0.1, {"too hard", "too easy"}, 0.05),
     (0.02, {"too hard", "too easy"}, 0.05), (0.6, {"in range", "too hard"}, 0.025)],
)  # fmt: skip
def test_error_rates_by_simulation(p: float, wrong: set[str], limit: float) -> None:
    """600 queries of up to 600 rollouts, looked at every 8: wrong verdicts at most the 99.99% quantile of
    Bin(600, limit), so a false alarm below 1e-4 per case, fixed key."""
    draws = np.random.Generator(np.random.Philox(key=17)).random((600, 600)) < p
    looks = range(8, 601, 8)
    paid = draws.cumsum(axis=1)[:, 7::8].tolist()
    said = cache(lambda s, n: verdict(s, n, WANTED))
    first = []
    for row in paid:
        verdicts = (said(s, n) for s, n in zip(row, looks, strict=True))
        first.append(next((v for v in verdicts if v != "undecided"), "undecided"))
    assert sum(v in wrong for v in first) <= stats.binom(600, limit).ppf(1 - 1e-4)
    if p in (0.1, 0.6):
        assert np.mean([v != "undecided" for v in first]) > 0.9, "it decides"


def test_how_many_failures_drop_a_query() -> None:
    """With no success and n m = x, E -> e^x gamma(1/2, x) / (2 sqrt x) as m -> 0; it is 2 / .05 = 40 at x = 4.5722, so
    that n = x / m rollouts without success call a query too hard (a fixed n would need ln 40 / m = 3.69 / m)."""
    x = 4.5722
    assert np.exp(x) * special.gamma(0.5) * special.gammainc(0.5, x) / (2 * np.sqrt(x)) == pytest.approx(
        40, rel=1e-3
    )
    for low in (0.02, 0.001):
        first = next(n for n in itertools.count(1) if verdict(0, n, (low, 0.5)) == "too hard")
        assert first * low == pytest.approx(x, rel=3 * low + 1e-3)


def test_what_a_verdict_needs_is_about_what_it_then_takes() -> None:
    """From a third of the way, for p well away from the bounds: within a factor 3 of the rollouts at which a query
    whose successes come evenly has its verdict."""
    for p, said in (
        (0.08, "in range"),
        (0.2, "in range"),
        (0.3, "in range"),
        (0.75, "too easy"),
        (0.002, "too hard"),
    ):
        takes = next(n for n in range(1, 4000) if verdict(round(p * n), n, WANTED) == said)
        n = takes // 3
        _, needed = nearest_verdict(p * n, n, WANTED)
        assert 1 / 3 < float(needed) / (takes - n) < 3, (p, takes)


def test_looks_go_where_a_verdict_is_had_soonest() -> None:
    """One success of 8 before none of 8; both before a query at the very bound, however much is known of it."""
    rate, needed = nearest_verdict([1, 0, 20, 8], [8, 8, 1000, 9], WANTED)
    assert rate[3] > rate[0] > rate[1] > rate[2]
    assert needed[0] < needed[1] and needed[2] > 1000


@given(counts, st.sampled_from([WANTED, (0.0, 0.5), (0.3, 1.0)]))
def test_what_is_needed_is_a_number_whatever_was_seen(count, wanted) -> None:
    rate, needed = nearest_verdict(*count, wanted)
    assert needed >= 1 and 0 <= rate <= 1
    assert verdict(*count, wanted) == "undecided" or needed == 1


@pytest.mark.parametrize(("population", "looked", "miss"), [(12, 5, 0.3), (9, 9, 0.05), (30, 4, 0.0)])
def test_the_limit_covers_by_enumeration(population: int, looked: int, miss: float) -> None:
    """For every true number in range, P(limit below it) <= 5%, summed over all that can be seen; and the limit is
    sharp: one less would sometimes fail."""
    limits = [most_in_range(k, looked, population, miss) for k in range(looked + 1)]
    assert limits == sorted(limits)
    missed = {0: [], 1: []}
    for true in range(population + 1):
        drawn = stats.hypergeom(population, true, looked).pmf(np.arange(looked + 1))
        kept = np.array([
            sum(drawn[j] * stats.binom(j, 1 - miss).pmf(k) for j in range(looked + 1)) for k in range(looked + 1)
        ])  # fmt: skip
        assert kept.sum() == pytest.approx(1)
        for less, shares in missed.items():
            shares.append(sum(w for w, limit in zip(kept, limits, strict=True) if limit - less < true))
    assert max(missed[0]) <= 0.05 + 1e-12
    assert max(missed[1]) > 0.05


def test_none_kept_of_many_is_the_rule_of_three() -> None:
    """(1 - .05^(1/100)) / .95 = 3.107% of an endless set, of which this one of 100,000 is nearly one."""
    assert most_in_range(0, 100, 100_000, 0.05) == pytest.approx(3107, abs=8)


def test_bad_counts_are_named() -> None:
    with pytest.raises(Refusal, match="kept 3, looked 2, population 9"):
        most_in_range(3, 2, 9, 0.05)
    with pytest.raises(Refusal, match="successes 3 of rollouts 2"):
        interval(3, 2)
