"""Bandits with random rewards, many seeds side by side, in NumPy: what the regret laws are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Floats = NDArray[np.float64]
Pay = Callable[[np.random.Generator, NDArray[np.int64]], Floats]


def rademacher(means: Sequence[float], noisy: Sequence[bool] | None = None) -> Pay:
    """Rewards of +-1 with these means; an arm that is not noisy pays its mean."""
    mean, random = np.asarray(means), np.asarray([True] * len(means) if noisy is None else noisy)

    def pay(rng: np.random.Generator, arm: NDArray[np.int64]) -> Floats:
        sign = np.where(rng.random(len(arm)) < (1 + mean[arm]) / 2, 1.0, -1.0)
        return np.where(random[arm], sign, mean[arm])

    return pay


def softmax_regret(
    means: Sequence[float], pay: Pay, eta: float, rounds: int, seeds: int, seed: int
) -> Floats:
    """(seeds, rounds) cumulative regret, in its mean given the policy, of theta += eta (1[A = k] - pi) r."""
    rng, mean = np.random.default_rng(seed), np.asarray(means)
    theta, regret = np.zeros((seeds, len(mean))), np.empty((seeds, rounds))
    row = np.arange(seeds)
    for t in range(rounds):
        pi = softmax(theta, axis=1)
        regret[:, t] = mean.max() - pi @ mean
        arm = np.minimum((np.cumsum(pi, axis=1) < rng.random(seeds)[:, None]).sum(axis=1), len(mean) - 1)
        push = eta * pay(rng, arm)
        theta -= push[:, None] * pi
        theta[row, arm] += push
    return np.cumsum(regret, axis=1)
