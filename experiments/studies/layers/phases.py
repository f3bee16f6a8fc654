"""Phase diagrams: where an advantage helps, where negative reward collapses, and how large the best group is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit_sim import Contexts, simulate_grid
from experiments.folder import store
from experiments.specs import mark_of
from experiments.studies.layers.record import now
from experiments.studies.layers.simulator import SimulatorWorld
from theory.laws import batch_split, negative_reward
from theory.laws.kernel_flow import coupling
from theory.rules import SGD, LeaveOneOut, Raw, Rule, Sign
from theory.rules.signals import Signal

Array = NDArray[np.float64]
P0 = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
CROSS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Overlap of a correct response with a near wrong one, of those that correct and near wrong ones have among them."""
ROUNDS, ROLLOUTS = 100, 8
SEEDS = {"quick": 96, "full": 1024}
QUERIES = 32
SPREADS = (0.02, 0.05, 0.1, 0.2, 0.4)
OVERLAPS = (0.0, 0.3, 0.6, 0.9)


@dataclass(frozen=True)
class Phases:
    """What the diagrams show.

    Arguments:
        p0, cross: (P,), (C,) the axes of the first two.
        advantage: (C, P) mean success over the run, leave-one-out less raw reward, both of `ROLLOUTS` rollouts.
        advantage_error: (C, P) its standard error over seeds.
        steadier: (C, P) log2 of the variance between runs, leave-one-out over raw.
        lost: (C, P) share of seeds that -1 on failures leaves below half of p0.
        border: (C,) the law's p*, below which it loses.
        c1, c3, best: (M,) constants of sets of queries and the best group of the law, G* = 1 + sqrt(c3 / c1).
    """

    p0: Array
    cross: Array
    advantage: Array
    advantage_error: Array
    steadier: Array
    lost: Array
    border: Array
    c1: Array
    c3: Array
    best: Array


def phases(world: SimulatorWorld, scale: str, out: Path) -> Phases:
    """The diagrams' numbers: from the folder, or simulated and saved."""
    asked = {"world": world.model_dump(mode="json"), "scale": scale, "axes": [P0, CROSS, SPREADS, OVERLAPS]}
    asked |= {"rounds": ROUNDS, "rollouts": ROLLOUTS, "seeds": SEEDS[scale], "queries": QUERIES}
    mark = mark_of(asked)
    path = out / "phases.json"
    if path.exists() and (found := json.loads(path.read_text()))["spec"] == mark:
        return Phases(**{name: np.array(values) for name, values in found["numbers"].items()})
    made = _simulated(world, SEEDS[scale])
    out.mkdir(parents=True, exist_ok=True)
    numbers = {name: np.asarray(x).tolist() for name, x in made.__dict__.items()}
    store.write_json(path, {"spec": mark, "made": now(), "numbers": numbers})
    return made


def _simulated(world: SimulatorWorld, seeds: int) -> Phases:
    shape = (len(CROSS), len(P0))
    raw = _grid(world, Raw(), ROLLOUTS, seeds).mean(axis=2)
    compared = _grid(world, LeaveOneOut(), ROLLOUTS, seeds).mean(axis=2)
    negative = _grid(world, Sign(positive=0.0), 1, seeds)[:, :, -1]
    gap = compared - raw
    variance = np.log2(
        np.maximum(compared.var(axis=1, ddof=1), 1e-12) / np.maximum(raw.var(axis=1, ddof=1), 1e-12)
    )
    start = np.tile(P0, len(CROSS))
    c1, c3, best = _splits(world)
    return Phases(
        np.array(P0), np.array(CROSS), gap.mean(axis=1).reshape(shape),
        (gap.std(axis=1, ddof=1) / np.sqrt(seeds)).reshape(shape), variance.reshape(shape),
        (negative < start[:, None] / 2).mean(axis=1).reshape(shape), _border(world), c1, c3, best,
    )  # fmt: skip


def _arms(world: SimulatorWorld, p0: float, cross: float) -> Contexts:
    return Contexts.spectrum(
        [p0], arms=world.arms, correct=world.correct, within=world.within, cross=cross, wrong=world.wrong,
        near=world.near,
    )  # fmt: skip


def _grid(world: SimulatorWorld, signal: Signal, rollouts: int, seeds: int) -> Array:
    """(C P, S, T) success, cross outer and p0 inner."""
    rule = Rule(signal=signal, optimiser=SGD(eta=world.step.sgd), rollouts=rollouts)
    cases: list[tuple[Any, Rule]] = [(_arms(world, p0, cross), rule) for cross in CROSS for p0 in P0]
    curves = simulate_grid(cases, ROUNDS + 1, seeds, world.seed, observe=("success",), every=ROUNDS // 20)
    return np.stack([c["success"] for c in curves])


def _border(world: SimulatorWorld) -> Array:
    """p* of the law at every overlap, from the kernel of a hard query, where its two terms are of leading order."""
    out = []
    for cross in CROSS:
        arms = _arms(world, P0[0], cross)
        mass, reward = np.exp(np.asarray(arms.logits)), np.asarray(arms.reward)
        scatter = negative_reward.wrong_scatter(mass, reward, arms.kinds)
        out.append(
            negative_reward.rarest_that_learns(
                world.step.sgd, coupling(mass, reward, arms.kinds).contrast, scatter
            )
        )
    return np.array(out)


def _splits(world: SimulatorWorld) -> tuple[Array, Array, Array]:
    """Constants of the batch split for queries more and less alike in difficulty and in features."""
    found = []
    for overlap in OVERLAPS:
        for spread in SPREADS:
            arms = Contexts.spectrum(
                np.linspace(0.22 - spread / 2, 0.22 + spread / 2, QUERIES), arms=world.arms, correct=world.correct,
                within=world.within, cross=world.cross, wrong=world.wrong, near=world.near, overlap=overlap,
            )  # fmt: skip
            pi = np.exp(np.asarray(arms.logits)).reshape(QUERIES, -1)
            kernel = batch_split.shared_kernel(QUERIES, arms.kinds, overlap)
            split = batch_split.constants(pi, np.asarray(arms.reward).reshape(QUERIES, -1), kernel)
            found.append((split.queries, split.baseline, split.best_group))
    c1, c3, best = np.array(found).T
    return c1, c3, best
