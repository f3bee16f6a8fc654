"""The forecast: a probe of the base model in, curves with their bands out. Nothing is trained or fitted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_sim import Arms, ParticleArms, TreeArms, replay, simulate
from experiments.scores import ensemble_of_means
from experiments.specs import ForecastSpec
from experiments.warning import ForecastWarning
from theory.prefix_tree import Tokens
from theory.probe import Probe
from theory.rules.batch import Batch
from theory.rules.rule import Rule

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
ENGINES = ("kernel", "sequence_kernel", "tabular")
UNSEEN_ARMS = 1000
LARGEST_STEP = 2.0
"""Nats: above this one update can turn a response's odds around, and a linear response no longer describes it."""


@dataclass(frozen=True)
class Forecast:
    """Members of the plotted observable per engine, and the exact mean success behind them.

    Arguments:
        members: engine -> (M, T) draws of the mean over S replicas of the sampled reward, not smoothed.
        success: engine -> (T,) mean over simulated replicas of the exact p before each round.
    """

    members: dict[str, Array]
    success: dict[str, Array]
    step: float
    seconds: float


def forecast(
    probe: Probe,
    rule: Rule,
    *,
    rounds: int,
    replicas: int,
    spec: ForecastSpec | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Forecast:
    """Simulate the rule on the probed bandit: tree kernel, and for comparison sequence kernel and tabular.

    Seed noise comes from the simulated replicas; probe noise from `spec.bootstraps` trees, each drawn with the
    probe's own noise. Members are means over `replicas` simulated replicas of ONE tree, as a run has one model.

    Errors: ValueError from the engines (for example Adam, which no kernel engine can carry).
    Warns: `ForecastWarning` where one update moves a correct response by more than `LARGEST_STEP` nats.
    Source: design of this project. Valid when: the network stays in its linear regime, on-policy rounds.
    """
    spec = spec or ForecastSpec()
    started = time.perf_counter()
    trees = [probe.tree(), *(probe.bootstrap(seed + b) for b in range(1, spec.bootstraps))]
    longest = int(max(np.ceil(tree.length.max()) for tree in trees))
    step = largest_step(probe, rule)
    warn_of_step(step, rule.optimiser.eta)
    pool = max(spec.seeds, 2 * replicas)
    members: dict[str, list[Array]] = {name: [] for name in ENGINES}
    success: dict[str, list[Array]] = {name: [] for name in ENGINES}
    jobs = [("kernel", TreeArms.from_tree(tree, longest)) for tree in trees]
    jobs += [("sequence_kernel", ParticleArms.from_tree(tree)) for tree in trees[:4]]
    jobs += [("tabular", tabular_arms(probe))]
    for done, (name, arms) in enumerate(jobs):
        curves = simulate(arms, rule, rounds, pool, seed + done)
        share = -(-spec.members // sum(other == name for other, _ in jobs))
        members[name].append(ensemble_of_means(curves["reward"], replicas, share, seed + done))
        success[name].append(curves["success"].mean(axis=0))
        if progress is not None:
            progress("simulate", done + 1, len(jobs))
    return Forecast(
        {name: np.concatenate(parts) for name, parts in members.items()},
        {name: np.mean(parts, axis=0) for name, parts in success.items()},
        step,
        time.perf_counter() - started,
    )


def tabular_arms(probe: Probe) -> Arms:
    """The bandit without shared parameters: every response found an arm of its exact mass.

    Mass not found is spread over many arms: their number does not matter while each is small.
    """
    mass, reward = probe.responses.mass, probe.responses.rewards
    right = max(probe.p0 - probe.found, 1e-12)
    wrong = max(1 - mass[reward <= 0].sum() - probe.found - right, 1e-12)
    spread = np.full(UNSEEN_ARMS, 1 / UNSEEN_ARMS)
    return Arms.from_masses(
        np.concatenate([mass, right * spread, wrong * spread]),
        np.concatenate([reward, np.ones(UNSEEN_ARMS), np.zeros(UNSEEN_ARMS)]),
    )


def largest_step(probe: Probe, rule: Rule) -> float:
    """Nats by which one pull of a correct response moves its own log probability: eta w K(y, y), mass-weighted."""
    tree = probe.tree()
    right = tree.reward > 0
    own = np.diag(tree.sequence_kernel())
    share = tree.leaf_probability() * right
    return float(rule.optimiser.eta * _success_weight(rule) * (share @ own) / share.sum())


def warn_of_step(step: float, eta: float) -> None:
    """Warn where one update moves a correct response by more than `LARGEST_STEP` nats."""
    if step > LARGEST_STEP:
        warnings.warn(
            f"eta moves a correct response by up to {step:.2g} nats in one update (limit {LARGEST_STEP:g}): the "
            f"forecast is outside its valid range; use eta <= {eta * LARGEST_STEP / step:.2g}",
            ForecastWarning,
            stacklevel=3,
        )


def _success_weight(rule: Rule) -> float:
    return float(np.abs(_weights(rule, [1.0] + [0.0] * (rule.rollouts - 1))[0]).max())


def _weights(rule: Rule, rewards: Sequence[float]) -> Array:
    n = rule.drawn
    zero, paid = np.zeros((n, 1)), np.array([*rewards, *[0.0] * (n - len(rewards))])  # helpers fail
    batch = Batch(zero, zero, zero, paid, np.zeros(n, dtype=np.int64), np.ones((n, 1)), np.array(rule.roles))
    return rule.weights(batch, rule.init(np))[0]


def predicted_success(
    probe: Probe, rule: Rule, tokens: Sequence[Sequence[Sequence[Tokens]]], rewards: Array
) -> Array:
    """(S, T) success before each round that the tree kernel predicts from each real replica's own history.

    Arguments:
        tokens: the responses of replica s in round t, rollout i.
        rewards: (S, T, n) their rewards.
    """
    leaves = leaves_of(probe, tokens, rewards)
    return np.asarray(replay(TreeArms.from_tree(probe.tree()), rule, leaves, rewards))


def leaves_of(
    probe: Probe, tokens: Sequence[Sequence[Sequence[Tokens]]], rewards: Array
) -> NDArray[np.integer]:
    """(S, T, n) leaf of the response tree for each response of a record, given its reward."""
    return np.array([
        [[probe.leaf_of(t, r) for t, r in zip(responses, paid, strict=True)]
         for responses, paid in zip(run, rewards_of_run, strict=True)]
        for run, rewards_of_run in zip(tokens, rewards, strict=True)
    ])  # fmt: skip
