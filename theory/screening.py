"""A sequential test of a query's success probability: looked at after any rollout, it keeps its error rate.

Rollouts of one query are Bernoulli(p). Against p <= m, every likelihood ratio of some q > m to m is a supermartingale
under each p <= m, and so is its mixture over a Beta(1/2, 1/2) prior cut to q > m:

    E(m) = int_m^1 q^s (1-q)^f pi(q) dq / ( pi(q > m) m^s (1-m)^f ),   s successes, f failures.

By Ville's inequality P(E(m) >= 1/a at any time) <= a. Inverted on both sides at a = error / 2 each, this is a
confidence sequence: it holds at all times at once, whatever decides when to stop or which query to look at next.

Source: Robbins (1970); Howard, Ramdas, McAuliffe and Sekhon (arXiv 1810.08240) on mixtures cut at one side. SciPy has
intervals for a number of trials fixed beforehand only (`binomtest`).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from theory.refusal import Refusal

Verdict = Literal["in range", "too easy", "too hard", "undecided"]
Range = tuple[float, float]
PRIOR = 0.5
"""Both parameters of the mixing Beta: it costs about half a log of the number of rollouts, at any p."""


def evidence_above(successes: ArrayLike, rollouts: ArrayLike, bound: float) -> NDArray[np.float64]:
    """log E(m): the evidence against p <= bound; at a true p <= bound, P(ever >= log(1/a)) <= a.

    Arguments:
        successes, rollouts: counts so far, of one shape.
        bound: m in [0, 1]; against p <= 1 there is none (0), against p <= 0 a single success is infinite.
    Valid when: the rollouts are independent draws of one policy.
    """
    s, n = np.asarray(successes, dtype=np.float64), np.asarray(rollouts, dtype=np.float64)
    if bound >= 1:
        return np.zeros(np.broadcast_shapes(s.shape, n.shape))
    f = n - s
    mixture = special.betaln(PRIOR + s, PRIOR + f) - special.betaln(PRIOR, PRIOR)
    with np.errstate(divide="ignore"):  # a share too small for a float is no evidence: log 0
        cut = np.log(special.betaincc(PRIOR + s, PRIOR + f, bound) / special.betaincc(PRIOR, PRIOR, bound))
    return np.asarray(mixture + cut - special.xlogy(s, bound) - special.xlog1py(f, -bound))


def evidence_below(successes: ArrayLike, rollouts: ArrayLike, bound: float) -> NDArray[np.float64]:
    """log E of the mirror image: the evidence against p >= bound. Arguments as in `evidence_above`."""
    s, n = np.asarray(successes), np.asarray(rollouts)
    return evidence_above(n - s, n, 1 - bound)


def interval(successes: int, rollouts: int, error: float = 0.05) -> Range:
    """The p that neither side's evidence rejects at error / 2: covers the true p at all times with 1 - error.

    Errors: Refusal for successes outside 0 .. rollouts.
    """
    if not 0 <= successes <= rollouts:
        raise Refusal(f"successes {successes} of rollouts {rollouts}; give a number from 0 to {rollouts}")
    return _lower(successes, rollouts, error), 1 - _lower(rollouts - successes, rollouts, error)


def verdict(successes: int, rollouts: int, wanted: Range, error: float = 0.05) -> Verdict:
    """Where p lies against the range wanted, low <= p <= high (low < p where low is 0).

    A query in range is ever called anything else but undecided with probability at most `error`; one out of range is
    ever called in range with at most error / 2.
    """
    low, high = wanted
    enough = np.log(2 / error)
    if low > 0 and evidence_below(successes, rollouts, low) >= enough:
        return "too hard"
    if evidence_above(successes, rollouts, high) >= enough:
        return "too easy"
    inside = evidence_above(successes, rollouts, low) >= enough and (
        high >= 1 or evidence_below(successes, rollouts, high) >= enough
    )
    return "in range" if inside else "undecided"


def nearest_verdict(
    successes: ArrayLike, rollouts: ArrayLike, wanted: Range, error: float = 0.05
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(verdicts per rollout, rollouts needed) of the verdict that is had soonest: where to look next, and how long.

    Of the three ranges of p the one with the largest  P(p in it) / needed,  P the posterior under the mixing prior, and

        needed = max(1, max over the bounds to be rejected of (log(2/error) - log E) / KL(p || bound)),

    p the posterior mean within the range. It decides nothing: the evidence is valid under any order of looking.
    """
    s, n = np.asarray(successes, dtype=np.float64), np.asarray(rollouts, dtype=np.float64)
    (low, high), enough = wanted, np.log(2 / error)
    to_low, to_high = (evidence_below(s, n, low), low), (evidence_above(s, n, high), high)
    from_low, from_high = (evidence_above(s, n, low), low), (evidence_below(s, n, high), high)
    rates, needs = [], []
    for (bottom, top), rejected in (
        ((0.0, low), [to_low]), (wanted, [from_low, from_high]), ((high, 1.0), [to_high]),
    ):  # fmt: skip
        share = _posterior(s, n - s, bottom, top)
        with np.errstate(divide="ignore", invalid="ignore"):
            within = (PRIOR + s) / (2 * PRIOR + n) * _posterior(s + 1, n - s, bottom, top) / share
            p = np.where(share > 1e-9, np.clip(within, bottom, top), (bottom + top) / 2)
            need = [
                np.maximum(enough - evidence, 1e-9)
                / (special.rel_entr(p, bound) + special.rel_entr(1 - p, 1 - bound))
                for evidence, bound in rejected
            ]
        needs.append(np.maximum(np.max(need, axis=0), 1.0))
        rates.append(share / needs[-1])
    best = np.argmax(rates, axis=0)
    rate, needed = (np.take_along_axis(np.array(x), best[None], axis=0)[0] for x in (rates, needs))
    return np.asarray(rate), np.asarray(needed)


def most_in_range(kept: int, looked: int, population: int, miss: float, level: float = 0.95) -> int:
    """Upper confidence limit of the number of queries in range in a set of `population`.

    `looked` of them, a number fixed beforehand, were drawn without replacement; a query in range is excluded with
    probability at most `miss`, on its own rollouts; `kept` were not excluded. With J in range among those looked at, J
    hypergeometric, the number kept is at least Bin(J, 1 - miss): the limit is the largest K with
    P(kept or fewer | K) > 1 - level.

    Without replacement from many and none kept it is about population (1 - (1-level)^(1/looked)) / (1 - miss).
    Errors: Refusal for counts that do not fit each other.
    """
    if not 0 <= kept <= looked <= population or looked == 0:
        raise Refusal(
            f"kept {kept}, looked {looked}, population {population}; give kept <= looked <= population, looked >= 1"
        )
    found = np.arange(looked + 1)
    few = stats.binom.cdf(kept, found, 1 - miss)

    def improbable(count: int) -> bool:
        return bool(stats.hypergeom.pmf(found, population, count, looked) @ few <= 1 - level)

    return bisect_left(range(population + 1), True, key=improbable) - 1


def _posterior(successes: ArrayLike, failures: ArrayLike, bottom: float, top: float) -> NDArray[np.float64]:
    """P(bottom <= p <= top) after so many successes and failures."""
    a, b = PRIOR + np.asarray(successes), PRIOR + np.asarray(failures)
    return np.asarray(special.betainc(a, b, top) - special.betainc(a, b, bottom))


def _lower(successes: int, rollouts: int, error: float) -> float:
    """The m at which E(m) = 2 / error: E falls from infinity at 0 to at most 1 at successes / rollouts."""
    if successes == 0:
        return 0.0
    enough = np.log(2 / error)

    def excess(log_m: float) -> float:
        return float(evidence_above(successes, rollouts, float(np.exp(log_m))) - enough)

    top = float(np.log(successes / rollouts)) if successes < rollouts else -1e-12
    bottom = top - 1.0
    while excess(bottom) < 0:
        bottom -= 2.0
    return float(np.exp(float(optimize.brentq(excess, bottom, top))))  # pyright: ignore[reportArgumentType]
