"""Relinearise: where the forecast leaves the linear range, networks are probed anew where it has taken them.

    forecast(t) = forecast_0(t) + sum_i C_i(t),
    C_i(t) = mean over k of  E[p(t) | M_ki from 0] - E[p(t) | M_k,i-1 from x_ki],   t >= R_i,

M_ki is the tree kernel of network k probed after R_i rounds, M_k0 that of the base model; x_ki is the state that
M_k,i-1 has reached by then, and the network is put there: theta_ki = theta_k,i-1 + sum_e alpha_e g(e). The sum
telescopes, so that the last M rules; what comes before is a control variate, and the noise is that of the differences.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit_sim import TreeArms, displacement, simulate
from experiments.folder.probe_store import load_probe, save_probe
from experiments.forecast.forecast import Forecast
from experiments.specs.run_spec import RelineariseSpec, RunSpec, mark_of
from llm_bridge.network.adapters import Factors
from llm_bridge.probe.measure import NoCorrectRollout
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.trees.probe import Probe
from theory.trees.response_tree import ResponseTree

Array = NDArray[np.float64]
FOLDER, RELINEARISED = "relinearised", "relinearised.json"
"""Where a run folder keeps the probes of its networks, and the numbers of the correction."""
STREAM = 2**63 + 2**62
"""The first replica number of these probes' draws: neither a training replica has it nor another probe."""
STRATUM = 16
"""Simulated replicas of which one becomes a network."""
SALT = 11
STATE, ONWARD, LOOK = 1, 2, 3
"""What draws are for: where a network is put, how it goes on from there, and where its drift is read."""


@dataclass(frozen=True)
class Correction:
    """What K networks probed anew after I rounds add to a forecast of T rounds.

    Arguments:
        rounds: the I rounds R_i.
        difference: (K, T) sum over i of a network's new forecast less its old one.
        linear: (I, K) success after R_i rounds by the linearisation before.
        network: (I, K) p0 of the new probe: linear and network differ by the drift, and by the probe's noise.
    """

    rounds: tuple[int, ...]
    difference: Array
    linear: Array
    network: Array

    @property
    def mean(self) -> Array:
        """(T,) what is added to the forecast."""
        return self.difference.mean(axis=0)

    @property
    def error(self) -> Array:
        """(T,) its standard error over the networks."""
        return self.difference.std(axis=0, ddof=1) / np.sqrt(len(self.difference))

    def draws(self, members: int, seed: int) -> Array:
        """(members, T) draws of the true mean: mean + error * t, with Student's t of K - 1 degrees of freedom.

        A member has one draw for all rounds. The error is itself an estimate of K networks, hence not normal noise,
        whose 95% would hold the truth in 85% of cases where K = 4.
        Source: Student (1908).
        Valid when: differences of networks are about normal; K >= 4, below which the variance of t is infinite.
        """
        networks, rng = len(self.difference), np.random.default_rng((seed, SALT))
        normal = rng.normal(size=(members, networks))
        # The deviations' own noise, error^2 * (K - 1) / chi^2, in place of error^2.
        chi_squared = rng.chisquare(networks - 1, size=(members, 1))
        return self.mean + normal @ (self.difference - self.mean) / np.sqrt(networks * chi_squared)

    def numbers(self) -> dict[str, Any]:
        gap = self.network - self.linear
        return {
            "relinearised_rounds": list(self.rounds),
            "relinearised_linear": self.linear.mean(axis=1).tolist(),
            "relinearised_network": self.network.mean(axis=1).tolist(),
            "relinearised_drift": gap.mean(axis=1).tolist(),
            "relinearised_drift_error": (gap.std(axis=1, ddof=1) / np.sqrt(gap.shape[1])).tolist(),
            "relinearised_correction_at_end": float(self.mean[-1]),
            "relinearised_correction_at_end_error": float(self.error[-1]),
            "relinearised_mean": self.mean.tolist(),
            "relinearised_error": self.error.tolist(),
        }


@dataclass(frozen=True)
class Networks:
    """K networks on the way of a forecast, and the model linearised at each; number 0 is the base model's.

    Arguments:
        spec: of the run, with `forecast.relinearise`.
        base: the base model's probe.
        out: the run folder: a probe is found there, or measured and saved.
        measured: (factors, rollouts, stream) -> a probe of a network.
        displaced: (probe, shares (1, M), factors of that probe's network) -> factors of the network moved on.
    """

    spec: RunSpec
    base: Probe
    out: Path
    measured: Callable[[Factors | None, int | None, int], Probe]
    displaced: Callable[[Probe, Array, Factors | None], Factors]

    def __post_init__(self) -> None:
        # Both are asked for again. Of factors only the last are kept: with full parameters they are the model's size.
        object.__setattr__(self, "state", cache(self.state))
        object.__setattr__(self, "factors", lru_cache(1)(self.factors))

    @property
    def asked(self) -> RelineariseSpec:
        asked = self.spec.forecast.relinearise
        assert asked is not None
        return asked

    @property
    def starts(self) -> tuple[int, ...]:
        """(I + 1,) rounds after which linearisation i begins to rule."""
        return (0, *self.asked.rounds)

    def probe(self, k: int, i: int) -> Probe:
        """Network k probed after R_i rounds.

        Errors: Refusal where no rollout is correct.
        """
        if i == 0:
            return self.base
        stage = mark_of({
            "probe": self.spec.stage("probe"),
            "rule": self.spec.rule.model_dump(mode="json"),
            "relinearise": self.asked.model_dump(mode="json") | {"rounds": self.asked.rounds[:i]},
            "network": [k, self.key(STATE, i, k)],
        })  # fmt: skip
        folder = self.out / FOLDER / f"round-{self.starts[i]}" / f"network-{k}"
        found = load_probe(folder, stage)
        if found is not None:
            return found
        try:
            probe = self.measured(
                self.factors(k, i), self.asked.rollouts, STREAM + (self.starts[i] << 16) + k
            )
        except NoCorrectRollout as error:
            raise Refusal(
                f"relinearise after round {self.starts[i]}: no correct rollout among {error.rollouts} of network "
                f"{k}; raise --relinearise-rollouts, relinearise earlier, or give a smaller eta"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        save_probe(folder, probe, stage)
        return probe

    def factors(self, k: int, i: int) -> Factors | None:
        """theta_ki; None is the base model."""
        if i == 0:
            return None
        before = self.probe(k, i - 1)
        shares = self.state(k, i)[0] @ before.tree_and_scores()[1]
        return self.displaced(before, shares[None], self.factors(k, i - 1))

    def state(self, k: int, i: int) -> tuple[Array, Array]:
        """alpha and f = K alpha, (E,) each: network k after R_i rounds in linearisation i - 1."""
        if i == 1:
            alpha, f = self._first
            return alpha[k], f[k]
        tree, rounds = self.probe(k, i - 1).tree(), self.starts[i] - self.starts[i - 1]
        alpha, f = reached(tree, self.spec.rule, rounds, 1, self.key(STATE, i, k))
        return alpha[0], f[0]

    @cached_property
    def _first(self) -> tuple[Array, Array]:
        """The states, (K, E) each, at the first round: one replica by lot from each of K strata of success.

        Unbiased, and less noisy in the mean than K plain draws.
        """
        tree, count = self.base.tree(), self.asked.networks
        alpha, f = reached(tree, self.spec.rule, self.starts[1], STRATUM * count, self.key(STATE, 1))
        order = np.argsort([tree.success(row) for row in f], kind="stable")
        chosen = order.reshape(count, STRATUM).min(axis=1)
        return alpha[chosen], f[chosen]

    def correction(
        self, progress: Callable[[str, int, int], None] = lambda label, done, total: None
    ) -> Correction:
        """Probe every network, and simulate on from each in the new and in the old linearisation."""
        count, parts = self.asked.networks, len(self.asked.rounds)
        difference = np.zeros((count, self.spec.rounds))
        linear, network = np.zeros((2, parts, count))
        for k in range(count):
            for i, start in enumerate(self.asked.rounds, start=1):
                old = moved(self.probe(k, i - 1).tree(), self.state(k, i)[1])
                new = self.probe(k, i).tree()
                linear[i - 1, k], network[i - 1, k] = old.success(), new.success()
                # The same random numbers for both.
                difference[k, start:] += self._goes_on(new, start, k) - self._goes_on(old, start, k)
                progress("relinearise", k * parts + i, count * parts)
        return Correction(self.asked.rounds, difference, linear, network)

    def _goes_on(self, tree: ResponseTree, start: int, k: int) -> Array:
        """(T - start,) mean success of replicas that begin there, of all networks as many as the forecast has."""
        spec = self.spec.forecast
        seeds = max(2, spec.bootstraps * spec.seeds // self.asked.networks)
        arms = TreeArms.from_tree(correct_first(tree))
        curves = simulate(
            arms,
            self.spec.rule,
            self.spec.rounds - start,
            seeds,
            self.key(ONWARD, start, k),
            observe=("success",),
        )
        return curves["success"].mean(axis=0, dtype=np.float64)

    def key(self, use: int, place: int, k: int = 0) -> int:
        """The key of the simulated draws of network k for a use, at a linearisation or round."""
        # Always as many numbers: SeedSequence pads with zeros, so that shorter places would meet longer ones.
        return int(np.random.SeedSequence((self.spec.seed, SALT, use, place, k)).generate_state(1)[0] >> 1)


def corrected(made: Forecast, correction: Correction, seed: int) -> Forecast:
    """The forecast with the tree kernel's mean moved by the correction, and its members by draws of it, in [0, 1].

    How far replicas spread around their mean stays as the base model's linearisation has it.
    """
    members = made.members["kernel"]
    moved_on = np.clip(members + correction.draws(len(members), seed), 0, 1)
    return replace(
        made,
        members=made.members | {"kernel": moved_on},
        success=made.success | {"kernel": np.clip(made.success["kernel"] + correction.mean, 0, 1)},
    )


def relinearised(out: Path, stage: str) -> dict[str, Any]:
    """The numbers of the correction in a run folder; none where nothing was relinearised."""
    path = out / RELINEARISED
    found = json.loads(path.read_text()) if path.exists() else {}
    return (
        {name: value for name, value in found.items() if name != "stage"}
        if found.get("stage") == stage
        else {}
    )


def reached(tree: ResponseTree, rule: Rule, rounds: int, seeds: int, key: int) -> tuple[Array, Array]:
    """`bandit_sim.displacement` on a tree: alpha and f, (S, E) each, in the tree's own order of edges.

    After no rounds nothing has moved.
    """
    if rounds == 0:
        still = np.zeros((seeds, len(tree.node)))
        return still, still
    back = np.argsort(tree.by_node)
    alpha, f = displacement(TreeArms.from_tree(tree), rule, rounds, seeds, key)
    return alpha[:, back], f[:, back]


def moved(tree: ResponseTree, f: Array) -> ResponseTree:
    """The tree that state f (E,) is the beginning of: exact for rules that ask neither for a past nor a reference."""
    return replace(tree, probability=np.exp(tree.edge_log_probability(f)))


def correct_first(tree: ResponseTree) -> ResponseTree:
    """The same tree, correct leaves first: two trees then pay the same uniform number alike, but for their p."""
    order = np.argsort(-tree.reward, kind="stable")
    return replace(tree, path=tree.path[order], reward=tree.reward[order], length=tree.length[order])
