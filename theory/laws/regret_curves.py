"""Curves of the law table, continued: convergence, regret, and commitment to a wrong arm."""

from __future__ import annotations

import numpy as np

from theory.laws import committal, exact_gradient, growth, regret
from theory.laws.row import Series


def convergence(distance: float = 0.5, arms: int = 3, steps: int = 2000) -> Series:
    reward = np.where(np.arange(arms) == 0, 1.0, 1 - distance)
    policies = exact_gradient.ascent(np.zeros(arms), reward, exact_gradient.STEP, steps)
    t = np.unique(np.geomspace(1, steps, 80).astype(int))
    return {
        "rounds": t,
        "gap": (1 - policies @ reward)[t],
        "upper bound": exact_gradient.upper_bound(t, 1 / arms),
        "lower bound": exact_gradient.lower_bound(t, distance),
        "late": exact_gradient.late_gap(t, exact_gradient.STEP, arms - 1),
    }


def cumulative(least: float = 0.3) -> Series:
    t = np.geomspace(2, 1e6, 80)
    return {"rounds": t, "sum of gaps": exact_gradient.cumulative_bound(t, least)}


def corner(distance: float = 0.2, eta: float = 1.0, worse: float = 0.05, deficit: float = 0.5) -> Series:
    best = np.geomspace(1e-5, 1e-2, 60)
    alone = exact_gradient.corner_time(best, distance, eta)
    return {"pi_1": best, "two arms": alone} | {
        "with a worse third": exact_gradient.corner_time(best, distance, eta, worse, deficit)
    }


def two_arm_regret(eta: float = 0.1, distance: float = 0.25) -> Series:
    t = np.geomspace(10, 1e5, 80)
    return {
        "rounds": t,
        "bound": regret.two_arm_bound(t, eta, distance),
        "late slope": regret.late_regret(t, eta),
        "without noise": regret.easy_bound(t, eta, distance, 2),
    }


def exponent(distance: float = 0.25, arms: int = 2) -> Series:
    eta = np.geomspace(0.05, 10, 80)
    return {"eta": eta, "least exponent": regret.noisy_exponent(eta, distance, arms)}


def stuck(reward: float = 0.5, arms: int = 2) -> Series:
    eta = np.geomspace(0.1, 30, 80)
    return {"eta": eta, "least exponent": regret.stuck_exponent(eta, reward, arms)}


def order(eta: float = 0.05, arms: int = 10) -> Series:
    t = np.geomspace(10, 1e6, 80)
    late = regret.late_regret(t, eta, arms)
    return {
        "rounds": t,
        "K log(K) log(T) / eta": regret.lyapunov_order(t, eta, arms),
        "equal gaps, late": late,
    }


def step_sizes(distance: float = 0.25, alpha: float = 0.5) -> Series:
    arms = np.arange(3, 101)
    safe = np.array([float(regret.safe_step(distance, int(k))) for k in arms])
    fails = np.array([float(regret.failing_step(alpha, distance, int(k))) for k in arms])
    critical = np.array([float(regret.critical_step(distance, int(k))) for k in arms])
    small = np.array([float(growth.safe_step(distance, int(k))) for k in arms])
    return {
        "arms": arms,
        "safe": safe,
        "fails": fails,
        "critical, rewards +-1 or 0": critical,
        "growth": small,
    }


def distance_free(most: float = 1e6) -> Series:
    t = np.geomspace(1e2, most, 30).astype(int)
    return {
        "rounds": t,
        "regret at the worst distance": np.array([regret.distance_free_regret(int(x)) for x in t]),
        "eta": regret.distance_free_step(t),
    }


def on_probabilities(alpha: float = 0.2) -> Series:
    t = np.geomspace(10, 1e5, 80)
    return {"rounds": t, "regret": regret.proportional_regret(t, alpha)}


def streaks(p0: float = 0.2, eta: float = 0.5, advantage: float = 0.7, pulls: int = 1000) -> Series:
    m = np.arange(pulls + 1)
    paths = {
        "natural": committal.streak(p0, eta, pulls, advantage),
        "natural, value baseline": committal.streak(p0, eta, pulls, advantage, value=True),
        "softmax": committal.streak(p0, eta, pulls, advantage, gradient="softmax"),
    }
    out = {"pulls": m} | {f"{name}: 1 - p": 1 - p for name, p in paths.items()}
    alive = {f"{name}: survives": committal.survival(p) for name, p in paths.items()}
    return out | alive | {"damped": committal.damped_failure(m + 1, eta, advantage)}


def commitment(p0: float = 0.4, advantage: float = 0.7) -> Series:
    eta = np.geomspace(0.02, 5, 60)
    chance = np.array([committal.commits_for_ever(p0, float(x), advantage) for x in eta])
    decay = np.array([committal.damped_exponent(float(x), advantage) for x in eta])
    return {"eta": eta, "for ever, natural": chance, "exponent if damped": decay}


def growing_noise(distance: float = 0.2, arms: int = 2) -> Series:
    rare = np.geomspace(1e-4, 0.4, 60)
    policy = np.concatenate(
        [1 - rare[:, None], np.repeat(rare[:, None] / (arms - 1), arms - 1, axis=1)], axis=1
    )
    means = 1 - distance * np.arange(arms)
    ratio = growth.second_moment(policy, np.ones(arms)) / growth.gradient_norm(policy, means)
    flat = np.ones_like(rare)
    return {
        "mass off the best arm": rare,
        "E|g|^2 / |grad|": ratio,
        "constant": growth.growth_constant(distance, arms) * flat,
        "two-arm corner": growth.corner_constant(distance) * flat,
    }
