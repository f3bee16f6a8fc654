"""Trials of what scatters: over seeds, over the rounds of a batch, and of the fits."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.special import logit

from bandit_sim import Arms, Contexts, simulate, simulate_grid
from experiments.studies.law_trials.bandits import (
    averaged,
    deviation,
    passage,
    places,
    relative_deviation,
    rule_of,
    statistic,
    thin,
    two_arms,
)
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.laws import batch_split, clocks, fits
from theory.laws.arguments import Floats
from theory.rules.dialects import preset


def density(
    x: Floats, sample: Sample, p0: float, eta: float, rounds: int, geometry: float, rollouts: int
) -> dict[str, Seen]:
    p, at = two_arms("raw", p0, eta, rounds, sample, geometry, rollouts, thin(rounds, 20))
    mean = averaged(at, p)
    sd, influence = deviation(p)
    seen = {"mean": mean}
    for name, sign in (("- sd", -1), ("+ sd", 1)):
        error = (p + sign * influence).std(axis=0) / np.sqrt(len(p))
        seen[name] = Seen(mean.at, mean.mean + sign * sd, error)
    return seen


def time_spread(
    x: Floats, sample: Sample, p0: float, eta: float, geometry: float, rollouts: int
) -> dict[str, Seen]:
    at, seen = places(x, [0.35, 0.6]), {}
    for signal in ("raw", "plus_minus", "leave_one_out", "group_mean_std"):
        rounds = int(2 * clocks.time_to(signal, 0.8, p0, eta, geometry)) + 50
        p, when = two_arms(signal, p0, eta, rounds, sample, geometry, rollouts)
        times = passage(p, when, x[at])
        seen[f"{signal}, mean time"] = averaged(at, times)
        seen[f"{signal}, sd of time"] = statistic(at, times, deviation)
    return seen


def seed_spread(x: Floats, sample: Sample, eta: float, geometry: float, rollouts: int) -> dict[str, Seen]:
    at, seen = places(x, [2e-3, 2e-2]), {}
    for signal in ("raw", "plus_minus"):
        times = []
        for q0 in x[at]:
            rounds = int(2.5 * clocks.time_to(signal, 0.4, float(q0), eta, geometry))
            every = max(1, rounds // 1000)
            p, when = two_arms(
                signal, float(q0), eta, every * (rounds // every), sample, geometry, rollouts, every
            )
            times.append(passage(p, when, 0.4)[:, 0])
        seen[signal] = statistic(at, np.stack(times, axis=1), relative_deviation)
    return seen


def residual_scale(x: Floats, sample: Sample, eta: float, geometry: float, rollouts: int) -> dict[str, Seen]:
    at, seen = places(x, [0.1, 0.3, 0.6, 0.9]), {}
    for signal in ("raw", "leave_one_out"):
        rule = rule_of(signal, geometry * eta / 2, rollouts)
        cases = [(Arms.two_class(arms=2, correct=1, p0=float(q)), rule) for q in x[at]]
        curves = simulate_grid(cases, 2, sample.seeds, sample.seed, observe=("success",), dtype="float64")
        moves = np.stack([np.diff(logit(c["success"]), axis=1)[:, 0] for c in curves], axis=1)
        seen[f"{signal}, expected move"] = averaged(at, moves)
        seen[f"{signal}, its sd"] = statistic(at, moves, deviation)
    return seen


QUERIES = Contexts.spectrum(np.linspace(0.05, 0.95, 32), arms=4, correct=2, batch=32, overlap=0.3, within=0.5)
"""The bandit whose constants the batch-split law is given; the budget is one round over all of it."""


def _constants() -> dict[str, float | int]:
    pi, paid = np.exp(np.asarray(QUERIES.logits)).reshape(32, 4), np.asarray(QUERIES.reward).reshape(32, 4)
    shared = batch_split.shared_kernel(32, QUERIES.kinds, float(QUERIES.overlap))
    c = batch_split.constants(pi, paid, batch_split.along_gradient(pi, paid, shared), pool=32)
    return {"between": c.queries, "within": c.rollouts, "baseline": c.baseline, "budget": 32, "pool": 32}


def split(x: Floats, sample: Sample) -> dict[str, Seen]:
    at, found = places(x, [2, 4, 8, 16, 32]), []
    for group in x[at].astype(int):
        arms = Contexts(
            QUERIES.logits, QUERIES.reward, QUERIES.overlap, QUERIES.kinds, None, 32, int(32 // group)
        )
        rule = preset("rloo", eta=0.01, rollouts=int(group))
        p = simulate(arms, rule, 2, sample.seeds, sample.seed, observe=("success",), dtype="float64")[
            "success"
        ]
        found.append((p[:, 1] - p[:, 0]) / 0.01)
    steps = np.stack(found, axis=1)
    scatter = lambda v: (v.var(axis=0), (v - v.mean(axis=0)) ** 2 - v.var(axis=0))  # noqa: E731
    return {"leave-one-out": statistic(at, steps, scatter)}


def empirical(x: Floats, sample: Sample, p0: float, eta: float, last: int, share: float) -> dict[str, Seen]:
    every = thin(last, 20)
    p, at = two_arms("raw", p0, eta, last, sample, 1.0, 8, every)
    later, early = at > share * last, (at >= 1) & (at <= share * last)
    fitted = fits.fit("sigmoid_in_log", at[early].astype(float), p[:, early].mean(axis=0))
    ahead = Seen(at[later] - 1, fitted(at[later].astype(float)), np.zeros(int(later.sum())))
    return {"raw reward": averaged(at[1:] - 1, p[:, 1:]), "sigmoid_in_log, fitted early": ahead}


def recovered(family: str, x: Floats, sample: Sample, **parameters: float) -> dict[str, Seen]:
    """Curves of the family fitted to points with noise .01."""
    clean, rng = fits.FAMILIES[family].curve(x, *parameters.values()), np.random.default_rng(sample.seed)
    keep = x > 0
    curves = []
    for _ in range(sample.seeds):
        noisy = clean[keep] + 0.01 * rng.normal(size=int(keep.sum()))
        curves.append(fits.fit(family, x[keep], noisy)(x[keep]))
    return {"R": averaged(np.flatnonzero(keep), np.stack(curves))}


def _scale_rl(
    x: Floats, sample: Sample, start: float, ceiling: float, middle: float, slope: float
) -> dict[str, Seen]:
    return recovered("sigmoid_in_log", x, sample, start=start, ceiling=ceiling, middle=middle, slope=slope)


def _saturation(x: Floats, sample: Sample, start: float, ceiling: float, scale: float) -> dict[str, Seen]:
    return recovered("saturation", x, sample, start=start, ceiling=ceiling, scale=scale)


def _logistic(x: Floats, sample: Sample, ceiling: float, middle: float, scale: float) -> dict[str, Seen]:
    return recovered("logistic", x, sample, ceiling=ceiling, middle=middle, scale=scale)


def _entropy(x: Floats, sample: Sample, slope: float, top: float) -> dict[str, Seen]:
    return recovered("entropy_law", x, sample, slope=slope, top=top)


_FITS = partial(Trial, against="curves fitted to points with noise .01", within=0.001, seeds=60)
TRIALS = [
    Trial("diffusion", "mean and spread of simulated seeds", density, within=0.015, seeds=2000),
    Trial("time-spread", "times of simulated seeds", time_spread, within=0.06, relative=True, seeds=1000,
          where={"eta": 0.05, "p0": 0.1}),
    Trial("seed-spread", "times of simulated seeds", seed_spread, within=0.06, relative=True, seeds=1000),
    Trial("martingale", "first moves of simulated seeds", residual_scale, within=1e-4, seeds=20_000,
          where={"rollouts": 4}),
    Trial("batch-split", "scatter of simulated rounds of 32 queries", split, within=0.02, relative=True, seeds=8192,
          where=_constants()),
    Trial("empirical", "mean of simulated seeds, and a fit to its early part", empirical, within=0.05, seeds=512,
          where={"eta": 0.2, "last": 400}),
    _FITS("scale-rl", run=_scale_rl),
    _FITS("saturation", run=_saturation),
    _FITS("logistic", run=_logistic),
    _FITS("entropy", run=_entropy),
]  # fmt: skip
