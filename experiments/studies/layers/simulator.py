"""The simulator as a world: variants become contextual bandits, and mean-field laws predict them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from experiments.simulation.bandits import Queries, TwoClass
from experiments.simulation.simulation import SimulationSpec, run_simulation
from experiments.studies.layers.configuration import Configuration, Difficulty
from experiments.studies.layers.record import Prediction, Result, fingerprint, hash_of, now
from experiments.studies.layers.steps import Seed, Steps, in_steps_of
from theory.laws.arguments import Floats
from theory.laws.contextual_flow import contextual_flow
from theory.laws.finite_group import kappa, round_moments
from theory.laws.kernel_flow import Gap, coupling
from theory.rules.rule import Rule
from theory.rules.spec import Count, Spec
from theory.trees.synthetic_tree import overlap_kernel

Share = Annotated[float, Field(gt=0, lt=1)]
COLUMNS = 20
GRID = np.linspace(0.001, 0.999, 400)
"""Success probabilities at which a rule's advantage gap is tabulated."""


class SimulatorBudget(Spec):
    """Rounds, and seeds; `batch_seeds` where there are several queries, each of which costs as much as one alone."""

    rounds: Annotated[int, Field(ge=1, multiple_of=COLUMNS)]
    seeds: Annotated[int, Field(ge=2)]
    batch_seeds: Annotated[int, Field(ge=2)]


class SimulatorWorld(Spec):
    """Softmax bandits over features: see `bandit_sim.Contexts.spectrum` for the overlaps.

    Arguments:
        seed: of every draw; another seed, other runs.
        step: eta of a variant's 1.0, by optimiser.
        p0: base success of the single query, by difficulty.
        spectrum: lowest and highest p0 of several training queries, which lie evenly between.
        held_out: p0 of the held-out queries.
        arms, correct, near, within, cross, wrong: of every query.
        quick, full: budgets.
    """

    kind: Literal["simulator"]
    seed: Seed
    step: Steps
    p0: dict[Difficulty, Share]
    spectrum: tuple[Share, Share]
    held_out: tuple[Share, ...]
    arms: Count
    correct: Count
    near: Count
    within: float
    cross: float
    wrong: float
    quick: SimulatorBudget
    full: SimulatorBudget

    def takes_part(self, models: str, scale: str) -> bool:
        return True

    def refusal(self, asked: Configuration, scale: Literal["quick", "full"]) -> str | None:
        """Why a variant cannot run here, or None."""
        if asked.shared and not asked.rule.optimiser.linear:
            return "shared features are a kernel, which carries function values; Adam and clips act on parameters"
        if asked.difficulty not in self.p0:
            return f"no p0 is listed for {asked.difficulty}"
        return None

    def spec(self, asked: Configuration, scale: Literal["quick", "full"]) -> SimulationSpec:
        budget = getattr(self, scale)
        p0 = [self.p0[asked.difficulty]] if asked.queries == 1 else np.linspace(*self.spectrum, asked.queries)
        bandit = (
            Queries(
                p0=tuple(float(p) for p in p0), held_out=self.held_out, arms=self.arms, correct=self.correct,
                batch=asked.batch, overlap=asked.overlap, within=self.within, cross=self.cross, wrong=self.wrong,
                near=self.near,
            )
            if asked.shared
            else TwoClass(arms=self.arms, correct=self.correct, p0=float(p0[0]))
        )  # fmt: skip
        return SimulationSpec(
            bandit=bandit, rule=in_steps_of(self.step, asked.rule), pay=asked.pay, rounds=budget.rounds,
            seeds=budget.seeds if asked.queries == 1 else budget.batch_seeds, seed=self.seed,
            observe=("success", "held_out") if asked.shared else ("success",), every=budget.rounds // COLUMNS,
        )  # fmt: skip

    def predict(self, asked: Configuration, spec: SimulationSpec, folder: Path) -> Prediction:
        """Mean field: log-odds move by eta gap(p) p (1-p) times the kernel's class contrast, see `contextual_flow`."""
        name, at = "mean field (contexts)", np.arange(0, spec.rounds + 1, spec.every)
        reason = _no_mean_field(spec.rule)
        if reason is not None:
            return Prediction(hash_of(spec), name, reason)
        gap = gap_of(spec.rule, asked.paid())
        success, held_out = _flow(spec, gap, at, shared=asked.shared)
        alone = _flow(spec, gap, at, shared=False)[0] if asked.shared else None
        return Prediction(
            hash_of(spec), name, None, at.tolist(), success.tolist(),
            held_out=held_out.tolist() if len(held_out) else None,
            without_sharing=None if alone is None else alone.tolist(),
        )  # fmt: skip

    def run(self, asked: Configuration, spec: SimulationSpec, folder: Path) -> Result:
        started, clock = now(), time.perf_counter()
        curves = run_simulation(spec).curves
        held_out = curves["held_out"] if "held_out" in spec.observe else None
        return Result(
            hash_of(spec), curves.at, curves["success"], held_out, float(curves["success"][0, 0]), 0,
            fingerprint(folder), started, now(), time.perf_counter() - clock,
        )  # fmt: skip


def _no_mean_field(rule: Rule) -> str | None:
    if not rule.optimiser.linear or rule.optimiser.kind != "sgd":
        return f"no law carries {rule.optimiser.kind}, which acts on parameters"
    if rule.kl.kind != "none":
        return f"the mean field used here has no KL term ({rule.kl.kind})"
    return None


def gap_of(rule: Rule, paid: tuple[float, float]) -> Gap:
    """p -> E[A | correct] - E[A | wrong] of a rule, tabulated from its own arithmetic (`finite_group.round_moments`).

    A running mean leaves the gap of raw reward; a window, or extra rollouts, that of a group of as many.
    """
    signal = rule.signal
    size = getattr(signal, "window", None) or 1 + getattr(signal, "extra", 0)
    if signal.kind == "moving_average":
        values = np.full_like(GRID, paid[1] - paid[0])
    elif size > 1:
        values = np.asarray(kappa(GRID, size))
    else:
        values = np.asarray(round_moments(rule, GRID, paid).drift) / (GRID * (1 - GRID))
    return lambda p: np.interp(p, GRID, values)


def _flow(spec: SimulationSpec, gap: Gap, at: np.ndarray, *, shared: bool) -> tuple[Floats, Floats]:
    """Mean success over rounds of the training and of the held-out queries; without sharing, kernel and overlap go."""
    bandit = spec.bandit
    assert isinstance(bandit, Queries | TwoClass)
    train = list(bandit.p0) if isinstance(bandit, Queries) else [bandit.p0]
    held_out = list(bandit.held_out) if isinstance(bandit, Queries) else []
    right = np.arange(bandit.arms) < bandit.correct
    if isinstance(bandit, Queries) and shared:
        kinds, overlap = np.asarray(bandit.build().kinds), bandit.overlap
    else:
        kinds, overlap = overlap_kernel(right), 0.0
    p = np.array([*train, *held_out])
    # Base masses of a typical query: classes are even, so the mean kernels depend on p0 not at all.
    mass = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())
    contrast = coupling(mass, right, kinds).contrast
    pull = contrast * ((1 - overlap) * np.eye(len(p)) + overlap)
    frequency = np.where(np.arange(len(p)) < len(train), 1 / len(train), 0.0)
    flow = contextual_flow(p, pull, frequency, spec.rule.optimiser.eta, at.astype(np.float64), gap)
    return flow[:, : len(train)].mean(axis=1), flow[:, len(train) :].mean(axis=1) if held_out else np.zeros(0)
