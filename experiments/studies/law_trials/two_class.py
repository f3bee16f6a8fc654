"""Trials of the two-class laws: one round of every group, and curves in mean field."""

from __future__ import annotations

from itertools import product

import jax
import numpy as np
from scipy.optimize import brentq
from scipy.special import logit

from bandit_sim import Arms, replay, simulate_grid
from experiments.studies.law_trials.bandits import (
    RULES,
    averaged,
    exact,
    passage,
    places,
    rule_of,
    shared,
    thin,
    two_arms,
)
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.laws import clocks, finite_group
from theory.laws.arguments import Floats
from theory.rules import SGD, GroupMeanStd, Rule

LEVELS = [0.1, 0.3, 0.55, 0.8]
GROUPS = (2, 4, 8, 16, 64)
PAY = {"plus_minus": (-1.0, 1.0), "negative_only": (-1.0, 0.0)}


def _enumerated(signal: str, q: float, rollouts: int) -> tuple[float, float]:
    """Drift D and variance per rollout V, by all 2^G groups through the dense engine; two arms move twice as far."""
    pulls = np.array(list(product((0, 1), repeat=rollouts)))  # arm 0 is the correct one
    failure, success = PAY.get(signal, (0.0, 1.0))
    paid = np.where(pulls == 0, success, failure)
    with jax.enable_x64(True):
        p = replay(
            Arms.two_class(arms=2, correct=1, p0=q), rule_of(signal, 1.0, rollouts),
            np.repeat(pulls[:, None, :], 2, axis=1), np.repeat(paid[:, None, :], 2, axis=1),
        )  # fmt: skip
    move = (logit(p[:, 1]) - logit(p[:, 0])) / 2
    chance = np.where(pulls == 0, q, 1 - q).prod(axis=1)
    mean = float(chance @ move)
    return mean, rollouts * float(chance @ (move - mean) ** 2)


def _by_groups(x: Floats, rollouts: int) -> tuple[np.ndarray, dict[str, Floats]]:
    """Places, and signal -> (2, N) enumerated drift and variance."""
    at = places(x, LEVELS)
    return at, {s: np.array([_enumerated(s, float(q), rollouts) for q in x[at]]).T for s in RULES}


def drift(x: Floats, sample: Sample, rollouts: int) -> dict[str, Seen]:
    at, found = _by_groups(x, rollouts)
    return {s: exact(at, moments[0]) for s, moments in found.items()}


def variance(x: Floats, sample: Sample, rollouts: int) -> dict[str, Seen]:
    at, found = _by_groups(x, rollouts)
    return {s: exact(at, moments[1]) for s, moments in found.items()}


def signal_to_noise(x: Floats, sample: Sample, rollouts: int) -> dict[str, Seen]:
    at, found = _by_groups(x, rollouts)
    return {s: exact(at, moments[0] ** 2 / moments[1]) for s, moments in found.items()}


def threshold(x: Floats, sample: Sample) -> dict[str, Seen]:
    at = places(x, [4, 8, 16, 32])

    def crossing(group: int) -> float:
        rules = [rule_of(signal, 1.0, group) for signal in ("leave_one_out", "raw")]

        def lead(q: float) -> float:
            estimated, raw = (finite_group.round_moments(rule, q).variance for rule in rules)
            return float(estimated - raw)

        return float(brentq(lead, 0.05, 0.95))  # type: ignore[arg-type]

    return {"q*": exact(at, [crossing(int(x[i])) for i in at])}


def kappa(x: Floats, sample: Sample, ddof: int) -> dict[str, Seen]:
    at = places(x, LEVELS)

    def gaps(group: int) -> Floats:
        signal = GroupMeanStd.model_validate({"ddof": ddof, "eps": 0})
        rule = Rule(signal=signal, optimiser=SGD(eta=1), rollouts=group)
        return np.asarray(finite_group.round_moments(rule, x[at]).drift / (x[at] * (1 - x[at])))

    return {f"G = {g}": exact(at, gaps(g)) for g in GROUPS}


def zero_signal(x: Floats, sample: Sample) -> dict[str, Seen]:
    at = places(x, LEVELS)
    seen = {}
    for g in GROUPS:
        cases = [
            (Arms.two_class(arms=2, correct=1, p0=float(q)), rule_of("leave_one_out", 1.0, g)) for q in x[at]
        ]
        curves = simulate_grid(cases, 1, sample.seeds, sample.seed, observe=("zero_signal",), dtype="float64")
        seen[f"G = {g}"] = shared(at, np.stack([c["zero_signal"][:, 0] > 0.5 for c in curves], axis=1))
    return seen


def success(
    x: Floats, sample: Sample, p0: float, eta: float, rounds: int, rollouts: int, geometry: float
) -> dict[str, Seen]:
    seen = {}
    for signal in RULES:
        p, at = two_arms(signal, p0, eta, rounds, sample, geometry, rollouts, thin(rounds, 20))
        seen[signal] = averaged(at, p)
    return seen


MANY = 64
"""Rollouts that stand for endlessly many."""


def time_of(x: Floats, sample: Sample, p0: float, eta: float, geometry: float) -> dict[str, Seen]:
    at, seen = places(x, [0.3, 0.5, 0.7]), {}
    for signal in ("raw", "leave_one_out", "group_mean_std", "plus_minus", "max_rl"):
        rounds = int(1.3 * clocks.time_to(signal, 0.8, p0, eta, geometry)) + 20
        p, times = two_arms(signal, p0, eta, rounds, sample, geometry, MANY)
        seen[signal] = averaged(at, passage(p, times, x[at]))
    return seen


def escape(x: Floats, sample: Sample, level: float, eta: float, geometry: float) -> dict[str, Seen]:
    hard, easy, found = places(x, [3e-3, 0.01]), places(x, [0.05, 0.15]), {}
    for signal, at, rollouts in (("raw", hard, 8), ("group_mean_std", easy, 256)):
        times = []
        for p0 in x[at]:
            rounds = int(2.5 * clocks.time_to(signal, level, float(p0), eta, geometry)) + 50
            every = max(1, rounds // 2000)
            p, when = two_arms(
                signal, float(p0), eta, every * (rounds // every), sample, geometry, rollouts, every
            )
            times.append(passage(p, when, level)[:, 0])
        found[signal] = averaged(at, np.stack(times, axis=1))
    first = Seen(*(v[:1] for v in found["raw"][:3]))  # the leading order at the hardest query alone
    return {**found, "raw, leading": first}


def tail(x: Floats, sample: Sample, eta: float, geometry: float) -> dict[str, Seen]:
    at, seen = places(x, [30, 100, 300, 1000]), {}
    for signal, rollouts in (("raw", 1), ("max_rl", 16)):
        rounds = round(float(x[at[-1]]))
        p, when = two_arms(signal, 0.5, eta, rounds, sample, geometry, rollouts)
        left = np.stack([np.interp(x[at], when, 1 - seed) for seed in p])
        seen[signal] = averaged(at, left)
        seen[f"{signal}, leading"] = averaged(at[-1:], left[:, -1:])
    return seen


def std_success(
    x: Floats, sample: Sample, p0: float, eta: float, rounds: int, geometry: float
) -> dict[str, Seen]:
    p, at = two_arms("group_mean_std", p0, eta, rounds, sample, geometry, 256, thin(rounds, 20))
    return {"q": averaged(at, p)}


_GROUPS = "all 2^G groups through the simulator"
TRIALS = [
    Trial("two-class-drift", _GROUPS, drift, within=1e-6, seeds=0, where={"rollouts": 6}),
    Trial("two-class-variance", _GROUPS, variance, within=1e-6, seeds=0, where={"rollouts": 6}),
    Trial("signal-to-noise", _GROUPS, signal_to_noise, within=1e-6, relative=True, seeds=0, where={"rollouts": 6}),
    Trial("baseline-threshold", "crossing of the rules' own variances", threshold, within=1e-6, seeds=0),
    Trial("kappa", "all groups through the rule", kappa, within=1e-6, relative=True, seeds=0),
    Trial("zero-signal", "share of simulated groups", zero_signal, seeds=10_000),
    # Mean field: a step of C eta = .1 bends the mean over seeds by a few hundredths.
    Trial("two-class-success", "mean of simulated seeds, 8 rollouts", success, within=0.03, seeds=512,
          where={"rollouts": 8, "eta": 0.1, "p0": 0.1, "rounds": 200}),
    Trial("time-to", "times of simulated seeds, 64 rollouts", time_of, within=0.03, relative=True, seeds=256,
          where={"p0": 0.1, "eta": 0.1}),
    Trial("escape-time", "times of simulated seeds", escape, within=0.06, relative=True, seeds=128,
          where={"eta": 0.1}),
    Trial("tail", "mean of simulated failures", tail, within=0.15, relative=True, seeds=512, where={"eta": 0.3}),
    Trial("std-success", "mean of simulated seeds, 256 rollouts", std_success, within=0.01, seeds=128,
          where={"eta": 0.1}),
]  # fmt: skip
