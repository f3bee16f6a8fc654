"""Drift, before anything is trained: the network is put where the forecast goes, and read there."""

from __future__ import annotations

import json
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.folder import store
from experiments.forecast.bandits import Drawn
from experiments.forecast.network import Network
from experiments.forecast.relinearise import LOOK, Relinearised, reached, shares_of
from experiments.specs import RunSpec
from llm_bridge.network.adapters import Factors
from theory.refusal import Refusal
from theory.rules.displaceable import cannot_go_on, displaceable
from theory.trees.joint_probe import JointProbe
from theory.warning import ForecastWarning

Array = NDArray[np.float64]
DRIFT = "drift.json"
REPLICAS = 4
LIMIT = 0.1
"""Of the rise that is forecast: beyond this the network is not where its linearisation says."""


@dataclass(frozen=True)
class Drift:
    """Mass of the kept correct responses in S simulated replicas after `rounds` updates, (S,) each.

    The mean over the queries trained on.

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
        """The gap as a share of the rise that the tree forecasts."""
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


def drift(
    network: Network, probe: JointProbe, relinearised: Relinearised | None, replicas: int = REPLICAS
) -> list[Drift]:
    """Measure how far the network is from its linearisation, half-way and where the forecast ends.

    A forecast that is relinearised is held to the linearisation that rules it there: from the round on at which that
    begins, where nothing has drifted yet. It reads probes' atoms and their kept responses, and samples nothing.

    Errors: Refusal for a rule whose run ends at no sum of scores, and where no correct response is a leaf of its own.
    Source: design of this project, section 2 (a cheap re-probe measures the drift and warns).
    Valid when: kept responses hold most of the correct mass; what lies beyond them is not read.
    """
    spec, rounds = network.spec, network.spec.rounds
    starts = (0,) if relinearised is None else relinearised.starts
    looks = []
    for at in sorted({max(1, rounds // 2), rounds}):
        i = bisect_right(starts, at) - 1
        if relinearised is None or i == 0:
            read = _compared(network, probe, None, at, replicas, spec.seed)
        else:
            read = np.concatenate([
                _compared(
                    network, relinearised.probe(k, i), relinearised.factors(k, i), at - starts[i], 1,
                    relinearised.key(LOOK, at, k),
                )
                for k in range(relinearised.asked.networks)
            ], axis=1)  # fmt: skip
        looks.append(Drift(at, float(read[0].mean()), *read[1:]))
    return looks


def _compared(
    network: Network, probe: JointProbe, factors: Factors | None, rounds: int, replicas: int, key: int
) -> Array:
    """(3, S) mass of the kept correct responses of a network's probe; `factors` None are the base model's.

    In the base model; by the probe's trees, `rounds` after it; and by the network put there.
    """
    training = range(len(network.spec.queries))
    if not any(probe.probes[q].kept for q in training):
        knob = "--probe-rollouts" if factors is None else "--relinearise-rollouts"
        raise Refusal(f"no correct response is a leaf of the probe's tree; raise {knob}")
    drawn = Drawn.of(probe)
    alpha, f = reached(network.spec, drawn, rounds, replicas, key)
    edges = drawn.edges

    def by_trees(row: Array) -> float:
        masses = []
        for q in training:
            own, tree = probe.probes[q], drawn.trees[q]
            leaves = [own.leaf_of(response, 1.0) for response in own.kept]
            masses.append(tree.leaf_probability(row[edges[q] : edges[q + 1]])[leaves].sum())
        return float(np.mean(masses))

    # As many networks at once as the parameters are held for side by side.
    shares = np.array_split(
        shares_of(drawn, alpha), -(-replicas // (network.split.adapters.at_once or replicas))
    )
    read = [
        network.kept(probe, network.displaced(probe, part, factors), len(part)).mean(axis=1)
        for part in shares
    ]
    return np.stack([
        network.kept(probe, None, 1).mean(axis=1).repeat(replicas),
        [by_trees(row) for row in f],
        np.concatenate(read),
    ])  # fmt: skip


def drift_numbers(
    network: Network, probe: JointProbe, relinearised: Relinearised | None, out: Path
) -> list[dict[str, Any]] | None:
    """The numbers of `drift`: from drift.json, or measured and written there; None for a rule it cannot carry.

    Errors: as `drift`.
    Warns: `ForecastWarning` where network and linearisation differ by more than `LIMIT` of the rise that is forecast.
    """
    spec, path = network.spec, out / DRIFT
    stage = spec.stage("forecast")
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("stage") == stage:
        looks = found["looks"]
    elif not displaceable(spec.rule):
        return None
    else:
        looks = [look.numbers() for look in drift(network, probe, relinearised)]
        store.write_json(path, {"stage": stage, "looks": looks})
    _warn(spec, looks)
    return looks


def _warn(spec: RunSpec, looks: list[dict[str, Any]]) -> None:
    worst = max(looks, key=lambda look: abs(look["drift_of_rise"]))
    if abs(worst["drift_of_rise"]) <= LIMIT:
        return
    finer = "probe again on the way (--relinearise), "
    if spec.forecast.relinearise is not None:
        finer = "relinearise more often (--relinearise), "
    elif cannot_go_on(spec.rule):
        finer = ""
    warnings.warn(
        f"after {worst['rounds']} rounds the network's success differs from its linearisation's by "
        f"{worst['drift_of_rise']:+.0%} of the rise that is forecast (limit {LIMIT:.0%}): the forecast leaves its "
        f"range; {finer}give a smaller eta or fewer rounds",
        ForecastWarning,
        stacklevel=3,
    )
