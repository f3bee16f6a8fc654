"""The forecast of a run of several queries: its rule, simulated on the forest of what was probed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandit_sim import forest, simulate
from experiments.folder.run_folder import Progress
from experiments.forecast.forecast import largest_step, warn_of_step
from experiments.scoring.scores import ensemble_of_means
from experiments.specs.contexts_spec import ContextsSpec
from theory.trees.joint_probe import JointProbe
from theory.trees.response_tree import ResponseTree

Array = NDArray[np.float64]
KERNELS = ("joint", "apart")
"""The joint kernel; and the same without its blocks between queries, as if no query taught another."""
SETS = ("training", "held_out")


@dataclass(frozen=True)
class Foretold:
    """(M, T) or (M, E) draws of the plotted observable for each kernel and set, and the seconds it took.

    The observable is the mean over S replicas: of the round's outcomes ("training"), and of the held-out
    rollouts before round 1, 1 + every, ... ("held_out").

    Arguments:
        ends: by set (2,), mean success of the base model and after the last update, by the joint kernel.
    """

    members: dict[tuple[str, str], Array]
    ends: dict[str, Array]
    seconds: float


def foretell(spec: ContextsSpec, joint: JointProbe, progress: Progress) -> Foretold:
    """Simulate the rule on the forest of the probed queries, with all blocks of the kernel and without those between.

    Held-out rollouts are drawn from the mean success of the held-out queries: a little more noise than theirs,
    p (1 - p) being concave.

    Errors: Refusal from the engine (for example Adam, which no kernel engine can carry).
    Warns: `ForecastWarning`, as `experiments.forecast.forecast.forecast`.
    """
    started, settings = time.perf_counter(), spec.forecast
    step = max(largest_step(probe, spec.rule) for probe in joint.probes[: len(spec.queries)]) / spec.batch
    warn_of_step(step, spec.rule.optimiser.eta)
    drawn = [joint.trees(None if b == 0 else spec.seed + b) for b in range(settings.bootstraps)]
    tokens = max(int(np.ceil(tree.length.max())) for trees, _ in drawn for tree in trees)
    jobs = [("joint", trees, kernel) for trees, kernel in drawn]
    jobs += [("apart", trees, _apart(trees, kernel)) for trees, kernel in drawn[:2]]
    pool = max(settings.seeds, 2 * spec.replicas)
    members: dict[tuple[str, str], list[Array]] = {(k, s): [] for k in KERNELS for s in SETS}
    ends: dict[str, list[Array]] = {s: [] for s in SETS}
    for done, (name, trees, kernel) in enumerate(jobs):
        arms = forest(trees, kernel, training=len(spec.queries), batch=spec.batch, tokens=tokens)
        looking = ("held_out",) if spec.held_out else ()
        # A round more than is trained: its success is that after the last update.
        curves = simulate(
            arms, spec.rule, spec.rounds + 1, pool, spec.seed + done, observe=("outcome", "success", *looking),
            pay=spec.pay,
        )  # fmt: skip
        if name == "joint":
            for set_, seen in zip(SETS, ("success", *looking), strict=False):
                ends[set_].append(curves.mean(seen)[[0, -1]])
        share = -(-settings.members // sum(other == name for other, *_ in jobs))
        seed = spec.seed + done
        members[name, "training"].append(
            ensemble_of_means(curves["outcome"][:, :-1], spec.replicas, share, seed)
        )
        if spec.held_out is not None:
            p = np.clip(curves["held_out"][:, : spec.rounds : spec.held_out.every], 0, 1)
            count = spec.held_out.rollouts * len(spec.apart)
            paid = np.random.default_rng(seed).binomial(count, p) / count
            members[name, "held_out"].append(ensemble_of_means(paid, spec.replicas, share, seed))
        progress("simulate", done + 1, len(jobs))
    return Foretold(
        {key: np.concatenate(parts) for key, parts in members.items() if parts},
        {key: np.clip(np.mean(parts, axis=0), 0, 1) for key, parts in ends.items() if parts},
        time.perf_counter() - started,
    )


def _apart(trees: list[ResponseTree], kernel: NDArray[np.floating]) -> NDArray[np.floating]:
    """The kernel without its blocks between queries."""
    query = np.repeat(np.arange(len(trees)), [len(tree.node) for tree in trees])
    return np.where(query[:, None] == query[None, :], kernel, 0.0)
