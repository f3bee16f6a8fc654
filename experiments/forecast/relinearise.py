"""Relinearise: where the forecast leaves the linear range, networks are probed anew where it has taken them.

    forecast(t) = forecast_0(t) + sum_i C_i(t),
    C_i(t) = mean over k of  E[p(t) | M_ki from 0] - E[p(t) | M_k,i-1 from x_ki],   t >= R_i,

M_ki is the tree kernel of network k probed after R_i rounds, M_k0 that of the base model; x_ki is the state that
M_k,i-1 has reached by then, and the network is put there: theta_ki = theta_k,i-1 + sum_e alpha_e g(e). The sum
telescopes, so that the last M rules; what comes before is a control variate, and the noise is that of the differences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bandit_sim import TreeArms, displacement, forest, simulate
from bandit_sim.arms.forest import edge_order
from experiments.folder.probe_store import load_probe, save_probe
from experiments.forecast.bandits import Drawn
from experiments.forecast.correction import Correction
from experiments.forecast.network import Network
from experiments.specs import RelineariseSpec, RunSpec, mark_of
from llm_bridge.network.adapters import Factors
from llm_bridge.probe.measure import NoCorrectRollout
from theory.refusal import Refusal
from theory.trees.joint_probe import JointProbe
from theory.trees.response_tree import ResponseTree

Array = NDArray[np.float64]
FOLDER = "relinearised"
"""Where a run folder keeps the probes of its networks."""
STREAM = 2**63 + 2**62
"""The first replica number of these probes' draws: neither a training replica has it nor another probe."""
STRATUM = 16
"""Simulated replicas of which one becomes a network."""
SALT = 11
STATE, ONWARD, LOOK = 1, 2, 3
"""What draws are for: where a network is put, how it goes on from there, and where its drift is read."""


@dataclass
class Relinearised:
    """K networks on the way of a forecast, and the model linearised at each; number 0 is the base model's.

    Arguments:
        network: of the run, whose spec has `forecast.relinearise`; it is probed and moved.
        base: the base model's probe.
        out: the run folder: a probe is found there, or measured and saved.
    """

    network: Network
    base: JointProbe
    out: Path

    def __post_init__(self) -> None:
        # Asked for again and again. Of factors only the last are kept: with full parameters they are the model's size.
        self._states: dict[tuple[int, int], tuple[Array, Array]] = {}
        self._last: tuple[tuple[int, int], Factors] | None = None

    @property
    def spec(self) -> RunSpec:
        return self.network.spec

    @property
    def asked(self) -> RelineariseSpec:
        asked = self.spec.forecast.relinearise
        assert asked is not None
        return asked

    @property
    def starts(self) -> tuple[int, ...]:
        """(I + 1,) rounds after which linearisation i begins to rule."""
        return (0, *self.asked.rounds)

    def probe(self, k: int, i: int) -> JointProbe:
        """Network k probed after R_i rounds.

        Errors: Refusal where no rollout is correct.
        """
        if i == 0:
            return self.base
        stage = mark_of({
            "stage": f"relinearised {self.spec.stage('probe')}",
            "run": self.spec.model_dump(mode="json", exclude={"rounds", "replicas", "forecast"}),
            "relinearise": self.asked.model_dump(mode="json") | {"rounds": self.asked.rounds[:i]},
            "network": [k, self.key(STATE, i, k)],
        })  # fmt: skip
        folder = self.out / FOLDER / f"round-{self.starts[i]}" / f"network-{k}"
        found = load_probe(folder, stage, len(self.spec.asked))
        if found is not None:
            return found
        try:
            probe = self.network.probe(
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
        if self._last is not None and self._last[0] == (k, i):
            return self._last[1]
        before = self.probe(k, i - 1)
        shares = shares_of(Drawn.of(before), self.state(k, i)[0][None])
        made = self.network.displaced(before, shares, self.factors(k, i - 1))
        self._last = ((k, i), made)
        return made

    def state(self, k: int, i: int) -> tuple[Array, Array]:
        """alpha and f = K alpha, (E,) each: network k after R_i rounds in linearisation i - 1."""
        if (k, i) not in self._states:
            self._states[k, i] = self._state(k, i)
        return self._states[k, i]

    def _state(self, k: int, i: int) -> tuple[Array, Array]:
        if i == 1:
            alpha, f = self._first
            return alpha[k], f[k]
        rounds = self.starts[i] - self.starts[i - 1]
        alpha, f = reached(self.spec, Drawn.of(self.probe(k, i - 1)), rounds, 1, self.key(STATE, i, k))
        return alpha[0], f[0]

    @cached_property
    def _first(self) -> tuple[Array, Array]:
        """The states, (K, E) each, at the first round: one replica by lot from each of K strata of success.

        Unbiased, and less noisy in the mean than K plain draws.
        """
        drawn, count = Drawn.of(self.base), self.asked.networks
        alpha, f = reached(self.spec, drawn, self.starts[1], STRATUM * count, self.key(STATE, 1))
        training = len(self.spec.queries)
        order = np.argsort([success_of(moved(drawn, row), training) for row in f], kind="stable")
        chosen = order.reshape(count, STRATUM).min(axis=1)
        return alpha[chosen], f[chosen]

    def correction(self) -> Correction:
        """Probe every network, and simulate on from each in the new and in the old linearisation."""
        count, parts = self.asked.networks, len(self.asked.rounds)
        rounds, training = self.spec.rounds + 1, len(self.spec.queries)
        sets = ("training", "held_out") if self.spec.held_out else ("training",)
        difference = {name: np.zeros((count, rounds)) for name in sets}
        linear, network = np.zeros((2, parts, count))
        self.network.progress("relinearise", 0, count * parts)
        for k in range(count):
            for i, start in enumerate(self.asked.rounds, start=1):
                old = moved(Drawn.of(self.probe(k, i - 1)), self.state(k, i)[1])
                new = Drawn.of(self.probe(k, i))
                linear[i - 1, k], network[i - 1, k] = success_of(old, training), success_of(new, training)
                # The same random numbers for both.
                ahead, behind = (self._goes_on(drawn, start, k) for drawn in (new, old))
                for name in sets:
                    difference[name][k, start:] += ahead[name] - behind[name]
                self.network.progress("relinearise", k * parts + i, count * parts)
        looks = np.array([*self.spec.looks, self.spec.rounds])
        if "held_out" in difference:
            difference["held_out"] = difference["held_out"][:, looks]
        return Correction(self.asked.rounds, difference, linear, network)

    def _goes_on(self, drawn: Drawn, start: int, k: int) -> dict[str, Array]:
        """(T + 1 - start,) mean success of replicas that begin there, of all networks as many as the forecast has."""
        spec = self.spec.forecast
        seeds = max(2, spec.bootstraps * spec.seeds // self.asked.networks)
        arms = arms_of(self.spec, drawn._replace(trees=[correct_first(tree) for tree in drawn.trees]))
        seen = ("success", "held_out") if self.spec.held_out else ("success",)
        curves = simulate(
            arms,
            self.spec.rule,
            self.spec.rounds + 1 - start,
            seeds,
            self.key(ONWARD, start, k),
            observe=seen,
            pay=self.spec.pay,
        )
        mean = {name: curves[name].mean(axis=0, dtype=np.float64) for name in seen}
        return {"training": mean["success"]} | ({"held_out": mean["held_out"]} if "held_out" in mean else {})

    def key(self, use: int, place: int, k: int = 0) -> int:
        """The key of the simulated draws of network k for a use, at a linearisation or round."""
        # Always as many numbers: SeedSequence pads with zeros, so that shorter places would meet longer ones.
        return int(np.random.SeedSequence((self.spec.seed, SALT, use, place, k)).generate_state(1)[0] >> 1)


def arms_of(spec: RunSpec, drawn: Drawn) -> TreeArms:
    """The forest with its kernel."""
    return forest(drawn.trees, drawn.kernel, training=len(spec.queries), batch=spec.batch)


def reached(spec: RunSpec, drawn: Drawn, rounds: int, seeds: int, key: int) -> tuple[Array, Array]:
    """`bandit_sim.displacement` on a forest: alpha and f, (S, E) each, tree by tree in each tree's own order of edges.

    After no rounds nothing has moved.
    """
    if rounds == 0:
        still = np.zeros((seeds, drawn.edges[-1]))
        return still, still
    back = np.argsort(edge_order(drawn.trees))
    alpha, f = displacement(arms_of(spec, drawn), spec.rule, rounds, seeds, key, pay=spec.pay)
    return alpha[:, back], f[:, back]


def shares_of(drawn: Drawn, alpha: Array) -> Array:
    """(S, M) how far replicas have moved along the score of each atom, of (S, E) how far along each edge's."""
    parts = [
        alpha[:, first:last] @ own
        for own, (first, last) in zip(drawn.coefficients, pairwise(drawn.edges), strict=True)
    ]
    return np.concatenate(parts, axis=1)


def moved(drawn: Drawn, f: Array) -> Drawn:
    """The forest that state f (E,) is the beginning of: exact for rules that ask neither for a past nor a reference."""
    trees = [
        replace(tree, probability=np.exp(tree.edge_log_probability(f[first:last])))
        for tree, (first, last) in zip(drawn.trees, pairwise(drawn.edges), strict=True)
    ]
    return drawn._replace(trees=trees)


def success_of(drawn: Drawn, training: int) -> float:
    """Mean success of the first `training` queries."""
    return float(np.mean([tree.success() for tree in drawn.trees[:training]]))


def correct_first(tree: ResponseTree) -> ResponseTree:
    """The same tree, correct leaves first: two trees then pay the same uniform number alike, but for their p."""
    order = np.argsort(-tree.reward, kind="stable")
    return replace(tree, path=tree.path[order], reward=tree.reward[order], length=tree.length[order])
