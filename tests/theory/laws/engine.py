"""The simulator as an oracle: every outcome of one round, through the dense engine, with its probability."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from bandit_sim import Arms, replay
from theory.rules import Rule

Floats = NDArray[np.float64]


class Outcomes(NamedTuple):
    """Every outcome of a round: its probability, and how far the log-odds of success move, per unit of eta."""

    probability: Floats
    move: Floats

    @property
    def mean(self) -> float:
        return float(self.probability @ self.move)

    @property
    def variance(self) -> float:
        return float(self.probability @ (self.move - self.mean) ** 2)


def one_round(
    masses: list[float],
    correct: int,
    rule: Rule,
    pay: tuple[float, float] = (0.0, 1.0),
    misjudged: tuple[float, float] = (0.0, 0.0),
) -> Outcomes:
    """All arms^n pulls of one round; the first `correct` arms are correct, `pay` is (failure, success).

    `misjudged` holds the probabilities of a false negative and a false positive; then every pull has two judgements.
    """
    pi = np.asarray(masses) / np.sum(masses)
    truth = np.arange(len(pi)) < correct
    judgements = (False, True) if max(misjudged) > 0 else (False,)
    pulls = list(product(range(len(pi)), judgements))
    error = np.where(truth, *misjudged)
    chance = np.array([pi[a] * (error[a] if wrong else 1 - error[a]) for a, wrong in pulls])
    reward = np.array([pay[int(truth[a] != wrong)] for a, wrong in pulls])
    index = np.array(list(product(range(len(pulls)), repeat=rule.rollouts)))
    choices = np.array([a for a, _ in pulls])[index][:, None, :].repeat(2, axis=1)
    rewards = reward[index][:, None, :].repeat(2, axis=1)
    with jax.enable_x64(True):
        p = replay(Arms.from_masses(pi, truth.astype(float)), rule, choices, rewards)
    move = (logit(p[:, 1]) - logit(p[:, 0])) / rule.optimiser.eta
    return Outcomes(chance[index].prod(axis=1), move)
