"""The students of `experiments.compare.explain`, trained again on a run's record, and how often each is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bandit_sim import replay
from experiments.folder.observed import Observed
from experiments.forecast.bandits import Drawn, leaves_of
from experiments.forecast.network import Network
from experiments.forecast.relinearise import arms_of
from llm_bridge.network.linear import linear_logits, linear_response_logits
from llm_bridge.probe.masses import chunks, logprobs, total, trimmed
from llm_bridge.rollouts.rollouts import (
    Prompt,
    chosen,
    open_prompt,
    padded,
    read_responses,
    sample,
    uniforms,
)
from llm_bridge.train import Trainer
from theory.trees.joint_probe import JointProbe

Array = NDArray[np.float64]
EXPLAIN_STREAM = 2**62
"""First replica number of the fresh rollouts: neither a training replica nor the probe has it."""
STUDENTS = ("network", "linear", "tree")


@dataclass(frozen=True)
class Snapshot:
    """The students after `updates` updates, replica by replica; masses are means over the queries trained on.

    Arguments:
        kept: student -> (S,) exact mass of the correct responses that are leaves of the probe's trees.
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


@dataclass(frozen=True)
class Students:
    """The network and its linearisation on a run's record.

    Arguments:
        subject: the network of the run, with its queries.
        probe: of the base model.
        observed: the record.
        rollouts: fresh ones per replica and look, of all queries together.
        seed: of the fresh rollouts.
    """

    subject: Network
    probe: JointProbe
    observed: Observed
    network: Trainer
    linear: Trainer
    rollouts: int
    seed: int

    @property
    def training(self) -> range:
        return range(len(self.subject.spec.queries))

    def learn(self, t: int) -> None:
        """The record's round t."""
        responses = [y for replica in self.observed.tokens for y in replica[t]]
        rewards, query = self.observed.rewards[:, t].reshape(-1), self.observed.query[:, t].reshape(-1)
        for student in (self.network, self.linear):
            student.retrace(responses, rewards, query)

    def look(self, updates: int, tree: tuple[Array, Array]) -> Snapshot:
        """Both as they are now; `tree` is what the tree kernel has, kept and beyond, (S,) each."""
        kept = {
            "network": self.subject.kept(self.probe, self.network.factors, self.network.replicas).mean(
                axis=1
            ),
            "linear": np.mean([self._linear_kept(q) for q in self.training], axis=0),
            "tree": tree[0],
        }
        # What lies beyond the kept leaves: fresh rollouts of the network, weighted for the linearised one.
        fresh = [self._fresh(q, updates) for q in self.training]
        paid, outside, real, base, straight = (np.stack(part, axis=1) for part in zip(*fresh, strict=True))
        right = paid > 0
        ratio = np.where(right, np.exp(straight - real), 0.0)
        beyond = {
            "network": (paid * outside).mean(axis=(1, 2)),
            "linear": (paid * outside * ratio).mean(axis=(1, 2)),
            "tree": tree[1],
        }
        return Snapshot(
            updates,
            kept,
            beyond,
            moved=float(np.mean((real - base)[right])) if right.any() else 0.0,
            drift=float(np.mean(np.abs(real - straight)[right])) if right.any() else 0.0,
            mismatch=self._mismatch(updates),
        )

    def _linear_kept(self, q: int) -> Array:
        """(S,) mass that the linearised replicas give the kept correct responses of a query."""
        leaves, replicas = self.probe.probes[q].kept, self.linear.replicas
        if not leaves:
            return np.zeros(replicas)
        prompt, tokens = self.subject.prompts[q], padded(leaves)
        hidden = read_responses(self.subject.split, prompt, tokens)
        which = torch.arange(len(leaves)).repeat(replicas)
        rows = torch.arange(replicas).repeat_interleave(len(leaves))
        logs = _linear_logs(self.linear, prompt, rows, hidden[which], tokens[which])[1]
        return np.exp(logs).reshape(replicas, -1).sum(axis=1)

    def _fresh(self, q: int, updates: int) -> tuple[Array, ...]:
        """Fresh rollouts of a query, five times (S, rollouts): reward; whether off the kept leaves; and log
        probability under the network and, for correct ones, the base model and the linearised network."""
        network, prompt, question = self.network, self.subject.prompts[q], self.subject.questions[q]
        known, split = set(self.probe.probes[q].kept), self.subject.split
        each = max(1, self.rollouts // len(self.training))
        parts: list[list[Array]] = []
        for replica in range(network.replicas):
            rows = torch.full((each,), replica)
            draws = np.stack([
                uniforms(self.seed, EXPLAIN_STREAM + replica, updates, q, i, network.max_tokens)
                for i in range(each)
            ])  # fmt: skip
            # One replica at a time: the vocabulary times the rollouts of all replicas would not fit in memory.
            own = {name: (down[rows[:1]], up[rows[:1]]) for name, (down, up) in network.factors.items()}
            opening = open_prompt(split, prompt, own, torch.zeros(1, dtype=torch.long))
            rolled = sample(split, prompt, opening, own, torch.zeros_like(rows), draws, [question.end_tokens])
            responses = [
                tuple(int(x) for x in y[:n]) for y, n in zip(rolled.tokens, rolled.lengths, strict=True)
            ]
            paid = np.array([question.reward_of(y) for y in responses])
            outside = np.array([float(y not in known) for y in responses])
            right = torch.from_numpy(np.flatnonzero(paid))
            logs = np.zeros((2, each))
            given = torch.from_numpy(rolled.tokens)[right]
            logs[:, right.numpy()] = _linear_logs(
                self.linear, prompt, rows[right], rolled.hidden[right], given
            )
            parts.append([paid, outside, rolled.logprobs.sum(axis=1), *logs])
            self.subject.progress("rollouts", replica + 1, network.replicas)
        return tuple(np.stack(part) for part in zip(*parts, strict=True))

    def _mismatch(self, updates: int) -> float:
        """Nats between the log probabilities of the record's next round and those of the retraced network."""
        network, observed = self.network, self.observed
        responses = [y for replica in observed.tokens for y in replica[updates]]
        query, logged = (x[:, updates].reshape(-1) for x in (observed.query, observed.logprobs))
        replica = np.arange(network.replicas).repeat(len(responses) // network.replicas)
        worst = 0.0
        for q in np.unique(query):
            at = np.flatnonzero(query == q)
            prompt, tokens = self.subject.prompts[q], padded([responses[i] for i in at])
            hidden = read_responses(network.split, prompt, tokens)
            rows = torch.from_numpy(replica[at])
            logs = logprobs(network.split, prompt, network.factors, rows, hidden, tokens)
            worst = max(worst, float(np.abs(logs - logged[at]).max()))
        return worst


def retrace(
    subject: Network, probe: JointProbe, observed: Observed, looks: Sequence[int], rollouts: int, seed: int
) -> list[Snapshot]:
    """Train the students on the record and look at them; the tree's numbers are exact."""
    kept, beyond = tree_masses(subject, probe, observed)
    replicas = len(observed.tokens)
    network, linear = subject.student(replicas), subject.student(replicas, linear_response_logits)
    students = Students(subject, probe, observed, network, linear, rollouts, seed)
    snapshots: list[Snapshot] = []
    subject.progress("retrace", 0, looks[-1] + 1)
    for t in range(looks[-1] + 1):
        if t in looks:
            snapshots.append(students.look(t, (kept[:, t], beyond[:, t])))
        students.learn(t)
        subject.progress("retrace", t + 1, looks[-1] + 1)
    return snapshots


def tree_masses(subject: Network, probe: JointProbe, observed: Observed) -> tuple[Array, Array]:
    """(S, T) twice: what the tree kernel holds before each round on kept correct leaves, and beyond them."""
    drawn = Drawn.of(probe)
    arms, leaves = arms_of(subject.spec, drawn), leaves_of(probe, drawn, observed)
    on_kept = np.zeros_like(np.asarray(arms.reward))
    starts = np.cumsum([0, *(len(tree.reward) for tree in drawn.trees)])
    for own, start in zip(probe.probes, starts, strict=False):
        on_kept[[start + own.leaf_of(y, 1.0) for y in own.kept]] = 1
    return tuple(  # pyright: ignore[reportReturnType]
        replay(replace(arms, reward=paid), subject.spec.rule, leaves, observed.rewards)
        for paid in (on_kept, arms.reward - on_kept)
    )


@torch.no_grad()
def _linear_logs(
    student: Trainer, prompt: Prompt, rows: Tensor, hidden: Tensor, tokens: Tensor
) -> tuple[Array, Array]:
    """(R,) twice: log probabilities of responses (R, T) under the base model and the linearised network."""
    parts: list[tuple[Array, Array]] = [(np.zeros(0), np.zeros(0))]
    for at in chunks(tokens):
        mine, states = trimmed(hidden[at], tokens[at])
        base, change = linear_logits(student.split, prompt, student.factors, rows[at], states)
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
