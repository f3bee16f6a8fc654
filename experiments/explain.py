"""Why a forecast and a run differ: `onearm explain RUN_FOLDER`.

Three students of one history. The run's own responses and rewards train the network again, a network whose
token logits are linearised at the base model, and the tree kernel; then the success of each is measured.

    network - linear     drift: the network has left its linear regime
    linear - tree        truncation: what the probe's cut, rests and tails, and its noise, leave out
    tree - forecast      chance: these draws against the forecast's mean over draws
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from bandit_sim import TreeArms, replay
from experiments import store
from experiments.forecast import leaves_of, predicted_success
from experiments.overlay import WINDOWS
from experiments.scores import martingale_residuals, window_z
from experiments.stages import Run
from experiments.store import Observed
from llm_bridge.full import FullSpec
from llm_bridge.linear import linear_logits, linear_response_logits
from llm_bridge.rollouts import (
    chosen,
    open_prompt,
    padded,
    read_responses,
    response_logits,
    sample,
    score,
    uniforms,
)
from llm_bridge.train import Trainer
from theory.prefix_tree import Tokens
from theory.probe import Probe

Array = NDArray[np.float64]
EXPLAIN_STREAM = 2**62
"""First replica number of the fresh rollouts: neither a training replica nor the probe has it."""
STUDENTS = ("network", "linear", "tree")
CHUNK = 32


@dataclass(frozen=True)
class Snapshot:
    """The students after `updates` updates, replica by replica.

    Arguments:
        kept: student -> (S,) exact mass of the correct responses that are leaves of the probe's tree.
        beyond: student -> (S,) mass of all other correct responses; sampled, but for the tree.
        moved: nats, mean over correct fresh rollouts of log pi(y) / pi_0(y): how far the replicas have come.
        drift: nats, mean over correct fresh rollouts of |log pi(y) - log pi_linear(y)|.
        mismatch: nats, largest |log pi(y) - recorded log pi(y)| over the record's next round: near zero, or
            the retraced replicas are not those of the run.
    """

    updates: int
    kept: dict[str, Array]
    beyond: dict[str, Array]
    moved: float
    drift: float
    mismatch: float

    def success(self, student: str) -> Array:
        return self.kept[student] + self.beyond[student]


def explain(
    run: Run,
    *,
    at: Sequence[int] | None = None,
    rollouts: int = 64,
    replicas: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Decompose the gap between forecast and run; writes explain.json into the run folder.

    Arguments:
        run: a folder that holds a finished overlay.
        at: numbers of updates after which to look, 0 .. T-1; default half of the run and its last round.
        rollouts: fresh rollouts per replica and look, for the correct responses the tree does not resolve. The
            linearised network's share of them is weighted by importance, pi_linear(y) / pi(y): the two
            networks are compared on the same rollouts, so that their difference is not blurred by them.
        replicas: look at the first of the run's replicas only, which is cheaper; default all.
        seed: of the fresh rollouts.
    Errors: ValueError where the folder holds no run, `at` or `replicas` lies outside it, or the rule has a KL term.
    Valid when: the record is whole. Standard errors are over the S replicas, paired.
    """
    observed = store.load_observed(run.out, run.spec.stage("train"))
    if observed is None:
        raise ValueError(f"{run.out} holds no finished run; call onearm overlay with --out {run.out} first")
    rounds = run.spec.rounds
    looks = sorted({rounds // 2, rounds - 1} if at is None else set(at))
    if not looks or not 0 <= looks[0] <= looks[-1] < rounds:
        raise ValueError(f"at = {looks}; give numbers of updates from 0 to {rounds - 1}")
    if isinstance(run.spec.adapter, FullSpec):
        raise ValueError(
            "full parameters have no linearised network to compare with; explain a run of adapters, and read "
            "drift.json for how far this one is from its tangent"
        )
    if replicas is not None and not 2 <= replicas <= run.spec.replicas:
        raise ValueError(f"replicas = {replicas}; give 2 to {run.spec.replicas}, as many as the run has")
    probe, made = run.probe(), run.forecast()
    snapshots = retrace(run, probe, observed.first(replicas or run.spec.replicas), looks, rollouts, seed)
    predicted = predicted_success(probe, run.spec.rule, observed.tokens, observed.rewards)
    residuals = martingale_residuals(observed.rewards, predicted)
    result: dict[str, Any] = {
        "query": run.spec.query.prompt,
        "eta": run.spec.rule.optimiser.eta,
        "rounds": rounds,
        "seed": run.spec.seed,
        "replicas": replicas or run.spec.replicas,
        "p0": probe.p0,
        "found": probe.found,
        "residual_z": window_z(residuals.z, 1)[0],
        "residual_z_windows": window_z(residuals.z, WINDOWS),
        "looks": [_look(s, float(made.success["kernel"][s.updates])) for s in snapshots],
    }
    store.write_json(run.out / "explain.json", result)
    return result


def _look(snapshot: Snapshot, forecast: float) -> dict[str, Any]:
    """Means with standard errors over replicas: each student's parts, and the gaps between the students."""
    parts = {
        student: {
            "success": _mean(snapshot.success(student)),
            "kept": _mean(snapshot.kept[student]),
            "beyond": _mean(snapshot.beyond[student]),
        }
        for student in STUDENTS
    }
    network, linear, tree = (snapshot.success(student) for student in STUDENTS)
    return {
        "updates": snapshot.updates,
        "moved": snapshot.moved,
        "drift_per_response": snapshot.drift,
        "mismatch": snapshot.mismatch,
        **parts,
        "forecast": forecast,
        "network - linear (drift)": _mean(network - linear),
        "linear - tree (truncation)": _mean(linear - tree),
        "of it kept": _mean(snapshot.kept["linear"] - snapshot.kept["tree"]),
        "tree - forecast (chance)": _mean(tree - forecast),
        "network - forecast": _mean(network - forecast),
    }


def retrace(
    run: Run, probe: Probe, observed: Observed, looks: Sequence[int], rollouts: int, seed: int
) -> list[Snapshot]:
    """Train the students on the record and look at them; the tree's numbers are exact."""
    kept, beyond = tree_masses(probe, run, observed)
    network, linear = (
        Trainer(
            run.split, [run.question], run.spec.rule, replicas=len(observed.tokens),
            max_tokens=run.spec.max_tokens, policy=policy,
        )
        for policy in (response_logits, linear_response_logits)
    )  # fmt: skip
    snapshots: list[Snapshot] = []
    for t in range(looks[-1] + 1):
        if t in looks:
            snapshots.append(
                _measure(run, probe, observed, network, linear, t, rollouts, seed, (kept[:, t], beyond[:, t]))
            )
        responses = [y for replica in observed.tokens for y in replica[t]]
        for student in (network, linear):
            student.retrace(responses, observed.rewards[:, t].reshape(-1))
        run.progress("retrace", t + 1, looks[-1] + 1)
    return snapshots


def tree_masses(probe: Probe, run: Run, observed: Observed) -> tuple[Array, Array]:
    """(S, T) twice: what the tree kernel holds before each round on kept correct leaves, and beyond them."""
    arms = TreeArms.from_tree(probe.tree())
    leaves = leaves_of(probe, observed.tokens, observed.rewards)
    on_kept = np.zeros_like(np.asarray(arms.reward))
    on_kept[[probe.leaf_of(y, 1.0) for y in probe.kept]] = 1
    return tuple(  # pyright: ignore[reportReturnType]
        replay(replace(arms, reward=paid), run.spec.rule, leaves, observed.rewards)
        for paid in (on_kept, arms.reward - on_kept)
    )


def _measure(
    run: Run,
    probe: Probe,
    observed: Observed,
    network: Trainer,
    linear: Trainer,
    updates: int,
    rollouts: int,
    seed: int,
    tree: tuple[Array, Array],
) -> Snapshot:
    replicas, leaves = len(observed.tokens), probe.kept
    everyone = torch.arange(replicas)
    kept: dict[str, Array] = {"tree": tree[0]}
    tokens = padded(leaves)
    hidden = read_responses(run.split, network.asked[0].prompt, tokens)
    which = torch.arange(len(leaves)).repeat(replicas)
    rows = everyone.repeat_interleave(len(leaves))
    kept["network"] = _mass(_logs(network, rows, hidden[which], tokens[which]), replicas)
    kept["linear"] = _mass(_linear_logs(linear, rows, hidden[which], tokens[which])[1], replicas)
    # What lies beyond the kept leaves: fresh rollouts of the network, weighted for the linearised one.
    paid, outside, real, base, straight = _fresh(run, network, linear, set(leaves), updates, rollouts, seed)
    right = paid > 0
    ratio = np.where(right, np.exp(straight - real), 0.0)
    beyond = {
        "network": (paid * outside).mean(axis=1),
        "linear": (paid * outside * ratio).mean(axis=1),
        "tree": tree[1],
    }
    return Snapshot(
        updates,
        kept,
        beyond,
        moved=float(np.mean((real - base)[right])) if right.any() else 0.0,
        drift=float(np.mean(np.abs(real - straight)[right])) if right.any() else 0.0,
        mismatch=_mismatch(network, observed, updates),
    )


def _mass(logs: Array, replicas: int) -> Array:
    """(S,) total probability of the responses of each replica."""
    return np.exp(logs).reshape(replicas, -1).sum(axis=1)


def _fresh(
    run: Run, network: Trainer, linear: Trainer, kept: set[Tokens], updates: int, rollouts: int, seed: int
) -> tuple[Array, ...]:
    """Fresh rollouts of the network, five times (S, rollouts): reward; whether off the kept leaves; and log
    probability under the network and, for correct ones, the base model and the linearised network."""
    split, prompt = network.split, network.asked[0].prompt
    parts: list[list[Array]] = []
    for replica in range(network.replicas):
        rows = torch.full((rollouts,), replica)
        draws = np.stack([
            uniforms(seed, EXPLAIN_STREAM + replica, updates, 0, i, network.max_tokens)
            for i in range(rollouts)
        ])  # fmt: skip
        # One replica at a time: the vocabulary times the rollouts of all replicas would not fit in memory.
        own = {name: (down[rows[:1]], up[rows[:1]]) for name, (down, up) in network.factors.items()}
        opening = open_prompt(split, prompt, own, torch.zeros(1, dtype=torch.long))
        rolled = sample(split, prompt, opening, own, torch.zeros_like(rows), draws, [run.end_tokens])
        responses = [tuple(int(x) for x in y[:n]) for y, n in zip(rolled.tokens, rolled.lengths, strict=True)]
        paid = np.array([run.reward_of(y) for y in responses])
        outside = np.array([float(y not in kept) for y in responses])
        right = torch.from_numpy(np.flatnonzero(paid))
        logs = np.zeros((2, rollouts))
        given = torch.from_numpy(rolled.tokens)[right]
        logs[:, right.numpy()] = _linear_logs(linear, rows[right], rolled.hidden[right], given)
        parts.append([paid, outside, rolled.logprobs.sum(axis=1), *logs])
        run.progress("rollouts", replica + 1, network.replicas)
    paid, outside, real, base, straight = (np.stack(part) for part in zip(*parts, strict=True))
    return paid, outside, real, base, straight


def _mismatch(network: Trainer, observed: Observed, updates: int) -> float:
    """Nats between the log probabilities of the record's next round and those of the retraced network."""
    responses = [y for replica in observed.tokens for y in replica[updates]]
    tokens = padded(responses)
    hidden = read_responses(network.split, network.asked[0].prompt, tokens)
    rows = torch.arange(network.replicas).repeat_interleave(network.rule.rollouts)
    logs = _logs(network, rows, hidden, tokens)
    return float(np.abs(logs - observed.logprobs[:, updates].reshape(-1)).max())


@torch.no_grad()
def _logs(student: Trainer, rows: Tensor, hidden: Tensor, tokens: Tensor) -> Array:
    """(R,) log probabilities of responses (R, T) under the network of replicas `rows`."""
    parts: list[Array] = [np.zeros(0)]
    for at in _chunks(tokens):
        mine, states = _trimmed(hidden[at], tokens[at])
        logs = score(student.split, student.asked[0].prompt, student.factors, rows[at], states, mine)
        parts.append(_total(logs, mine))
    return np.concatenate(parts)


@torch.no_grad()
def _linear_logs(student: Trainer, rows: Tensor, hidden: Tensor, tokens: Tensor) -> tuple[Array, Array]:
    """(R,) twice: log probabilities of responses (R, T) under the base model and the linearised network."""
    parts: list[tuple[Array, Array]] = [(np.zeros(0), np.zeros(0))]
    for at in _chunks(tokens):
        mine, states = _trimmed(hidden[at], tokens[at])
        base, change = linear_logits(
            student.split, student.asked[0].prompt, student.factors, rows[at], states
        )
        both = (
            _total(_spread(chosen(logits[mine >= 0], mine[mine >= 0]), mine), mine)
            for logits in (base, base + change)
        )
        parts.append(tuple(both))  # pyright: ignore[reportArgumentType]
    base, straight = zip(*parts, strict=True)
    return np.concatenate(base), np.concatenate(straight)


def _chunks(tokens: Tensor) -> tuple[Tensor, ...]:
    return torch.arange(len(tokens)).split(CHUNK) if len(tokens) else ()


def _trimmed(hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and hidden states without the columns that are padding in every row."""
    longest = int((tokens >= 0).sum(dim=1).max())
    return tokens[:, :longest], hidden[:, : longest - 1]


def _spread(logs: Tensor, tokens: Tensor) -> Tensor:
    """(R, T) log probabilities (P,) at the tokens that are there."""
    return logs.new_zeros(tokens.shape).masked_scatter(tokens >= 0, logs)


def _total(logs: Tensor, tokens: Tensor) -> Array:
    return (logs.double() * (tokens >= 0)).sum(dim=1).cpu().numpy()


def _mean(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def report(results: Sequence[dict[str, Any]]) -> Table:
    """One column per look: what each student is worth, and what the gaps between them are."""
    table = Table("", show_edge=False, pad_edge=False)
    columns = [(result, look) for result in results for look in result["looks"]]
    for result, look in columns:
        table.add_column(f"{result['query'][:24]}\neta {result['eta']:g}, after {look['updates']}")
    for name in ("moved", "drift_per_response", "mismatch"):
        table.add_row(name + " [nats]", *(f"{look[name]:.3g}" for _, look in columns))
    for student in STUDENTS:
        for part in ("success", "kept", "beyond"):
            cells = (_cell(look[student][part]) for _, look in columns)
            table.add_row(f"{student}: {part}", *cells)
    table.add_row("forecast: success", *(f"{look['forecast']:.3f}" for _, look in columns))
    for gap in [key for key in columns[0][1] if " - " in key or key == "of it kept"]:
        table.add_row(gap, *(_cell(look[gap]) for _, look in columns))
    return table


def _cell(value: Sequence[float]) -> str:
    return f"{value[0]:+.3f} ±{value[1]:.3f}"
