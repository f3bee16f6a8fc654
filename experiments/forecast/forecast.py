"""The forecast: a probe of the base model in, curves with their bands out. Nothing is trained or fitted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_sim import AnyArms, Arms, ParticleArms, ScoredTree, TreeArms, replay, simulate
from experiments.scoring.scores import ensemble_of_means
from experiments.specs.run_spec import ForecastSpec
from theory.refusal import Refusal
from theory.rules.batch import Batch
from theory.rules.rule import Rule
from theory.trees.prefix_tree import Tokens
from theory.trees.probe import Probe
from theory.trees.response_tree import ResponseTree
from theory.warning import ForecastWarning

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

    An optimiser that acts on parameters (Adam, a clip) is simulated on the parameters of which the probe holds the
    scores: exactly where these are all, and else on a uniform sample that stands for the others.

    Errors: Refusal for such an optimiser where the probe holds no scores; and from the engines.
    Warns: `ForecastWarning` where one update moves a correct response by more than `LARGEST_STEP` nats.
    Source: design of this project. Valid when: the network stays in its linear regime, on-policy rounds.
    """
    spec = spec or ForecastSpec()
    started = time.perf_counter()
    weights = [None, *(probe.bootstrap_weights(seed + b) for b in range(1, spec.bootstraps))]
    trees = [probe.tree_and_scores(own) for own in weights]
    longest = int(max(np.ceil(tree.length.max()) for tree, _ in trees))
    step = largest_step(probe, rule)
    warn_of_step(step, rule.optimiser.eta)
    pool = max(spec.seeds, 2 * replicas)
    members: dict[str, list[Array]] = {name: [] for name in ENGINES}
    success: dict[str, list[Array]] = {name: [] for name in ENGINES}
    held = held_rule(probe, rule)
    if rule.optimiser.linear:
        jobs: list[tuple[str, AnyArms]] = [("kernel", TreeArms.from_tree(tree, longest)) for tree, _ in trees]
        jobs += [("sequence_kernel", ParticleArms.from_tree(tree)) for tree, _ in trees[:4]]
    else:
        jobs = [("kernel", scored(probe, tree, own, longest)) for tree, own in trees]
        jobs += [
            ("sequence_kernel", scored(probe, tree.as_sequences(), tree.path @ own, longest))
            for tree, own in trees[:4]
        ]
    jobs += [("tabular", tabular_arms(probe))]
    for done, (name, arms) in enumerate(jobs):
        # Arms without shared parameters have as many as there are, none of them sampled.
        curves = simulate(arms, rule if name == "tabular" else held, rounds, pool, seed + done)
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


def held_rule(probe: Probe, rule: Rule) -> Rule:
    """The rule as it acts on the parameters that the probe holds: of a sample the norm is sqrt(share) of the whole's.

    Errors: Refusal for an optimiser that acts on parameters, where the probe holds none.
    """
    if rule.optimiser.linear:
        return rule
    if probe.scores is None:
        raise Refusal(
            f"optimiser {rule.optimiser.kind}{'' if rule.optimiser.kind == 'adam' else ' with clip_norm'} acts on "
            "parameters, and the probe holds the scores of none; give probe.coordinates (--coordinates 4096)"
        )
    norm = rule.optimiser.clip_norm
    if norm is None or probe.share == 1:
        return rule
    optimiser = rule.optimiser.model_copy(update={"clip_norm": norm * probe.share**0.5})
    return rule.model_copy(update={"optimiser": optimiser})


def scored(
    probe: Probe, tree: ResponseTree, coefficient: NDArray[np.floating], tokens: int | None = None
) -> ScoredTree:
    """A tree of the probe with the scores (E, P') of its edges in the parameters that the probe holds.

    What `Probe.tree` adds to the kernel so that a tail's response meets itself only as often as two draws coincide
    is no inner product, and is left out: a tail of few members moves a little too far.
    """
    assert probe.scores is not None
    return ScoredTree.from_tree(tree, coefficient @ probe.scores, probe.share, tokens)


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
    """Nats by which one pull of a correct response moves its own log probability, mass-weighted.

    eta w K(y, y); under Adam, whose first step is eta in every parameter whatever the weight, eta |g(y)|_1.
    """
    tree, coefficient = probe.tree_and_scores()
    right = tree.reward > 0
    share = tree.leaf_probability() * right
    if rule.optimiser.kind == "adam" and probe.scores is not None:
        own = np.abs(tree.path @ (coefficient @ probe.scores)).sum(axis=1) / probe.share
        return float(rule.optimiser.eta * (share @ own) / share.sum())
    own = np.diag(tree.sequence_kernel())
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
    tree, coefficient = probe.tree_and_scores()
    arms = TreeArms.from_tree(tree) if rule.optimiser.linear else scored(probe, tree, coefficient)
    return np.asarray(replay(arms, held_rule(probe, rule), leaves, rewards))


def leaves_of(
    probe: Probe, tokens: Sequence[Sequence[Sequence[Tokens]]], rewards: Array
) -> NDArray[np.integer]:
    """(S, T, n) leaf of the response tree for each response of a record, given its reward."""
    return np.array([
        [[probe.leaf_of(t, r) for t, r in zip(responses, paid, strict=True)]
         for responses, paid in zip(run, rewards_of_run, strict=True)]
        for run, rewards_of_run in zip(tokens, rewards, strict=True)
    ])  # fmt: skip
