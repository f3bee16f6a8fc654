"""Two samples of one law? Kolmogorov-Smirnov and chi-square, for the tests of the engines by cohorts."""

from __future__ import annotations

import numpy as np
from scipy import stats

SEEDS = 20_000
FALSE_ALARM = 1e-3
"""Probability that a test module raises a false alarm, shared by Bonferroni among all its comparisons."""


def p_values(first: np.ndarray, second: np.ndarray, bins: int = 20) -> tuple[float, float]:
    """P values of two samples (S,) by KS (conservative where values repeat) and by chi-square on pooled quantiles."""
    first, second = np.round(first, 9), np.round(second, 9)  # engines round differently in the last bits
    ks = stats.ks_2samp(first, second, method="asymp").pvalue
    edges = np.unique(np.quantile(np.concatenate([first, second]), np.linspace(0, 1, bins + 1)))
    place = [np.searchsorted(edges[1:-1], x, side="right") for x in (first, second)]
    table = np.stack([np.bincount(x, minlength=len(edges)) for x in place])
    table = table[:, table.sum(axis=0) > 0]
    chi = 1.0 if table.shape[1] < 2 else stats.chi2_contingency(table).pvalue
    return float(ks), float(chi)


def smallest(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest p value over the columns of (S, A) and both tests."""
    return min(p for a, b in zip(first.T, second.T, strict=True) for p in p_values(a, b))
