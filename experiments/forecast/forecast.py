"""The forecast: a probe of the base model in, curves with their bands out. Nothing is trained or fitted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit_sim import AnyArms, forest, simulate
from experiments.folder.run_folder import Progress
from experiments.forecast.bandits import Drawn, forest_of, held_rule, sequences_of, tabular_of
from experiments.scoring.scores import ensemble_of_means
from experiments.specs import RunSpec
from theory.forecast import Array, Forecast
from theory.rules.batch import Batch
from theory.rules.rule import Rule
from theory.trees.joint_probe import JointProbe
from theory.trees.probe import Probe
from theory.warning import ForecastWarning

APART, SEQUENCES = 2, 4
"""Trees on which the comparisons are simulated: without the kernel between queries, and with whole responses."""
LARGEST_STEP = 2.0
"""Nats: above this one update can turn a response's odds around, and a linear response no longer describes it."""


class Job(NamedTuple):
    """One simulation: whose comparison it is, and the bandit."""

    engine: str
    arms: AnyArms
    rule: Rule


def forecast(spec: RunSpec, joint: JointProbe, progress: Progress) -> Forecast:
    """Simulate the rule on the probed bandit: tree kernel, and the comparisons of `theory.forecast.Forecast`.

    Seed noise comes from the simulated replicas; probe noise from `spec.forecast.bootstraps` forests, each drawn with
    the probe's own noise. Members are means over the run's replicas of simulated replicas of ONE forest, as a run has
    one model. Held-out rollouts are drawn from the mean success of the held-out queries: a little more noise than
    theirs, p (1 - p) being concave.

    An optimiser that acts on parameters (Adam, a clip) is simulated on the parameters of which the probe holds the
    scores: exactly where these are all, and else on a uniform sample that stands for the others.

    Errors: Refusal from `RunSpec.check_forecast`, and from the engines.
    Warns: `ForecastWarning` where one update moves a correct response by more than `LARGEST_STEP` nats.
    Source: design of this project. Valid when: the network stays in its linear regime, on-policy rounds.
    """
    spec.check_forecast()
    started, settings = time.perf_counter(), spec.forecast
    step = largest_step(joint, spec)
    warn_of_step(step, spec.rule.optimiser.eta)
    jobs = list(_jobs(spec, joint))
    pool = max(settings.seeds, 2 * spec.replicas)
    at = {"training": np.arange(spec.rounds + 1)}
    if spec.held_out:
        at["held_out"] = np.array([*spec.looks, spec.rounds])
    seen = ("outcome", "success", *(("held_out",) if spec.held_out else ()))
    members: dict[tuple[str, str], list[Array]] = {}
    success: dict[tuple[str, str], list[Array]] = {}
    progress("simulate", 0, len(jobs))
    for done, (engine, arms, rule) in enumerate(jobs):
        seed = spec.seed + done
        # A round more than is trained: its success is that after the last update.
        curves = simulate(arms, rule, spec.rounds + 1, pool, seed, observe=seen, pay=spec.pay)
        share = -(-settings.members // sum(job.engine == engine for job in jobs))
        outcomes = {"training": curves["outcome"][:, :-1]}
        exact = {"training": curves["success"]}
        if spec.held_out is not None:
            exact["held_out"] = np.clip(curves["held_out"][:, at["held_out"]], 0, 1)
            count = spec.held_out.rollouts * len(spec.apart)
            rng = np.random.default_rng(seed)
            outcomes["held_out"] = rng.binomial(count, exact["held_out"][:, :-1]) / count
        for name in at:
            members.setdefault((engine, name), []).append(
                ensemble_of_means(outcomes[name], spec.replicas, share, seed)
            )
            success.setdefault((engine, name), []).append(exact[name].mean(axis=0))
        progress("simulate", done + 1, len(jobs))
    return Forecast(
        {key: np.concatenate(parts) for key, parts in members.items()},
        {key: np.clip(np.mean(parts, axis=0), 0, 1) for key, parts in success.items()},
        at,
        step,
        time.perf_counter() - started,
    )


def _jobs(spec: RunSpec, joint: JointProbe) -> Iterator[Job]:
    """All that is simulated, the forecast itself first; of several queries under an optimiser that acts on parameters
    without "apart" and "tabular"."""
    rule = held_rule(joint, spec.rule)
    drawn = [Drawn.of(joint, None if b == 0 else spec.seed + b) for b in range(spec.forecast.bootstraps)]
    longest = max(int(np.ceil(tree.length.max())) for d in drawn for tree in d.trees)
    for one in drawn:
        yield Job("kernel", forest_of(spec, joint, one, longest), rule)
    several, linear = len(joint.probes) > 1, spec.rule.optimiser.linear
    if several and linear:
        for one in drawn[:APART]:
            apart = forest(one.trees, training=len(spec.queries), batch=spec.batch, tokens=longest)
            yield Job("apart", apart, rule)
    for one in drawn[:SEQUENCES]:
        yield Job("sequence_kernel", sequences_of(spec, joint, one, longest), rule)
    if linear or not several:  # the bandits of several queries hold no parameters for an optimiser to act on
        # Arms without shared parameters have as many as there are, none of them sampled: the rule as it is.
        yield Job("tabular", tabular_of(spec, joint), spec.rule)


def largest_step(joint: JointProbe, spec: RunSpec) -> float:
    """Nats by which one pull of a correct response moves its own log probability, the most of any training query.

    A round's pulls are shared by the queries of its batch.
    """
    training = joint.probes[: len(spec.queries)]
    return max(step_of(probe, spec.rule) for probe in training) / spec.batch


def step_of(probe: Probe, rule: Rule) -> float:
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


def _weights(rule: Rule, rewards: Sequence[float]) -> NDArray[np.float64]:
    n = rule.drawn
    zero, paid = np.zeros((n, 1)), np.array([*rewards, *[0.0] * (n - len(rewards))])  # helpers fail
    batch = Batch(zero, zero, zero, paid, np.zeros(n, dtype=np.int64), np.ones((n, 1)), np.array(rule.roles))
    return rule.weights(batch, rule.init(np))[0]
