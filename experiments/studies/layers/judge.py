"""Whether a difference over seeds bears a claim out: t tests paired by seed, Holm's correction, and their power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from theory.refusal import Refusal

Claim = Literal["more", "less", "same", "no_more"]
Verdict = Literal["reproduced", "not reproduced", "depends", "undecided"]
LEVEL = 0.05


class Effect(NamedTuple):
    """A mean over seeds with its 95% interval (Student), standard error, degrees of freedom, and the fewest seeds of a
    variant in it."""

    mean: float
    low: float
    high: float
    error: float
    freedom: float
    seeds: int

    def above(self, bound: float) -> float:
        """p value of the one-sided t test that the mean is not above `bound`."""
        if self.error == 0:
            return 0.0 if self.mean > bound else 1.0
        return float(stats.t.sf((self.mean - bound) / self.error, self.freedom))

    def below(self, bound: float) -> float:
        """p value of the one-sided t test that the mean is not below `bound`."""
        return self._replace(mean=-self.mean, low=-self.high, high=-self.low).above(-bound)

    def power(self, size: float) -> float:
        """Chance that a two-sided test at `LEVEL` would see an effect of this size with this standard error."""
        if self.error == 0:
            return 1.0
        critical, shift = stats.t.ppf(1 - LEVEL / 2, self.freedom), abs(size) / self.error
        law = stats.nct(self.freedom, shift)
        chance = float(law.sf(critical) + law.cdf(-critical))
        return chance if math.isfinite(chance) else 1.0  # so far out SciPy's law has no value


def effect(parts: Sequence[tuple[ArrayLike, int]]) -> Effect:
    """The signed sum of the means of variants, paired by seed.

        d = sum_v sign_v / n_v sum_s x_vs;   Var d = sum over strata of m Var u_s,  u_s = sum_v sign_v x_vs / n_v

    Seeds of one stratum are those that the same variants have: what is shared is paired, what is not counts too, but
    for a seed that would be a stratum of its own. With as many seeds everywhere it is the paired t test.

    Arguments: (n_v,) values of each variant, of seeds 0 to n_v - 1, and its sign.
    Errors: Refusal for fewer than 2 seeds: nothing is said on one.
    Source: Derrick, Toher and White (2017), partially overlapping samples; degrees of freedom of Satterthwaite (1946).
    """
    values = [(np.asarray(x, dtype=np.float64), sign) for x, sign in parts]
    for x, _ in values:
        if x.ndim != 1 or len(x) < 2:
            raise Refusal(f"values have shape {x.shape}; give one of each of at least 2 seeds")
    # A stratum of one seed has no variance: its seed is left out.
    sizes: list[int] = []
    for n in sorted({len(x) for x, _ in values}):
        if n - (sizes[-1] if sizes else 0) > 1:
            sizes.append(n)
    values = [(x[: max(n for n in sizes if n <= len(x))], sign) for x, sign in values]
    shares = np.zeros(sizes[-1])
    for x, sign in values:
        shares[: len(x)] += sign * x / len(x)
    strata = np.split(shares, sizes[:-1])
    # Equal values, up to rounding, have no error: their mean is known.
    variances = [len(u) * u.var(ddof=1) if np.ptp(u) * len(u) > 1e-12 else 0.0 for u in strata]
    whole = float(sum(variances))
    freedom = float(len(shares) - 1)
    if whole > 0:
        freedom = whole**2 / sum(v**2 / (len(u) - 1) for v, u in zip(variances, strata, strict=True))
    mean, error = float(shares.sum()), math.sqrt(whole)
    reach = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    return Effect(mean, mean - reach, mean + reach, error, freedom, min(len(x) for x, _ in values))


def p_values(seen: Effect, claim: Claim, margin: float) -> tuple[float, float]:
    """(for, against): small where the effect bears the claim out, small where it contradicts it.

    more     it is above 0; against: below margin, so smaller than what matters
    less     the same of the effect's negative
    same     it lies within +-margin (two one-sided tests); against: it lies outside
    no_more  it lies below margin; against: above
    """
    if claim == "more":
        return seen.above(0), seen.below(margin)
    if claim == "less":
        return seen.below(0), seen.above(-margin)
    if claim == "no_more":
        return seen.below(margin), seen.above(margin)
    return (
        max(seen.above(-margin), seen.below(margin)),
        min(1.0, 2 * min(seen.above(margin), seen.below(-margin))),
    )


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number: running maximum of (m - i) p_(i), at most 1. Source: Holm 1979."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, np.float64)[order])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()


def verdict(supports: float, contradicts: float) -> Verdict:
    """Of two corrected p values; an effect that is there but smaller than what matters does not bear a claim out."""
    if contradicts < LEVEL:
        return "not reproduced"
    return "reproduced" if supports < LEVEL else "undecided"


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several comparisons: what all that decide agree on, "depends" where they do not."""
    decided: set[Verdict] = {v for v in verdicts if v != "undecided"}
    if not decided:
        return "undecided"
    return decided.pop() if len(decided) == 1 else "depends"
