"""The curves of the law table: plain numbers in, named series out, the abscissa first.

`rollouts = 0` stands for endlessly many, `wrong = 0` for endlessly many even wrong arms (the single logit).
"""

from __future__ import annotations

import numpy as np

from theory.laws import (
    birth_chain,
    clocks,
    finite_group,
    kl_fixed_point,
    kl_recursion,
    noisy_verifier,
    replicator,
    two_class,
    word_chain,
)
from theory.laws.row import Series

_Q = np.linspace(0.005, 0.995, 199)


def first_success(p0: float = 0.01, rounds: int = 500, rollouts: int = 1) -> Series:
    t = np.arange(1, rounds + 1)
    return {"rounds": t, "never started": birth_chain.never_started(p0, t, rollouts)}


def birth(p0: float = 0.05, eta: float = 0.5, rounds: int = 300, wrong: int = 0) -> Series:
    geometry = _geometry(wrong)
    rungs = birth_chain.ladder(p0, eta, rounds, geometry)
    low, middle, high = birth_chain.success_quantiles(rungs, rounds, [0.05, 0.5, 0.95])
    t = np.arange(rounds + 1)
    mean_field = clocks.success_after("raw", t, p0, eta, geometry)
    mean = birth_chain.success_moments(rungs, rounds)[0]
    return {"rounds": t, "mean": mean, "5%": low, "50%": middle, "95%": high, "mean field": mean_field}


def time_to_level(
    p0: float = 0.05, eta: float = 0.5, level: float = 0.5, rounds: int = 300, wrong: int = 0
) -> Series:
    rungs = birth_chain.ladder(p0, eta, rounds + 1, _geometry(wrong))
    return {"rounds": np.arange(rounds + 1), "reached": birth_chain.time_law(rungs, level, rounds)}


def spread(p0: float = 1e-3, level: float = 0.5, wrong: int = 0) -> Series:
    etas, geometry = np.geomspace(0.02, 10, 40), _geometry(wrong)
    moments = [
        birth_chain.time_moments(birth_chain.ladder(p0, eta, int(80 / eta) + 40, geometry), level)
        for eta in etas
    ]
    exact = [deviation / mean for mean, deviation in moments]
    return {"eta": etas, "p0 -> 0": birth_chain.relative_spread(etas, geometry), "exact": np.asarray(exact)}


def words(p0: float = 0.2, eta: float = 1.0, correct: int = 2, wrong: int = 3, rounds: int = 12) -> Series:
    masses = [p0 / correct] * correct + [(1 - p0) / wrong] * wrong
    law = word_chain.word_chain(masses, correct, eta, rounds)
    return {"rounds": np.arange(rounds + 1), "mean": law.mean, "spread over seeds": law.spread}


def several(
    p0: float = 0.1, eta: float = 0.4, level: float = 0.5, wrong: int = 2, rounds: int = 100
) -> Series:
    most = birth_chain.reached_at_most(p0, eta, level, rounds, (1 - p0) / wrong)
    return {"rounds": np.arange(rounds + 1), "reached, at most": most}


def drift(rollouts: int = 0) -> Series:
    return {"q": _Q} | {s: two_class.moments(s, _Q, rollouts or None).drift for s in two_class.SIGNALS}


def variance(rollouts: int = 8) -> Series:
    return {"q": _Q} | {s: two_class.moments(s, _Q, rollouts or None).variance for s in two_class.SIGNALS}


def signal_to_noise(rollouts: int = 8) -> Series:
    # Beside q = 1/2 itself, where a centred signal of two classes has no variance.
    q = _Q[_Q != 0.5]
    return {"q": q} | {s: two_class.signal_to_noise(s, q, rollouts or None) for s in two_class.SIGNALS}


def threshold(most: int = 64) -> Series:
    groups = np.arange(2, most + 1)
    return {"rollouts": groups, "q*": np.asarray([finite_group.variance_threshold(int(g)) for g in groups])}


def kappa(ddof: int = 1) -> Series:
    known = {"endless": 1 / np.sqrt(_Q * (1 - _Q))}
    return {"q": _Q} | {f"G = {g}": finite_group.kappa(_Q, g, ddof) for g in (2, 4, 8, 16, 64)} | known


def zero_signal() -> Series:
    return {"q": _Q} | {f"G = {g}": finite_group.zero_signal(_Q, g) for g in (2, 4, 8, 16, 64)}


def success(
    p0: float = 0.05, eta: float = 0.5, rounds: int = 200, rollouts: int = 0, geometry: float = 1.0
) -> Series:
    t = np.arange(rounds + 1)
    return {"rounds": t} | {
        s: clocks.success_after(s, t, p0, eta, geometry, rollouts or None) for s in two_class.SIGNALS
    }


def time_of(p0: float = 0.01, eta: float = 1.0, geometry: float = 1.0) -> Series:
    q = np.linspace(p0, 0.99, 200)
    return {"q": q} | {s: clocks.time_to(s, q, p0, eta, geometry) for s in two_class.SIGNALS}


def escape(level: float = 0.5, eta: float = 1.0, geometry: float = 1.0) -> Series:
    q0, out = np.geomspace(1e-5, 0.2, 60), {}
    for signal in ("raw", "group_mean_std", "max_rl"):
        out[signal] = clocks.time_to(signal, level, q0, eta, geometry)
        out[f"{signal}, leading"] = clocks.escape_time(signal, q0, eta, geometry)
    return {"q0": q0, **out}


def tail(eta: float = 1.0, geometry: float = 1.0) -> Series:
    t, out = np.geomspace(10, 1e4, 60), {}
    for signal in ("raw", "group_mean_std", "max_rl"):
        out[signal] = 1 - clocks.success_after(signal, t, 0.5, eta, geometry)
        out[f"{signal}, leading"] = clocks.tail(signal, t, eta, geometry)
    return {"rounds": t, **out}


def std_success(p0: float = 0.05, eta: float = 0.5, rounds: int = 100, geometry: float = 1.0) -> Series:
    t = np.arange(rounds + 1)
    return {"rounds": t, "q": clocks.std_success(t, p0, eta, geometry)}


def winner(correct: int = 5, uneven: float = 0.3, tau: float = 40.0) -> Series:
    clock = np.linspace(0, tau, 200)
    share = replicator.winner_takes_all(uneven_shares(correct, uneven), clock)
    return {"tau": clock} | {f"correct arm {j + 1}": share[:, j] for j in range(correct)}


def many_arms(
    p0: float = 0.05,
    eta: float = 0.5,
    rounds: int = 500,
    correct: int = 5,
    wrong: int = 20,
    uneven: float = 0.3,
    normalised: bool = False,
) -> Series:
    t = np.arange(rounds + 1)
    gap = (lambda q: two_class.advantage_gap("group_mean_std", q)) if normalised else None
    path = replicator.many_arms(p0, uneven_shares(correct, uneven), uneven_shares(wrong, uneven), eta, t, gap)
    return {"rounds": t, "q": path.success, "|y|^2": path.concentration, "|z|^2": path.wrong_concentration}


def near_uniform(correct: int = 5, wrong: int = 20, uneven: float = 0.1, tau: float = 10.0) -> Series:
    clock, y, z = np.linspace(0, tau, 200), uneven_shares(correct, uneven), uneven_shares(wrong, uneven)
    exact, first_order = replicator.logit_gain(y, z, clock), replicator.near_uniform_gain(y, z, clock)
    return {"tau": clock, "logit gain": exact, "first order": first_order}


def noisy(
    p0: float = 0.2,
    eta: float = 0.5,
    rounds: int = 300,
    false_negative: float = 0.1,
    false_positive: float = 0.1,
    rollouts: int = 0,
) -> Series:
    t = np.arange(rounds + 1)

    def path(normalised: bool, group: int | None) -> np.ndarray:
        def drift(q: np.ndarray) -> np.ndarray:
            gap = noisy_verifier.advantage_gap(q, false_negative, false_positive, normalised, group)
            return q * (1 - q) * gap

        return clocks.flow(t, p0, eta, drift)

    return {"rounds": t, "raw": path(False, None), "mean-std": path(True, rollouts or None)}


def noisy_tail(eta: float = 1.0, false_negative: float = 0.1, false_positive: float = 0.1) -> Series:
    t = np.geomspace(10, 1e5, 60)
    return {"rounds": t, "mass still to go": noisy_verifier.tail(t, eta, false_negative, false_positive)}


def natural_fixed_point(p_ref: float = 0.1, eta: float = 1.0, geometry: float = 1.0) -> Series:
    beta = np.geomspace(0.03, 30, 60)
    points = [kl_fixed_point.natural_fixed_points(p_ref, b, eta, geometry) for b in beta]
    strong = kl_fixed_point.strong_pull(p_ref, beta, eta, geometry)
    lowest, highest = (np.asarray([p[i] for p in points]) for i in (0, -1))
    return {"beta": beta, "lowest q*": lowest, "highest q*": highest, "strong KL": strong}


def k3_fixed_point(p_ref: float = 0.1, youden: float = 1.0) -> Series:
    beta = np.geomspace(0.01, 100, 200)
    return {"beta": beta, "q*": kl_fixed_point.k3_fixed_point(p_ref, beta, youden)}


def recursion(p0: float = 0.1, beta: float = 5.0, rounds: int = 20, eps: float = 1e-6) -> Series:
    return {"rounds": np.arange(rounds + 1)} | {
        kind: kl_recursion.recursion(kind, p0, beta, rounds, eps=None if "mean_only" in kind else eps)
        for kind in kl_recursion.KINDS
    }


def recursion_fixed_points(p_ref: float = 0.1, eps: float = 1e-6) -> Series:
    beta = np.geomspace(0.3, 100, 60)
    points = [kl_recursion.fixed_points(p_ref, b, eps) for b in beta]
    lowest = np.asarray([p[0] for p in points])
    slopes = [float(kl_recursion.slope(p, p_ref, b, eps)) for p, b in zip(lowest, beta, strict=True)]
    return {"beta": beta, "lowest p*": lowest, "slope there": np.asarray(slopes)}


def _geometry(wrong: int) -> float:
    """C of one correct arm."""
    return 1 + 1 / wrong if wrong else 1.0


def uneven_shares(arms: int, amount: float) -> np.ndarray:
    """(arms,) shares whose logarithms fall evenly by `amount` from the first to the last."""
    weight = np.exp(-amount * np.linspace(0, 1, arms)) if arms > 1 else np.ones(1)
    return weight / weight.sum()
