"""Trials of responses and queries that share parameters."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from bandit_sim import Contexts, ParticleArms, TreeArms, expected_step, simulate
from experiments.studies.law_trials.bandits import averaged, exact, passage, places, rule_of, thin
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.laws import kernel_flow, negative_reward, tree_flow
from theory.laws.arguments import Floats
from theory.trees.response_tree import ResponseTree
from theory.trees.synthetic_tree import synthetic_tree


def _pulled(
    arms: TreeArms | ParticleArms, eta: float, rounds: int, sample: Sample, every: int = 1
) -> tuple[Floats, NDArray[Any]]:
    curves = simulate(arms, rule_of("raw", eta, 4), rounds + 1, sample.seeds, sample.seed, every=every)
    return curves["success"], np.asarray(curves.at)


EVEN = synthetic_tree(0.05, correct=3, wrong=4, within=0.3, cross=-0.1, wrong_overlap=0.2)
"""One token, even arms: where the next order of the two-number law is exact."""


def _coupling(tree: ResponseTree) -> kernel_flow.Coupling:
    return kernel_flow.coupling(tree.leaf_probability(), tree.reward, tree.sequence_kernel())


def two_numbers(x: Floats, sample: Sample, eta: float) -> dict[str, Seen]:
    at = places(x, [0.08, 0.2, 0.4, 0.6])
    found = _coupling(EVEN)
    rounds = int(1.6 * float(kernel_flow.recentred_time(0.7, 0.05, eta, found.correct, found.cross)))
    p, when = _pulled(TreeArms.from_tree(EVEN), eta, rounds, sample)
    times = averaged(at, passage(p, when, x[at]))
    return {"next order": times, "two-number law": Seen(times.at[:1], times.mean[:1], times.error[:1])}


def tree(
    x: Floats,
    sample: Sample,
    p0: float,
    eta: float,
    rounds: int,
    depth: int,
    within: float,
    cross: float,
    wrong_overlap: float,
) -> dict[str, Seen]:
    made = synthetic_tree(
        p0, wrong=2 * depth, depth=depth, within=within, cross=cross, wrong_overlap=wrong_overlap
    )
    seen = {}
    for name, arms in (("tree", TreeArms.from_tree(made)), ("sequence", ParticleArms.from_tree(made))):
        p, at = _pulled(arms, eta, rounds, sample, thin(rounds, 15))
        seen[f"{name} kernel"] = averaged(at.astype(int), p)
    return seen


def _chain(depth: int, p0: float, coupling: float) -> ResponseTree:
    """A chain of tokens that share no features, scaled to the coupling that the law is given."""
    unit = _coupling(synthetic_tree(p0, wrong=depth, depth=depth))
    own = coupling * (1 - p0 ** (1 / depth)) ** 2 / unit.correct
    return synthetic_tree(p0, wrong=depth, depth=depth, own=own)


def chain(x: Floats, sample: Sample, p0: float, eta: float, coupling: float) -> dict[str, Seen]:
    at, seen = places(x, [0.1, 0.3, 0.6]), {}
    for depth in (1, 2, 8):
        rounds = int(2 * tree_flow.chain_time(0.65, p0, eta, coupling, depth))
        every = max(1, rounds // 400)
        p, when = _pulled(
            TreeArms.from_tree(_chain(depth, p0, coupling)), eta, every * (rounds // every), sample, every
        )
        seen[f"{depth} tokens"] = averaged(at, passage(p, when, x[at]))
    return seen


def overshoot(x: Floats, sample: Sample, p0: float) -> dict[str, Seen]:
    """Ratio of the two simulators' enumerated steps, each from where its own flow passes p."""
    at, seen, eta = places(x, [0.1, 0.3, 0.5]), {}, 1e-4
    for depth in (2, 4, 8):
        made = synthetic_tree(
            p0, wrong=depth, depth=depth, own=0.01, within=0.3, cross=-0.1, wrong_overlap=0.2
        )
        t = np.arange(0.0, 600.0, 0.5)
        slow = tree_flow.tree_flow(made, 0.2, t)
        kernel = made.sequence_kernel()
        path = kernel_flow.sequence_flow(made.leaf_probability(), made.reward, kernel, 0.2, t)
        speed, ratios = np.gradient(slow, t) / 0.2, []
        for level in x[at]:
            mass = path[int(np.abs(path @ made.reward - level).argmin())]
            with jax.enable_x64(True):
                step = expected_step(ParticleArms(mass, made.reward, kernel), rule_of("raw", eta)) / eta
            ratios.append(step / np.interp(mass @ made.reward, slow, speed))
        seen[f"{depth} tokens"] = exact(at, ratios)
    return seen


def contexts(
    x: Floats,
    sample: Sample,
    easy: float,
    hard: float,
    held_out: float,
    eta: float,
    overlap: float,
    rounds: int,
) -> dict[str, Seen]:
    """One query is trained at a time; features of their own give a contrast of 2 with two arms."""
    every, seen = thin(rounds, 10), {}
    arms = Contexts.spectrum([easy, hard], held_out=[held_out], arms=2, overlap=overlap)
    curves = simulate(
        arms,
        rule_of("raw", eta, 4),
        rounds + 1,
        sample.seeds,
        sample.seed,
        observe=("held_out",),
        every=every,
    )
    seen["held out"] = averaged(curves.at, curves["held_out"])
    return seen


def transfer(x: Floats, sample: Sample, held_out: float, trained: float) -> dict[str, Seen]:
    at, seen = places(x, [0.4, 0.6, 0.8]), {}
    for ratio in (0.1, 0.3, 1.0):
        arms = Contexts.spectrum([trained], held_out=[held_out], arms=2, overlap=ratio)
        curves = simulate(
            arms,
            rule_of("raw", 0.1, 8),
            1201,
            sample.seeds,
            sample.seed,
            observe=("success", "held_out"),
            every=5,
        )
        there = np.stack([
            [np.interp(level, s, h) for level in x[at]]
            for s, h in zip(curves["success"], curves["held_out"], strict=True)
        ])  # fmt: skip
        seen[f"ratio {ratio:g}"] = averaged(at, there)
    return seen


def _exact_drift(made: ResponseTree, eta: float, pay: tuple[float, float]) -> float:
    """E[log p] after one round minus log p, over all pulls."""
    mass, kernel, total = made.leaf_probability(), made.sequence_kernel(), 0.0
    for a, chance in enumerate(mass):
        weight = eta * (pay[1] if made.reward[a] else pay[0])
        after = softmax(np.log(mass) + weight * (kernel[:, a] - kernel @ mass)) @ made.reward
        total += float(chance * np.log(after / (mass @ made.reward)))
    return total


PAYS = {"raw": (0.0, 1.0), "+-1": (-1.0, 1.0), "negative only": (-1.0, 0.0)}


def failures(
    x: Floats, sample: Sample, eta: float, cross: float, wrong_overlap: float, near: int
) -> dict[str, Seen]:
    at = places(x, [1e-4, 1e-3, 1e-2, 0.1])
    trees = [
        synthetic_tree(
            float(p), correct=3, wrong=20, within=0.5, cross=cross, wrong_overlap=wrong_overlap, near=near
        )
        for p in x[at]
    ]
    return {
        f"{name}: E log p": exact(at, [_exact_drift(tree, eta, pay) for tree in trees])
        for name, pay in PAYS.items()
    }


def _tree_of(p: float) -> ResponseTree:
    return synthetic_tree(p, correct=3, wrong=20, within=0.5, cross=0.4, wrong_overlap=0.5, near=8)


def _rare() -> dict[str, float]:
    made = _tree_of(1e-5)
    mass, kernel = made.leaf_probability(), made.sequence_kernel()
    return {
        "contrast": kernel_flow.coupling(mass, made.reward, kernel).contrast,
        "scatter": negative_reward.wrong_scatter(mass, made.reward, kernel),
    }


def rarest(x: Floats, sample: Sample) -> dict[str, Seen]:
    """Where the sign of the enumerated round changes, by bisection in p."""
    at, seen = places(x, [1e-3, 1e-2, 0.1]), {}
    for name in ("negative only", "+-1"):
        turns = []
        for eta in x[at]:
            low, high = 1e-7, 0.3
            for _ in range(30):
                middle = float(np.sqrt(low * high))
                gains = _exact_drift(_tree_of(middle), float(eta), PAYS[name]) > 0
                low, high = (low, middle) if gains else (middle, high)
            turns.append(high)
        seen[name] = exact(at, turns)
    return seen


TRIALS = [
    Trial("two-number", "times of simulated seeds, even arms", two_numbers, within=0.05, relative=True, seeds=256,
          where={"correct": _coupling(EVEN).correct, "cross": _coupling(EVEN).cross}),
    Trial("tree-flow", "mean of simulated trees and particles", tree, within=0.02, seeds=256,
          where={"eta": 0.05, "rounds": 300}),
    Trial("depth-clock", "times of simulated trees", chain, within=0.08, relative=True, seeds=128, where={"eta": 0.03}),
    Trial("overshoot", "enumerated step of particles over the speed of the tree", overshoot, within=0.02, seeds=0),
    Trial("contexts", "simulated mean of the held-out query", contexts, within=0.01, seeds=256),
    Trial("transfer", "simulated path of the held-out query", transfer, within=0.02, seeds=128),
    Trial("negative-reward", "all pulls of a round", failures, within=2e-3, seeds=0, where={"eta": 0.05}),
    Trial("rarest-that-learns", "sign change of the enumerated round", rarest, within=0.2, relative=True, seeds=0,
          where=_rare()),
]  # fmt: skip
