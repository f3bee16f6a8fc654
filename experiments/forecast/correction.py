"""What networks that are probed anew add to a forecast, and how sure that is."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.forecast import Forecast

Array = NDArray[np.float64]
SALT = 11
RELINEARISED = "relinearised.json"
"""Where a run folder keeps the numbers of its correction."""


@dataclass(frozen=True)
class Correction:
    """What K networks probed anew after I rounds add to a forecast.

    Arguments:
        rounds: the I rounds R_i.
        difference: set -> (K, T + 1) or (K, E + 1), where the forecast's success is: sum over i of a network's new
            forecast less its old one.
        linear: (I, K) success after R_i rounds by the linearisation before.
        network: (I, K) p0 of the new probe: linear and network differ by the drift, and by the probe's noise.
    """

    rounds: tuple[int, ...]
    difference: dict[str, Array]
    linear: Array
    network: Array

    def mean(self, name: str = "training") -> Array:
        """What is added to the forecast of a set."""
        return self.difference[name].mean(axis=0)

    def error(self, name: str = "training") -> Array:
        """Its standard error over the networks."""
        return self.difference[name].std(axis=0, ddof=1) / np.sqrt(len(self.difference[name]))

    def draws(self, members: int, seed: int, name: str = "training") -> Array:
        """(members, T + 1) draws of the true mean: mean + error * t, with Student's t of K - 1 degrees of freedom.

        A member has one draw for all rounds and sets. The error is itself an estimate of K networks, hence not normal
        noise, whose 95% would hold the truth in 85% of cases where K = 4.
        Source: Student (1908).
        Valid when: differences of networks are about normal; K >= 4, below which the variance of t is infinite.
        """
        networks, rng = len(self.difference[name]), np.random.default_rng((seed, SALT))
        normal = rng.normal(size=(members, networks))
        # The deviations' own noise, error^2 * (K - 1) / chi^2, in place of error^2.
        chi_squared = rng.chisquare(networks - 1, size=(members, 1))
        mean = self.mean(name)
        return mean + normal @ (self.difference[name] - mean) / np.sqrt(networks * chi_squared)

    def numbers(self) -> dict[str, Any]:
        """Of the queries trained on; the last round's are those before the last update."""
        gap = self.network - self.linear
        mean, error = self.mean()[:-1], self.error()[:-1]
        return {
            "relinearised_rounds": list(self.rounds),
            "relinearised_linear": self.linear.mean(axis=1).tolist(),
            "relinearised_network": self.network.mean(axis=1).tolist(),
            "relinearised_drift": gap.mean(axis=1).tolist(),
            "relinearised_drift_error": (gap.std(axis=1, ddof=1) / np.sqrt(gap.shape[1])).tolist(),
            "relinearised_correction_at_end": float(mean[-1]),
            "relinearised_correction_at_end_error": float(error[-1]),
            "relinearised_mean": mean.tolist(),
            "relinearised_error": error.tolist(),
        }


def corrected(made: Forecast, correction: Correction, seed: int) -> Forecast:
    """The forecast with the tree kernel's mean moved by the correction, and its members by draws of it, in [0, 1].

    How far replicas spread around their mean stays as the base model's linearisation has it.
    """
    members, success = dict(made.members), dict(made.success)
    for name in made.sets:
        key = ("kernel", name)
        draws = correction.draws(len(members[key]), seed, name)[:, :-1]
        members[key] = np.clip(members[key] + draws, 0, 1)
        success[key] = np.clip(success[key] + correction.mean(name), 0, 1)
    return replace(made, members=members, success=success)


def relinearised_numbers(out: Path, stage: str) -> dict[str, Any]:
    """The numbers of the correction in a run folder; none where nothing was relinearised."""
    path = out / RELINEARISED
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("stage") != stage:
        return {}
    return {name: value for name, value in found.items() if name != "stage"}
