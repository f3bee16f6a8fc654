"""Reinforcement fine-tuning of S replicas of one model beside one another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.adapters import Factors
from llm_bridge.optimiser import make_optimiser
from llm_bridge.rollouts import (
    Opening,
    Prompt,
    Rollouts,
    open_prompt,
    read_prompt,
    read_responses,
    sample,
    score,
    uniforms,
)
from llm_bridge.split import SplitModel
from theory.prefix_tree import Tokens
from theory.rules.batch import Batch
from theory.rules.rule import Rule

Scorer = Callable[[SplitModel, Prompt, Factors, Tensor, Tensor, Tensor], Tensor]
"""Log probabilities of given responses: the network's (`rollouts.score`) or the linearised network's."""


@dataclass(frozen=True)
class Round:
    """What one round did: S replicas, n rollouts each (replica-major rows)."""

    number: int
    tokens: list[Tokens]
    rewards: NDArray[np.float64]
    logprob: NDArray[np.float64]
    seconds: float


class Trainer:
    """S independent runs of one query in one batch: a shared frozen trunk, adapters of their own.

    Each round, per replica: n rollouts at temperature 1, verified; w = rule(rewards, log probabilities);
    theta moves along  sum_it w_it grad log pi(y_it | x, y_i,<t)  by the rule's optimiser.

    Arguments:
        reward_of: verified reward of a response given as token ids.
        seed: draws of replica s in round t depend on (seed, s, t, rollout) alone.
        scorer: whose log probabilities are differentiated; another one than the network's own can only `retrace`.
    Errors: ValueError for a reward that is not finite, naming replica and round.
    Valid when: the model is on-policy in every round (one update per round).
    """

    def __init__(
        self,
        split: SplitModel,
        prompt_tokens: Tensor,
        reward_of: Callable[[Tokens], float],
        rule: Rule,
        *,
        replicas: int,
        max_tokens: int,
        end_tokens: Sequence[int],
        seed: int = 0,
        chunk: int = 16,
        scorer: Scorer = score,
    ) -> None:
        self.split, self.rule, self.reward_of, self.scorer = split, rule, reward_of, scorer
        self.replicas, self.max_tokens, self.seed, self.chunk = replicas, max_tokens, seed, chunk
        self.end_tokens = tuple(end_tokens)
        self.prompt: Prompt = read_prompt(split, prompt_tokens)
        self.factors: Factors = split.adapters.fresh(replicas)
        self.parameters = split.adapters.trainable(self.factors)
        self.optimiser = make_optimiser(rule.optimiser, self.parameters)
        self.rule_state = rule.init(torch)
        self.round = 0
        self.whole = True
        self._opening: Opening | None = None
        self._stale = torch.ones(replicas, dtype=torch.bool)

    def run(self, rounds: int) -> Iterator[Round]:
        """Rounds up to number `rounds`, one at a time."""
        while self.round < rounds:
            yield self.step()

    def step(self) -> Round:
        """One round of every replica."""
        started = time.perf_counter()
        n = self.rule.rollouts
        rows = torch.arange(self.replicas).repeat_interleave(n)
        draws = np.stack([
            uniforms(self.seed, s, self.round, 0, i, self.max_tokens)
            for s in range(self.replicas)
            for i in range(n)
        ])  # fmt: skip
        rolled = sample(self.split, self.prompt, self._open(), self.factors, rows, draws, self.end_tokens)
        tokens = [
            tuple(int(x) for x in row[:length])
            for row, length in zip(rolled.tokens, rolled.lengths, strict=True)
        ]
        rewards = np.array([self.reward_of(t) for t in tokens])
        weights = self._weights(rolled, rewards)
        # An interrupt inside the update leaves parameters that no whole number of rounds has.
        self.whole = False
        self._update(rolled, weights)
        done = Round(self.round, tokens, rewards, rolled.logprobs.sum(axis=1), time.perf_counter() - started)
        self.round += 1
        self.whole = True
        return done

    def retrace(self, responses: Sequence[Tokens], rewards: NDArray[np.float64]) -> None:
        """One round on given responses in place of fresh rollouts: the replicas of a record, trained again.

        Arguments: (S n) responses, replica-major, and their rewards.
        Errors: ValueError for a rule with a KL term, whose weights need log probabilities no record holds.
        """
        if self.rule.kl.kind != "none":
            raise ValueError(
                f"rule.kl is {self.rule.kl.kind}: its weights depend on log probabilities of every token, which "
                "a record of responses does not hold; retrace a run of a rule without KL"
            )
        count = len(responses)
        tokens = np.full((count, self.max_tokens), -1, dtype=np.int64)
        for row, response in zip(tokens, responses, strict=True):
            row[: len(response)] = response
        lengths = (tokens >= 0).sum(axis=1)
        ended = np.isin(tokens[np.arange(count), lengths - 1], self.end_tokens)
        hidden = self.prompt.hidden.new_zeros(count, self.max_tokens - 1, self.prompt.hidden.shape[-1])
        rolled = Rollouts(tokens, np.zeros(tokens.shape), lengths, ended, hidden)
        weights = self._weights(rolled, rewards)
        # Only rollouts that have weight are read: most of a round's cost is the trunk.
        pulled = (weights != 0).any(dim=1).nonzero()[:, 0].to(hidden.device)
        given = torch.from_numpy(tokens).to(hidden.device)[pulled]
        hidden[pulled] = read_responses(self.split, self.prompt, given)
        self._update(rolled, weights)
        self.round += 1

    def _open(self) -> Opening:
        """The prompt through each replica's head; only replicas that moved are read again."""
        moved = self._stale.nonzero()[:, 0]
        if self._opening is None:
            self._opening = open_prompt(self.split, self.prompt, self.factors, moved)
        elif len(moved):
            new = open_prompt(self.split, self.prompt, self.factors, moved)
            for (k, v), (nk, nv) in zip(self._opening.past, new.past, strict=True):
                k[moved], v[moved] = nk, nv
            self._opening.logits[moved] = new.logits
        self._stale[:] = False
        return self._opening

    def _weights(self, rolled: Rollouts, rewards: NDArray[np.float64]) -> Tensor:
        """(S n, T) weights: each replica is a batch of its own."""
        split = (self.replicas, self.rule.rollouts, -1)
        logs, mask = (torch.from_numpy(x).reshape(split) for x in (rolled.logprobs, rolled.mask))
        paid = torch.from_numpy(rewards).reshape(split[:2])
        groups = torch.zeros(split[:2], dtype=torch.long)
        if not np.isfinite(rewards).all():
            row = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise ValueError(
                f"reward {rewards[row]} of replica {row // self.rule.rollouts} in round {self.round + 1} is not "
                "finite; make the verifier pay 0 or 1, or return None where it cannot tell"
            )
        batch = Batch(logs, logs, logs, paid, groups, mask)
        weights, self.rule_state = torch.vmap(self.rule.weights)(batch, self.rule_state)
        return weights.flatten(0, 1)

    def _update(self, rolled: Rollouts, weights: Tensor) -> None:
        """One step of the optimiser along sum w grad log pi, from the rows that have weight."""
        n = self.rule.rollouts
        pulled = (weights != 0).any(dim=1).nonzero()[:, 0]
        self.optimiser.zero_grad(set_to_none=False)
        device = self.prompt.hidden.device
        for part in pulled.split(self.chunk) if len(pulled) else ():
            longest = int(rolled.lengths[part.numpy()].max())
            tokens = torch.from_numpy(rolled.tokens)[part, :longest].to(device)
            logs = self.scorer(
                self.split,
                self.prompt,
                self.factors,
                (part // n).to(device),
                rolled.hidden[part.to(device)],
                tokens,
            )
            (weights[part, :longest].to(logs) * logs).sum().backward()
        if len(pulled) or self.rule.optimiser.kind != "sgd":
            self.optimiser.step()
            moved = (
                (pulled // n).unique() if self.rule.optimiser.kind == "sgd" else torch.arange(self.replicas)
            )
            self._stale[moved] = True

    def state(self) -> dict[str, Tensor]:
        """All that the next round depends on, as named tensors (for safetensors)."""
        tensors = {"round": torch.tensor(self.round)}
        for i, parameter in enumerate(self.parameters):
            tensors[f"factor.{i}"] = parameter.detach().clone()
            for name, value in self.optimiser.state.get(parameter, {}).items():
                if torch.is_tensor(value):
                    tensors[f"optimiser.{i}.{name}"] = value.clone()
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state()`, bit for bit."""
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"factor.{i}"])
                kept = {
                    name.split(".")[2]: value
                    for name, value in tensors.items()
                    if name.startswith(f"optimiser.{i}.")
                }
                if kept:
                    self.optimiser.state[parameter] = kept
        self.round = int(tensors["round"])
        self._opening = None
        self._stale[:] = True
