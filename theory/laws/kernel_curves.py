"""Curves of the law table, continued: responses and queries that share parameters."""

from __future__ import annotations

import numpy as np

from theory.laws import contextual_flow, kernel_flow, negative_reward, tree_flow
from theory.laws.row import Series
from theory.trees.synthetic_tree import synthetic_tree


def two_numbers(p0: float = 0.05, eta: float = 0.05, correct: float = 8.0, cross: float = -0.55) -> Series:
    p = np.linspace(p0, 0.9, 60)
    return {
        "p": p,
        "two-number law": kernel_flow.two_number_time(p, p0, eta, correct, cross),
        "next order": kernel_flow.recentred_time(p, p0, eta, correct, cross),
        "rate": kernel_flow.two_number_rate(p, eta, correct, cross),
    }


def tree(
    p0: float = 0.05,
    eta: float = 0.1,
    rounds: int = 150,
    depth: int = 4,
    within: float = 0.3,
    cross: float = -0.1,
    wrong_overlap: float = 0.2,
) -> Series:
    arms = synthetic_tree(
        p0, wrong=2 * depth, depth=depth, within=within, cross=cross, wrong_overlap=wrong_overlap
    )
    t, mass, kernel = np.arange(rounds + 1), arms.leaf_probability(), arms.sequence_kernel()
    whole = kernel_flow.sequence_flow(mass, arms.reward, kernel, eta, t) @ arms.reward
    return {"rounds": t, "tree kernel": tree_flow.tree_flow(arms, eta, t), "sequence kernel": whole}


def chain(p0: float = 0.05, eta: float = 0.1, coupling: float = 4.0) -> Series:
    p = np.linspace(p0, 0.9, 30)
    clock = {
        f"{depth or 'endless'} tokens": np.array(
            [tree_flow.chain_time(float(x), p0, eta, coupling, depth) for x in p]
        )
        for depth in (1, 2, 8, None)
    }
    return {"p": p, **clock}


def overshoot(p0: float = 0.05) -> Series:
    p = np.linspace(p0, 0.95, 40)
    return {"p": p} | {f"{d} tokens": tree_flow.overshoot(p, p0, d) for d in (1, 2, 4, 8, 16)}


def contexts(
    easy: float = 0.2,
    hard: float = 0.02,
    held_out: float = 0.1,
    eta: float = 0.1,
    overlap: float = 0.3,
    contrast: float = 2.0,
    rounds: int = 800,
) -> Series:
    t, coupling = np.arange(rounds + 1), contrast * ((1 - overlap) * np.eye(3) + overlap)
    p = contextual_flow.contextual_flow([easy, hard, held_out], coupling, [0.5, 0.5, 0.0], eta, t)
    return {"rounds": t, "easy": p[:, 0], "hard": p[:, 1], "held out": p[:, 2]}


def transfer(held_out: float = 0.1, trained: float = 0.2) -> Series:
    p = np.linspace(trained, 0.99, 60)
    return {"trained": p} | {
        f"ratio {r:g}": contextual_flow.transfer_limit([held_out, trained], p, r) for r in (0.1, 0.3, 1.0)
    }


def failures(
    eta: float = 0.2, cross: float = 0.4, wrong_overlap: float = 0.5, near: int = 8, rollouts: int = 1
) -> Series:
    p0, out = np.geomspace(1e-4, 0.3, 40), {}
    for name, pay in (("raw", (0.0, 1.0)), ("+-1", (-1.0, 1.0)), ("negative only", (-1.0, 0.0))):
        drift = []
        for p in p0:
            arms = synthetic_tree(
                float(p), correct=3, wrong=20, within=0.5, cross=cross, wrong_overlap=wrong_overlap, near=near
            )
            mass, kernel = arms.leaf_probability(), arms.sequence_kernel()
            law = negative_reward.log_drift(mass, arms.reward, kernel, pay, rollouts)
            drift.append(law.at(eta))
        out[f"{name}: E log p"] = np.array(drift)
    return {"p0": p0, **out}


def rarest(contrast: float = 0.65, scatter: float = 0.07) -> Series:
    eta = np.geomspace(1e-3, 1, 60)
    return {"eta": eta} | {
        name: np.array([negative_reward.rarest_that_learns(float(x), contrast, scatter, pay) for x in eta])
        for name, pay in (("negative only", (-1.0, 0.0)), ("+-1", (-1.0, 1.0)))
    }
