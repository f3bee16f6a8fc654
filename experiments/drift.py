"""Drift, before anything is trained: the network is put where the forecast goes, and read there."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bandit_sim import TreeArms, displacement
from bandit_sim.displacement import carried
from experiments import store
from experiments.stages import Run
from experiments.warning import ForecastWarning
from llm_bridge.adapters import Factors
from llm_bridge.rollouts import Prompt, padded, read_prompt, read_responses, score
from llm_bridge.scores import displaced
from theory.prefix_tree import Tokens
from theory.response_tree import ResponseTree

Array = NDArray[np.float64]
REPLICAS = 4
CHUNK = 32
LIMIT = 0.1
"""Of the foretold rise: beyond this the network is not where its linearisation says."""


@dataclass(frozen=True)
class Drift:
    """Mass of the kept correct responses in S simulated replicas after `rounds` updates, (S,) each.

    Arguments:
        base: their mass in the base model.
        tree: by the tree kernel, as the forecast has it.
        network: by the network itself at the parameters theta_0 + sum_e alpha_e g(e) that the forecast reaches.
    """

    rounds: int
    base: float
    tree: Array
    network: Array

    @property
    def gap(self) -> float:
        """Mean of network - tree."""
        return float((self.network - self.tree).mean())

    @property
    def relative(self) -> float:
        """The gap as a share of the rise that the tree foretells."""
        return self.gap / max(abs(float(self.tree.mean()) - self.base), 1e-12)

    def numbers(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "kept_base": self.base,
            "kept_tree": float(self.tree.mean()),
            "kept_network": float(self.network.mean()),
            "drift": self.gap,
            "drift_error": float((self.network - self.tree).std(ddof=1) / np.sqrt(len(self.tree))),
            "drift_of_rise": self.relative,
        }


def drift(run: Run, replicas: int = REPLICAS) -> list[Drift]:
    """Measure how far the network is from its linearisation, half-way and where the forecast ends.

    It reads the probe's atoms and its kept responses, and samples nothing.

    Errors: ValueError for a rule that `bandit_sim.displacement` cannot carry, and where no correct response is a
        leaf of its own.
    Source: design of this project, section 2 (a cheap re-probe measures the drift and warns).
    Valid when: kept responses hold most of the correct mass; what lies beyond them is not read.
    """
    probe, spec = run.probe(), run.spec
    tree, scores = probe.tree_and_scores()
    kept = probe.kept
    if not kept:
        raise ValueError("no correct response is a leaf of the probe's tree; raise --probe-rollouts")
    leaves = [probe.leaf_of(response, 1.0) for response in kept]
    looks = sorted({max(1, spec.rounds // 2), spec.rounds})
    arms = TreeArms.from_tree(tree)
    reached = [_in_tree_order(tree, *displacement(arms, spec.rule, at, replicas, spec.seed)) for at in looks]
    prompt = read_prompt(run.split, run.prompt)
    shares = np.concatenate([alpha for alpha, _ in reached]) @ scores
    # As many networks at once as the parameters are held for side by side.
    parts = np.array_split(shares, -(-len(shares) // (run.split.adapters.at_once or len(shares))))
    masses = []
    for part in parts:
        factors = displaced(
            run.split, prompt, probe.layout.atoms, part,
            progress=lambda done, total: run.progress("drift", done, total),
        )  # fmt: skip
        masses.append(_masses(run, prompt, factors, kept, len(part)))
    network = np.concatenate(masses).reshape(len(looks), replicas)
    base = float(tree.leaf_probability()[leaves].sum())
    measured = [
        Drift(at, base, np.array([tree.leaf_probability(row)[leaves].sum() for row in f]), own)
        for at, (_, f), own in zip(looks, reached, network, strict=True)
    ]
    return measured


def foretold_drift(run: Run) -> list[dict[str, Any]] | None:
    """The numbers of `drift`: from drift.json, or measured and written there; None for a rule it cannot carry.

    Warns: `ForecastWarning` where network and linearisation differ by more than `LIMIT` of the foretold rise.
    """
    stage, path = run.spec.stage("forecast"), run.out / "drift.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("stage") == stage:
        looks = found["looks"]
    elif not carried(run.spec.rule):
        return None
    else:
        looks = [look.numbers() for look in drift(run)]
        store.write_json(path, {"stage": stage, "looks": looks})
    worst = max(looks, key=lambda look: abs(look["drift_of_rise"]))
    if abs(worst["drift_of_rise"]) > LIMIT:
        warnings.warn(
            f"after {worst['rounds']} rounds the network's success differs from its linearisation's by "
            f"{worst['drift_of_rise']:+.0%} of the foretold rise (limit {LIMIT:.0%}): the forecast leaves its "
            "range; give a smaller eta or fewer rounds",
            ForecastWarning,
            stacklevel=2,
        )
    return looks


@torch.no_grad()
def _masses(run: Run, prompt: Prompt, factors: Factors, responses: list[Tokens], replicas: int) -> Array:
    """(replicas,) probability that a replica's network gives to these responses."""
    device = prompt.hidden.device
    tokens = padded(responses).to(device)
    hidden = read_responses(run.split, prompt, tokens)
    masses = np.zeros(replicas)
    for s in range(replicas):
        for part in torch.arange(len(responses), device=device).split(CHUNK):
            rows = torch.full((len(part),), s, device=device)
            logs = score(run.split, prompt, factors, rows, hidden[part], tokens[part])
            masses[s] += float(logs.double().sum(dim=1).exp().sum())
    return masses


def _in_tree_order(tree: ResponseTree, *rows: Array) -> tuple[Array, ...]:
    """Arrays over edges (S, E), from the order of `TreeArms` (by node) to the tree's own."""
    back = np.argsort(tree.by_node)
    return tuple(row[:, back] for row in rows)
