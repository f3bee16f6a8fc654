"""The students of `experiments.compare.explain`, trained again on a run's record, and how often each is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bandit_sim import TreeArms, replay
from experiments.folder.observed import Observed
from experiments.forecast.forecast import leaves_of
from experiments.run.stages import Run
from llm_bridge.network.linear import linear_logits, linear_response_logits
from llm_bridge.probe.masses import chunks, logprobs, masses, total, trimmed
from llm_bridge.rollouts.rollouts import (
    chosen,
    open_prompt,
    padded,
    read_responses,
    response_logits,
    sample,
    uniforms,
)
from llm_bridge.train import Trainer
from theory.trees.prefix_tree import Tokens
from theory.trees.probe import Probe

Array = NDArray[np.float64]
EXPLAIN_STREAM = 2**62
"""First replica number of the fresh rollouts: neither a training replica nor the probe has it."""
STUDENTS = ("network", "linear", "tree")


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
    kept: dict[str, Array] = {"tree": tree[0]}
    prompt = network.asked[0].prompt
    kept["network"] = masses(run.split, prompt, network.factors, replicas, leaves).sum(axis=1)
    tokens = padded(leaves)
    hidden = read_responses(run.split, prompt, tokens)
    which = torch.arange(len(leaves)).repeat(replicas)
    rows = torch.arange(replicas).repeat_interleave(len(leaves))
    logs = _linear_logs(linear, rows, hidden[which], tokens[which])[1]
    kept["linear"] = np.exp(logs).reshape(replicas, -1).sum(axis=1)
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
    logs = logprobs(network.split, network.asked[0].prompt, network.factors, rows, hidden, tokens)
    return float(np.abs(logs - observed.logprobs[:, updates].reshape(-1)).max())


@torch.no_grad()
def _linear_logs(student: Trainer, rows: Tensor, hidden: Tensor, tokens: Tensor) -> tuple[Array, Array]:
    """(R,) twice: log probabilities of responses (R, T) under the base model and the linearised network."""
    parts: list[tuple[Array, Array]] = [(np.zeros(0), np.zeros(0))]
    for at in chunks(tokens):
        mine, states = trimmed(hidden[at], tokens[at])
        base, change = linear_logits(
            student.split, student.asked[0].prompt, student.factors, rows[at], states
        )
        both = (
            total(_spread(chosen(logits[mine >= 0], mine[mine >= 0]), mine), mine)
            for logits in (base, base + change)
        )
        parts.append(tuple(both))  # pyright: ignore[reportArgumentType]
    base, straight = zip(*parts, strict=True)
    return np.concatenate(base), np.concatenate(straight)


def _spread(logs: Tensor, tokens: Tensor) -> Tensor:
    """(R, T) log probabilities (P,) at the tokens that are there."""
    return logs.new_zeros(tokens.shape).masked_scatter(tokens >= 0, logs)
