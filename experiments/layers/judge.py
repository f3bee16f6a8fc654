"""Whether a difference over seeds bears a claim out: paired t tests, Holm's correction, and the power they had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

Claim = Literal["more", "less", "same", "no_more"]
Verdict = Literal["reproduced", "not reproduced", "depends", "undecided"]
LEVEL = 0.05


class Effect(NamedTuple):
    """A mean over seeds with its 95% interval (Student), standard error, and the number of seeds."""

    mean: float
    low: float
    high: float
    error: float
    seeds: int

    def above(self, bound: float) -> float:
        """p value of the one-sided t test that the mean is not above `bound`."""
        if self.error == 0:
            return 0.0 if self.mean > bound else 1.0
        return float(stats.t.sf((self.mean - bound) / self.error, self.seeds - 1))

    def below(self, bound: float) -> float:
        """p value of the one-sided t test that the mean is not below `bound`."""
        return Effect(-self.mean, -self.high, -self.low, self.error, self.seeds).above(-bound)

    def power(self, size: float) -> float:
        """Chance that a two-sided test at `LEVEL` would see an effect of this size with this standard error."""
        if self.error == 0:
            return 1.0
        critical, shift = stats.t.ppf(1 - LEVEL / 2, self.seeds - 1), abs(size) / self.error
        law = stats.nct(self.seeds - 1, shift)
        chance = float(law.sf(critical) + law.cdf(-critical))
        return chance if math.isfinite(chance) else 1.0  # so far out SciPy's law has no value


def effect(differences: ArrayLike) -> Effect:
    """Errors: ValueError for fewer than 2 seeds: nothing is said on one."""
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or len(d) < 2:
        raise ValueError(f"differences have shape {d.shape}; give one of each of at least 2 seeds")
    # Equal differences, up to rounding, have no error: their mean is known.
    error = float(d.std(ddof=1) / math.sqrt(len(d))) if np.ptp(d) > 1e-12 else 0.0
    reach = float(stats.t.ppf(1 - LEVEL / 2, len(d) - 1)) * error
    mean = float(d.mean())
    return Effect(mean, mean - reach, mean + reach, error, len(d))


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
