"""What is left of a run when its predicted drift is taken off: residuals of mean 0 and variance 1.

Convention: as `theory.laws.diffusion`: x = logit q, C the geometry, D and V of `theory.laws.two_class`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit

from theory.laws.arguments import Floats, open_unit, positive
from theory.laws.diffusion import one_rollout


class Residuals(NamedTuple):
    """Residuals of many steps, summed up; a law that holds has every z near a standard normal.

    Arguments:
        mean, mean_z: sample mean, and its distance from 0 in standard errors.
        variance, variance_z: mean square, and its distance from 1 in standard errors.
        correlation_z: product of successive residuals, mean in standard errors.
    """

    mean: float
    mean_z: float
    variance: float
    variance_z: float
    correlation_z: float


def residuals(
    success: ArrayLike, signal: str, eta: float, geometry: float = 1.0, rollouts: int = 1
) -> Floats:
    """(S, T - 1) standardised residuals of the success curves (S, T).

        (x_{t+1} - x_t - C eta D(q_t)) / (C eta sqrt(V(q_t)/G)):  mean 0, variance 1, no correlation

    given the past, whatever the past: a martingale difference. A drift that is missing from the theory shows as
    a mean, a noise that is missing as a variance, at every difficulty on its own.
    Arguments:
        success: exact success probabilities before each round.
        signal, eta, geometry, rollouts: as `diffusion.fokker_planck`.
    Errors: Refusal for a success probability that is not strictly between 0 and 1.
    Source: elementary. Valid when: C = 1 or 2 at any eta; many even arms to first order in eta.
    """
    q = open_unit("success", success)
    scale, x = float(positive("eta", eta) * positive("geometry", geometry)), logit(q)
    law = one_rollout(signal, q[:, :-1], rollouts)
    return (np.diff(x, axis=1) - scale * law.drift) / (scale * np.sqrt(law.variance / rollouts))


def summary(residual: ArrayLike) -> Residuals:
    """Mean, variance and correlation of residuals (S, T), each with its distance from theory in standard errors.

    Source: elementary; errors from the sample itself, as a rare success makes residuals heavy-tailed.
    Valid when: many residuals; with success probability p, S T p >> 1.
    """
    r = np.asarray(residual, dtype=np.float64)
    mean_z, variance_z = _z(r), _z(r**2 - 1)
    return Residuals(float(r.mean()), mean_z, float(np.mean(r**2)), variance_z, _z(r[:, 1:] * r[:, :-1]))


def _z(values: Floats) -> float:
    return float(values.mean() / (values.std() / np.sqrt(values.size)))
