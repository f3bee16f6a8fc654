"""Curves of the law table, continued: what scatters over seeds, what a round's gradient scatters by, and fits."""

from __future__ import annotations

import numpy as np

from theory.laws import batch_split, clocks, diffusion, fits
from theory.laws.row import Series

_Q = np.linspace(0.01, 0.99, 99)


def density(
    p0: float = 0.1, eta: float = 0.1, rounds: int = 300, geometry: float = 1.0, rollouts: int = 1
) -> Series:
    law = diffusion.fokker_planck("raw", p0, eta, rounds, geometry, rollouts)
    t = np.arange(rounds + 1)
    below, above = law.mean - law.spread, law.mean + law.spread
    mean_field = clocks.success_after("raw", t, p0, eta, geometry)
    return {"rounds": t, "mean": law.mean, "- sd": below, "+ sd": above, "mean field": mean_field}


def time_spread(p0: float = 0.05, eta: float = 0.1, geometry: float = 1.0, rollouts: int = 8) -> Series:
    q, out = np.linspace(p0, 0.95, 30)[1:], {}
    for signal in ("raw", "plus_minus", "leave_one_out", "group_mean_std"):
        moments = [
            diffusion.time_moments(signal, p0, float(level), eta, geometry, rollouts, 501) for level in q
        ]
        out[f"{signal}, mean time"] = np.array([mean for mean, _ in moments])
        out[f"{signal}, sd of time"] = np.array([deviation for _, deviation in moments])
        out[f"{signal}, sd of q"] = diffusion.success_spread(signal, p0, q, eta, geometry, rollouts)
    return {"q": q, **out}


def seed_spread(eta: float = 0.1, geometry: float = 1.0, rollouts: int = 8) -> Series:
    q0, signals = np.geomspace(1e-6, 0.02, 40), ("raw", "plus_minus", "group_mean_std", "negative_only")
    out = {s: diffusion.hard_query_spread(s, q0, eta, geometry, rollouts) for s in signals}
    exact = [
        diffusion.time_moments("group_mean_std", float(q), 0.3, eta, geometry, rollouts, 801) for q in q0
    ]
    out["group_mean_std, small groups"] = diffusion.small_group_spread(rollouts, eta, geometry) * np.ones(40)
    out["group_mean_std, by quadrature"] = np.array([deviation / mean for mean, deviation in exact])
    return {"q0": q0, **out}


def residual_scale(eta: float = 0.1, geometry: float = 1.0, rollouts: int = 8) -> Series:
    out, scale = {}, eta * geometry
    for signal in ("raw", "leave_one_out"):
        law = diffusion.one_rollout(signal, _Q, rollouts)
        out[f"{signal}, expected move"] = scale * law.drift
        out[f"{signal}, its sd"] = scale * np.sqrt(law.variance / rollouts)
    return {"q": _Q, **out}


def split(
    between: float = 1.0, within: float = 20.0, baseline: float = 49.0, budget: int = 256, pool: int = 7473
) -> Series:
    group = 2.0 ** np.arange(9)
    known = batch_split.Split(between, within, baseline, pool).mse(budget / group[1:], group[1:])
    raw = batch_split.Split(between, within, 0.0, pool).mse(budget / group[1:], group[1:])
    return {"rollouts per query": group[1:], "leave-one-out": known, "no baseline to estimate": raw}


def empirical(p0: float = 0.05, eta: float = 0.5, last: int = 300, share: float = 0.4) -> Series:
    t = np.arange(1.0, last + 1)
    curve = clocks.success_after("raw", t, p0, eta)
    cut, families = round(share * last), ("sigmoid_in_log", "saturation", "logistic")
    fitted = {f"{f}, fitted early": fits.fit(f, t[:cut], curve[:cut])(t) for f in families}
    return {"rounds": t, "raw reward": curve, **fitted}


def scale_rl(start: float = 0.1, ceiling: float = 0.8, middle: float = 100.0, slope: float = 1.5) -> Series:
    t = np.geomspace(1, 1e4, 100)
    return {"training": t, "R": fits.sigmoid_in_log(t, start, ceiling, middle, slope)}


def saturation(start: float = 0.1, ceiling: float = 0.8, scale: float = 100.0) -> Series:
    t = np.linspace(1, 1000, 100)
    return {"training": t, "R": fits.saturation(t, start, ceiling, scale)}


def logistic(ceiling: float = 0.8, middle: float = 300.0, scale: float = 80.0) -> Series:
    t = np.linspace(1, 1000, 100)
    return {"training": t, "R": fits.logistic(t, ceiling, middle, scale)}


def entropy(slope: float = 0.2, top: float = 0.9) -> Series:
    h = np.linspace(0, 1.5, 100)
    return {"entropy": h, "R": fits.entropy_law(h, slope, top)}
