"""Drift, before anything is trained: the network is put where the forecast goes, and read there."""

from __future__ import annotations

import json
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit_sim.displacement import carried
from experiments.folder import store
from experiments.forecast.relinearisable import refusal
from experiments.forecast.relinearise import LOOK, reached
from experiments.run.stages import Run
from llm_bridge.network.adapters import Factors
from llm_bridge.probe.masses import masses
from llm_bridge.rollouts.rollouts import read_prompt
from theory.refusal import Refusal
from theory.trees.probe import Probe
from theory.warning import ForecastWarning

Array = NDArray[np.float64]
REPLICAS = 4
LIMIT = 0.1
"""Of the foretold rise: beyond this the network is not where its linearisation says."""


@dataclass(frozen=True)
class Drift:
    """Mass of the kept correct responses in S simulated replicas after `rounds` updates, (S,) each.

    Arguments:
        base: their mass in the base model; the mean over networks, where each has kept its own.
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

    A forecast that is relinearised is held to the linearisation that rules it there: from the round on at which that
    begins, where nothing has drifted yet. It reads probes' atoms and their kept responses, and samples nothing.

    Errors: Refusal for a rule that `bandit_sim.displacement` cannot carry, and where no correct response is a
        leaf of its own.
    Source: design of this project, section 2 (a cheap re-probe measures the drift and warns).
    Valid when: kept responses hold most of the correct mass; what lies beyond them is not read.
    """
    probe, networks, rounds = run.probe(), run.networks(), run.spec.rounds
    starts = (0,) if networks is None else networks.starts
    looks = []
    for at in sorted({max(1, rounds // 2), rounds}):
        i = bisect_right(starts, at) - 1
        if networks is None or i == 0:
            read = _compared(run, probe, None, at, replicas, run.spec.seed)
        else:
            read = np.concatenate([
                _compared(
                    run, networks.probe(k, i), networks.factors(k, i), at - starts[i], 1, networks.key(LOOK, at, k)
                )
                for k in range(networks.asked.networks)
            ], axis=1)  # fmt: skip
        looks.append(Drift(at, float(read[0].mean()), *read[1:]))
    return looks


def _compared(run: Run, probe: Probe, factors: Factors | None, rounds: int, replicas: int, key: int) -> Array:
    """(3, S) mass of the kept correct responses of the probe of a network, None being the base model's.

    In the base model; by the probe's tree, `rounds` after it; and by the network put there.
    """
    if not probe.kept:
        knob = "--probe-rollouts" if factors is None else "--relinearise-rollouts"
        raise Refusal(f"no correct response is a leaf of the probe's tree; raise {knob}")
    leaves = [probe.leaf_of(response, 1.0) for response in probe.kept]
    tree, scores = probe.tree_and_scores()
    alpha, f = reached(tree, run.spec.rule, rounds, replicas, key)
    prompt = read_prompt(run.split, run.prompt)

    def kept(factors: Factors, networks: int) -> Array:
        return masses(run.split, prompt, factors, networks, probe.kept).sum(axis=1)

    # As many networks at once as the parameters are held for side by side.
    parts = np.array_split(alpha @ scores, -(-replicas // (run.split.adapters.at_once or replicas)))
    network = [kept(run.displaced(probe, part, factors), len(part)) for part in parts]
    return np.stack([
        kept(run.split.adapters.fresh(1), 1).repeat(replicas),
        [tree.leaf_probability(row)[leaves].sum() for row in f],
        np.concatenate(network),
    ])  # fmt: skip


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
        finer = "probe again on the way (--relinearise), "
        if run.spec.forecast.relinearise is not None:
            finer = "relinearise more often (--relinearise), "
        elif refusal(run.spec.rule):
            finer = ""
        warnings.warn(
            f"after {worst['rounds']} rounds the network's success differs from its linearisation's by "
            f"{worst['drift_of_rise']:+.0%} of the foretold rise (limit {LIMIT:.0%}): the forecast leaves its "
            f"range; {finer}give a smaller eta or fewer rounds",
            ForecastWarning,
            stacklevel=2,
        )
    return looks
