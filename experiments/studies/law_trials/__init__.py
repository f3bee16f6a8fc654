"""The trials: for every law of `theory.laws.LAWS` one row that names the simulation which holds it to account."""

from __future__ import annotations

from experiments.studies.law_trials import kernel, many_arms, noise, regret, single_arm, two_class, verifier
from experiments.studies.law_trials.trial import Held, Sample, Seen, Trial
from theory.laws import LAWS

_ROWS = {
    row.law: row
    for part in (single_arm, two_class, many_arms, verifier, noise, regret, kernel)
    for row in part.TRIALS
}
TRIALS: dict[str, Trial] = {name: _ROWS[name] for name in LAWS}
"""Law -> its trial, in the order of the laws."""

__all__ = ["TRIALS", "Held", "Sample", "Seen", "Trial"]
