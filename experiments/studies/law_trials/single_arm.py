"""Trials of the minimalist configuration: one correct arm or several, raw reward, one rollout."""

from __future__ import annotations

import numpy as np

from bandit_sim import ArmClasses, Arms, simulate
from experiments.studies.law_trials.bandits import (
    averaged,
    deviation,
    passage,
    places,
    relative_deviation,
    rule_of,
    shared,
    statistic,
    thin,
)
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.curves import Curves
from theory.laws import birth_chain
from theory.laws.arguments import Floats

HUGE = 10**12


def _one_correct(p0: float, wrong: int) -> ArmClasses:
    return ArmClasses.two_class(arms=1 + (wrong or HUGE), correct=1, p0=p0)


def first_success(x: Floats, sample: Sample, p0: float, rounds: int, rollouts: int) -> dict[str, Seen]:
    rule, every = rule_of("raw", 1.0, rollouts), thin(rounds)
    curves = simulate(_one_correct(p0, 0), rule, rounds + 1, sample.seeds, sample.seed, every=every)
    return {"never started": shared(curves.at[1:] - 1, np.abs(curves["success"][:, 1:] - p0) < 1e-9)}


def _curves(sample: Sample, p0: float, eta: float, rounds: int, wrong: int) -> Curves:
    rule, every = rule_of("raw", eta), thin(rounds)
    return simulate(_one_correct(p0, wrong), rule, rounds + 1, sample.seeds, sample.seed, every=every)


def birth(x: Floats, sample: Sample, p0: float, eta: float, rounds: int, wrong: int) -> dict[str, Seen]:
    curves = _curves(sample, p0, eta, rounds, wrong)
    return {"mean": averaged(curves.at, curves["success"])}


def time_to_level(
    x: Floats, sample: Sample, p0: float, eta: float, level: float, rounds: int, wrong: int
) -> dict[str, Seen]:
    curves = _curves(sample, p0, eta, rounds, wrong)
    return {"reached": shared(curves.at, curves["success"] >= level)}


def spread(x: Floats, sample: Sample, p0: float, level: float, wrong: int) -> dict[str, Seen]:
    at, found = places(x, [0.3, 1.0, 10.0]), []
    for eta in x[at]:
        rungs = birth_chain.ladder(p0, float(eta), int(80 / eta) + 40, 1 + 1 / wrong if wrong else 1.0)
        mean, sd = birth_chain.time_moments(rungs, level)
        every = max(1, int(mean) // 100)
        rounds = every * (int(mean + 12 * sd) // every)
        curves = simulate(
            _one_correct(p0, wrong),
            rule_of("raw", float(eta)),
            rounds + 1,
            sample.seeds,
            sample.seed,
            every=every,
        )
        found.append(passage(curves["success"], np.asarray(curves.at), level)[:, 0])
    seen = statistic(at, np.stack(found, axis=1), relative_deviation)
    return {"exact": seen, "p0 -> 0": seen}


def words(
    x: Floats, sample: Sample, p0: float, eta: float, correct: int, wrong: int, rounds: int
) -> dict[str, Seen]:
    arms = Arms.two_class(arms=correct + wrong, correct=correct, p0=p0)
    p = simulate(arms, rule_of("raw", eta), rounds + 1, sample.seeds, sample.seed, dtype="float64")["success"]
    later = np.arange(1, rounds + 1)
    return {
        "mean": averaged(later, p[:, 1:]),
        "spread over seeds": statistic(later, p[:, 1:], deviation),
    }


def several(
    x: Floats, sample: Sample, p0: float, eta: float, level: float, wrong: int, rounds: int
) -> dict[str, Seen]:
    """One, two and ten correct arms; the share of the fastest. Where the bound is near 0 or 1 it says nothing."""
    every, shares = thin(rounds, 20), []
    bound = birth_chain.reached_at_most(p0, eta, level, rounds, (1 - p0) / wrong)
    for correct in (1, 2, 10):
        arms = Arms.two_class(arms=correct + wrong, correct=correct, p0=p0)
        curves = simulate(arms, rule_of("raw", eta), rounds + 1, sample.seeds, sample.seed, every=every)
        told = (bound[curves.at] > 0.01) & (bound[curves.at] < 0.99)
        shares.append(shared(curves.at[told], curves["success"][:, told] >= level))
    return {"reached, at most": max(shares, key=lambda s: float(s.mean.sum()))._replace(sense="<=")}


TRIALS = [
    Trial("first-success", "share of simulated seeds without a reward", first_success, seeds=20_000),
    Trial("birth-chain", "mean of simulated seeds", birth, seeds=20_000),
    Trial("time-to-level", "share of simulated seeds that passed the level", time_to_level, seeds=20_000),
    # The ladder has rungs, the interpolated passage has none: a tenth of a step of p at most.
    Trial("relative-spread", "times of simulated seeds", spread, within=0.02, seeds=1000),
    Trial("several-correct", "share of simulated seeds that passed the level", several, seeds=2000),
    Trial("word-chain", "mean and spread of simulated seeds", words, seeds=20_000),
]  # fmt: skip
