"""Trials of many arms in mean field: every arm a class of its own, so that its share is recorded."""

from __future__ import annotations

import numpy as np
from scipy.special import logit

from bandit_sim import ArmClasses, simulate
from experiments.studies.law_trials.bandits import averaged, rule_of, thin
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.laws.arguments import Floats
from theory.laws.curves import uneven_shares

ETA = 0.1
"""Step size of the trials on the clock tau, which does not know it."""


def _masses(
    q0: float,
    correct: Floats,
    wrong: Floats,
    signal: str,
    eta: float,
    rollouts: int,
    rounds: int,
    every: int,
    sample: Sample,
) -> tuple[Floats, Floats, Floats]:
    """(S, T) success, (S, T, K) and (S, T, M) shares within the classes."""
    k, m = len(correct), len(wrong)
    arms = ArmClasses.from_masses(
        np.concatenate([q0 * correct, (1 - q0) * wrong]).tolist(), [1.0] * k + [0.0] * m
    )
    curves = simulate(
        arms, rule_of(signal, eta, rollouts), rounds + 1, sample.seeds, sample.seed, observe=("success", "class_mass"),
        every=every, engine="lumped",
    )  # fmt: skip
    mass = np.stack([curves[f"class_mass/{c}"] for c in range(k + m)], axis=-1)
    # Classes are held in an order of their own; here the likeliest comes first, as in the law.
    order = np.argsort(-np.asarray(arms.logit))
    paid = np.asarray(arms.reward)[order] > 0
    right, other = mass[..., order[paid]], mass[..., order[~paid]]
    return curves["success"], right / right.sum(-1, keepdims=True), other / other.sum(-1, keepdims=True)


def _on_the_clock(
    x: Floats, correct: Floats, wrong: Floats, sample: Sample
) -> tuple[np.ndarray, Floats, Floats]:
    """Places of the clock, and there log-odds gained (S, N) and shares (S, N, K); tau = sum of eta q (1-q)."""
    q0, rounds = 0.1, int(6 * x[-1] / ETA) + 400
    p, right, _ = _masses(q0, correct, wrong, "raw", ETA, 8, rounds, 1, sample)
    tau = np.concatenate([[0.0], np.cumsum(ETA * (p * (1 - p)).mean(axis=0))[:-1]])
    at = np.unique(np.linspace(0, len(x) - 1, 8).astype(int))
    at = at[x[at] <= tau[-1]]
    near = np.array([int(np.abs(tau - x[i]).argmin()) for i in at])
    return at, logit(p[:, near]) - logit(q0), right[:, near]


def winner(x: Floats, sample: Sample, correct: int, uneven: float, tau: float) -> dict[str, Seen]:
    at, _, shares = _on_the_clock(x, uneven_shares(correct, uneven), uneven_shares(10, 0.01), sample)
    return {f"correct arm {j + 1}": averaged(at, shares[:, :, j]) for j in range(correct)}


def near_uniform(
    x: Floats, sample: Sample, correct: int, wrong: int, uneven: float, tau: float
) -> dict[str, Seen]:
    at, gained, _ = _on_the_clock(x, uneven_shares(correct, uneven), uneven_shares(wrong, uneven), sample)
    seen = averaged(at, gained)
    return {"logit gain": seen, "first order": seen}


def many_arms(
    x: Floats,
    sample: Sample,
    p0: float,
    eta: float,
    rounds: int,
    correct: int,
    wrong: int,
    uneven: float,
    normalised: bool,
) -> dict[str, Seen]:
    signal, rollouts, every = (
        "group_mean_std" if normalised else "raw",
        64 if normalised else 32,
        thin(rounds, 20),
    )
    p, right, other = _masses(
        p0,
        uneven_shares(correct, uneven),
        uneven_shares(wrong, uneven),
        signal,
        eta,
        rollouts,
        rounds,
        every,
        sample,
    )
    at = np.arange(0, rounds + 1, every)
    return {
        "q": averaged(at, p),
        "|y|^2": averaged(at, (right**2).sum(-1)),
        "|z|^2": averaged(at, (other**2).sum(-1)),
    }


# Shares wander by noise as well as by drift, to first order in eta: the winner is not always the likeliest.
TRIALS = [
    Trial("winner-takes-all", "mean shares of simulated arms", winner, within=0.03, seeds=256,
          where={"tau": 6.0, "uneven": 1.0}),
    Trial("many-arms", "mean of simulated seeds, 32 rollouts", many_arms, within=0.03, seeds=256,
          where={"eta": 0.1, "rounds": 800, "p0": 0.1}),
    Trial("near-uniform", "log-odds gained by simulated seeds", near_uniform, within=0.1, seeds=256,
          where={"tau": 6.0}),
]  # fmt: skip
