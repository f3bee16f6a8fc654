"""What theory says about the papers' findings: `make findings` measures every number and writes docs/findings.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandit_sim import Arms, Contexts, ParticleArms, simulate
from bandit_sim.verifiers import NegativeOnly, PlusMinus
from experiments.studies.findings_text import HEAD, TEXTS
from experiments.studies.law_trials.bandits import passage, relative_deviation, rule_of, two_arms
from experiments.studies.law_trials.trial import Sample
from theory.laws import (
    batch_split,
    birth_chain,
    clocks,
    finite_group,
    kernel_flow,
    negative_reward,
    two_class,
)
from theory.laws.arguments import Floats
from theory.rules import SGD, Adam, GroupMeanStd, LeaveOneOut, Raw, RewardWindow, Rule
from theory.rules.signals import Signal
from theory.trees.synthetic_tree import synthetic_tree

Numbers = dict[str, float]
PAGE = Path("docs/findings.md")
P0, ETA, GROUP = 0.05, 0.2, 8


class Times(NamedTuple):
    """Mean time to p = 1/2 over seeds, its standard error, and sd over mean."""

    mean: float
    error: float
    spread: float


def _times(p: Floats, at: Floats) -> Times:
    t = passage(p, at, 0.5)
    return Times(float(t.mean()), float(t.std() / np.sqrt(len(t))), float(relative_deviation(t)[0][0]))


def _to_half(signal: str, p0: float, eta: float, rollouts: int, rounds: int, seeds: int = 512) -> Times:
    every = max(1, rounds // 1000)
    return _times(*two_arms(signal, p0, eta, every * (rounds // every), Sample(seeds), 1.0, rollouts, every))


def advantage() -> Numbers:
    """Variance of one round below and above the threshold; time and spread by signal, under SGD and Adam."""
    scatter = {}
    for signal in ("raw", "leave_one_out"):
        for q in (0.1, 0.9):
            p, _ = two_arms(signal, q, 0.01, 1, Sample(20_000), 1.0, GROUP)
            scatter[signal, q] = float((np.log(p[:, 1] / (1 - p[:, 1])) - np.log(q / (1 - q))).var())
    law = {s: two_class.moments(s, [0.1, 0.9], GROUP).variance for s in ("raw", "leave_one_out")}
    ratio = np.asarray(law["leave_one_out"]) / np.asarray(law["raw"])
    sgd = {s: _to_half(s, P0, ETA, GROUP, 500) for s in ("raw", "leave_one_out", "group_mean_std")}
    adam = {}
    signals: dict[str, Signal] = {"raw": Raw(), "group_mean_std": GroupMeanStd(eps=1e-6)}
    for name, signal in signals.items():
        rule = Rule(signal=signal, optimiser=Adam(eta=0.02), rollouts=GROUP)
        curves = simulate(Arms.two_class(arms=2, correct=1, p0=P0), rule, 301, 512, 0, dtype="float64")
        adam[name] = _times(curves["success"], np.asarray(curves.at, dtype=np.float64))
    return {
        "threshold": finite_group.variance_threshold(GROUP),
        "low_seen": scatter["leave_one_out", 0.1] / scatter["raw", 0.1], "low_law": float(ratio[0]),
        "high_seen": scatter["leave_one_out", 0.9] / scatter["raw", 0.9], "high_law": float(ratio[1]),
        "raw": sgd["raw"].mean, "raw_error": sgd["raw"].error, "raw_spread": sgd["raw"].spread,
        "loo": sgd["leave_one_out"].mean, "loo_error": sgd["leave_one_out"].error,
        "loo_spread": sgd["leave_one_out"].spread,
        "std_faster": sgd["raw"].mean / sgd["group_mean_std"].mean,
        "std_law": float(clocks.time_to("raw", 0.5, P0, ETA))
        / clocks.time_to_with_groups("group_mean_std", 0.5, P0, ETA, GROUP),
        "adam_faster": adam["raw"].mean / adam["group_mean_std"].mean,
    }  # fmt: skip


def rollouts() -> Numbers:
    """Rounds to p = 1/2 by rollouts per round, at a small and at a large step."""
    out: Numbers = {"law": float(clocks.time_to("raw", 0.5, P0, ETA))}
    for n in (1, 8, 64):
        found = _to_half("raw", P0, ETA, n, 600)
        out |= {f"mean_{n}": found.mean, f"error_{n}": found.error, f"spread_{n}": found.spread}
    one, many = (_to_half("raw", P0, 2.0, n, 400) for n in (1, 8))
    return out | {"large_1": one.mean, "large_8": many.mean, "large_law": out["law"] * ETA / 2.0}


def negative() -> Numbers:
    """Two arms, and a tree whose responses share features, at two difficulties: seeds that lost half of p0."""
    plain, signed = _to_half("raw", P0, ETA, 1, 600), _to_half("plus_minus", P0, ETA, 1, 600)
    out: Numbers = {"raw": plain.mean, "signed": signed.mean, "faster": plain.mean / signed.mean}
    for name, p0 in (("hard", 0.01), ("easy", 0.3)):
        made = synthetic_tree(p0, correct=3, wrong=20, within=0.5, cross=0.4, wrong_overlap=0.5, near=8)
        mass, kernel = made.leaf_probability(), made.sequence_kernel()
        for pay, judge in (("raw", None), ("signed", PlusMinus()), ("negative", NegativeOnly())):
            curves = simulate(
                ParticleArms.from_tree(made), rule_of("raw", 1.0), 301, 256, 0, every=300, verifier=judge
            )
            out[f"{name}_{pay}"] = float((curves["success"][:, -1] < p0 / 2).mean())
        scatter = negative_reward.wrong_scatter(mass, made.reward, kernel)
        kappa = kernel_flow.coupling(mass, made.reward, kernel).contrast
        out[f"{name}_rarest"] = negative_reward.rarest_that_learns(1.0, kappa, scatter)
    return out


def difficulty() -> Numbers:
    """Time to p = 1/2 over p0, by signal, and the risk of never starting."""
    out: Numbers = {}
    for name, p0 in (("easy", 0.1), ("middle", 0.01), ("hard", 0.001)):
        law = float(clocks.time_to("raw", 0.5, p0, 1.0))
        found = _to_half("raw", p0, 1.0, 1, int(12 * law), 192)
        rungs = birth_chain.ladder(p0, 1.0, 200)
        out |= {f"{name}_seen": found.mean, f"{name}_error": found.error}
        out[f"{name}_law"] = birth_chain.time_moments(rungs, 0.5)[0]
    out |= {"idle": idle(), "idle_law": float(birth_chain.never_started(0.001, 300))}
    for group in (8, 256):
        times = [
            _to_half("group_mean_std", p0, 0.2, group, rounds, 128).mean
            for p0, rounds in ((0.02, 600), (0.005, 2000))
        ]
        out[f"std_{group}"] = float(np.log(times[1] / times[0]) / np.log(4))
    return out


def idle(seeds: int = 4096) -> float:
    """Share of seeds without a success in 300 rounds at p0 = .001."""
    p, _ = two_arms("raw", 0.001, 1.0, 300, Sample(seeds), 1.0, 1, 300)
    return float((np.abs(p[:, -1] - 0.001) < 1e-9).mean())


def randomness() -> Numbers:
    """Relative spread of the time to p = 1/2 over difficulty, step size and rollouts."""
    out: Numbers = {}
    for name, p0, eta, n in (
        ("base", 0.01, 1.0, 1), ("easier", 0.04, 1.0, 1), ("smaller", 0.01, 0.1, 1), ("grouped", 0.01, 1.0, 8),
    ):  # fmt: skip
        mean = float(clocks.time_to("raw", 0.5, p0, eta))
        out[name] = _to_half("raw", p0, eta, n, int(10 * mean) if n == 1 else int(4 * mean)).spread
    return out | {
        "law": float(birth_chain.relative_spread(1.0)), "law_smaller": float(birth_chain.relative_spread(0.1)),
    }  # fmt: skip


SPECTRUM = [float(q) for q in np.linspace(0.03, 0.6, 32)]


def _queries(batch: int) -> Contexts:
    return Contexts.spectrum(SPECTRUM, arms=4, correct=1, batch=batch, overlap=0.3, within=0.5)


def _trained(signal: Signal, batch: int, group: int, eta: float, rounds: int) -> Floats:
    rule = Rule(signal=signal, optimiser=SGD(eta=eta), rollouts=group)
    curves = simulate(_queries(batch), rule, rounds + 1, 128, 0, observe=("success",), every=rounds)
    return curves["success"][:, -1]


def replay() -> Numbers:
    """32 rollouts a round: groups of 8, one rollout against the query's last 8 rewards, one rollout with raw reward."""
    cases: dict[str, tuple[Signal, int, int]] = {
        "group": (GroupMeanStd(ddof=1, eps=1e-6), 4, 8),
        "replay": (RewardWindow(window=8, ddof=1, eps=1e-6), 32, 1),
        "raw": (Raw(), 32, 1),
    }
    out: Numbers = {"start": float(np.mean(SPECTRUM))}
    for name, case in cases.items():
        end = _trained(*case, 0.5, 40)
        out |= {
            name: float(end.mean()),
            f"{name}_error": float(end.std() / np.sqrt(len(end))),
            f"{name}_sd": float(end.std()),
        }
    return out


def split() -> Numbers:
    """32 rollouts a round, split: the law's constants and best group, and success after the same number of rounds."""
    arms = _queries(32)
    pi, paid = np.exp(np.asarray(arms.logits)).reshape(32, 4), np.asarray(arms.reward).reshape(32, 4)
    shared = batch_split.shared_kernel(32, arms.kinds, float(arms.overlap))
    law = batch_split.constants(pi, paid, shared, pool=32)
    raw = batch_split.constants(pi, paid, shared, "none", pool=32)
    out: Numbers = {"c1": law.queries, "c2": law.rollouts, "c3": law.baseline, "best": law.best_group}
    best = min((2, 4, 8, 16, 32), key=lambda g: float(law.mse(32 / g, g)))
    out |= {"best_power": best, "mse_raw": float(raw.mse(32, 1)), "mse_best": float(law.mse(32 / best, best))}
    for group in (1, 2, 8, 32):
        end = _trained(Raw() if group == 1 else LeaveOneOut(), 32 // group, group, 0.5, 100)
        out |= {f"end_{group}": float(end.mean()), f"sd_{group}": float(end.std())}
        out[f"error_{group}"] = float(end.std() / np.sqrt(len(end)))
    return out


MEASURES: dict[str, Callable[[], Numbers]] = {
    "Advantage": advantage,
    "Rollouts": rollouts,
    "Negative reward": negative,
    "Difficulty": difficulty,
    "Randomness": randomness,
    "Replay": replay,
    "Batch against rollouts": split,
}


def section(name: str) -> str:
    """A section of the page, measured now."""
    return f"## {name}\n\n{TEXTS[name].format(**{key: _plain(x) for key, x in MEASURES[name]().items()})}"


def _plain(value: float) -> str:
    """Three digits, never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


def write(to: Path = PAGE) -> None:
    """Measure every number again, and write the page."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("\n".join([HEAD, *map(section, MEASURES)]))
