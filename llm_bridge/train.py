"""Reinforcement fine-tuning of S replicas of one model beside one another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.adapters import Factors
from llm_bridge.optimiser import Ascent
from llm_bridge.rollouts import (
    Opening,
    Prompt,
    Rollouts,
    chosen,
    distributions,
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

Policy = Callable[[SplitModel, Prompt, Factors | None, Tensor, Tensor, int], Tensor]
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
    theta moves along  sum_it w_it grad log pi(y_it | x, y_i,<t)  by the rule's optimiser, plus the gradient of
    the exact entropy where the rule has that bonus; once per epoch, the log probabilities scored anew.

    Arguments:
        reward_of: verified reward of a response given as token ids.
        seed: draws of replica s in round t depend on (seed, s, t, rollout) alone.
        policy: gives the distributions that are differentiated; another than the network's own can only `retrace`.
    Errors: ValueError for a reward that is not finite, naming replica and round.
    Valid when: the first epoch of every round is on-policy; the reference of the rule's KL is the base model,
        or the policy it was at the last refresh.
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
        policy: Policy = distributions,
    ) -> None:
        self.split, self.rule, self.reward_of, self.policy = split, rule, reward_of, policy
        self.replicas, self.max_tokens, self.seed, self.chunk = replicas, max_tokens, seed, chunk
        self.end_tokens = tuple(end_tokens)
        self.prompt: Prompt = read_prompt(split, prompt_tokens)
        self.factors: Factors = split.adapters.fresh(replicas)
        self.parameters = split.adapters.trainable(self.factors)
        self.ascent = Ascent(rule.optimiser, self.parameters)
        self.reference: Factors | None = None  # the base model
        if rule.signal.helpers:
            raise ValueError(
                f"signal {rule.signal.kind} draws rollouts that are not trained on, which this trainer does not "
                "sample; simulate it, or choose a signal without extra or greedy rollouts"
            )
        # A memory per replica: torch.vmap maps over the first axis.
        self.rule_state = tuple(x.expand(replicas, *x.shape).clone() for x in rule.init(torch))
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
        self._refresh()
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
        batch = self._batch(rolled, rewards)
        # An interrupt inside the update leaves parameters that no whole number of rounds has.
        self.whole = False
        memory = self.rule_state
        for epoch in range(self.rule.epochs):
            if epoch:
                batch = batch._replace(logprobs=self._scores(rolled, self.factors))
            weights, memory = _each(self.rule.weights, batch, self.rule_state)
            bonus = _each(self.rule.entropy_weights, batch)
            self._update(rolled, weights.flatten(0, 1), bonus.flatten(0, 1))
        self.rule_state = memory
        done = Round(self.round, tokens, rewards, rolled.logprobs.sum(axis=1), time.perf_counter() - started)
        self.round += 1
        self.whole = True
        return done

    def retrace(self, responses: Sequence[Tokens], rewards: NDArray[np.float64]) -> None:
        """One round on given responses in place of fresh rollouts: the replicas of a record, trained again.

        Arguments: (S n) responses, replica-major, and their rewards.
        Errors: ValueError for a rule with a KL term, an entropy bonus or several epochs, whose weights need log
            probabilities that no record holds.
        """
        if self.rule.kl.kind != "none" or self.rule.entropy.kind != "none" or self.rule.epochs > 1:
            raise ValueError(
                f"rule.kl is {self.rule.kl.kind}, entropy {self.rule.entropy.kind}, epochs {self.rule.epochs}: the "
                "weights depend on log probabilities of every token, which a record of responses does not hold; "
                "retrace a run of a rule without these"
            )
        count = len(responses)
        tokens = np.full((count, self.max_tokens), -1, dtype=np.int64)
        for row, response in zip(tokens, responses, strict=True):
            row[: len(response)] = response
        lengths = (tokens >= 0).sum(axis=1)
        ended = np.isin(tokens[np.arange(count), lengths - 1], self.end_tokens)
        hidden = self.prompt.hidden.new_zeros(count, self.max_tokens - 1, self.prompt.hidden.shape[-1])
        rolled = Rollouts(tokens, np.zeros(tokens.shape), lengths, ended, hidden)
        batch = self._batch(rolled, rewards)
        weights, self.rule_state = _each(self.rule.weights, batch, self.rule_state)
        weights = weights.flatten(0, 1)
        # Only rollouts that have weight are read: most of a round's cost is the trunk.
        pulled = (weights != 0).any(dim=1).nonzero()[:, 0].to(hidden.device)
        given = torch.from_numpy(tokens).to(hidden.device)[pulled]
        hidden[pulled] = read_responses(self.split, self.prompt, given)
        self._update(rolled, weights, torch.zeros_like(weights))
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

    def _refresh(self) -> None:
        """Make the current policy the reference, every so many rounds where the rule's KL says so."""
        every = self.rule.kl.refresh
        if every is not None and self.round and self.round % every == 0:
            self.reference = {
                name: (down.detach().clone(), up.detach().clone())
                for name, (down, up) in self.factors.items()
            }

    def _batch(self, rolled: Rollouts, rewards: NDArray[np.float64]) -> Batch:
        """The round's batch with a leading axis of replicas: each replica is a batch of its own."""
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
        reference = self._scores(rolled, self.reference) if self.rule.kl.reads_reference else logs
        return Batch(logs, logs, reference, paid, groups, mask, role=torch.zeros_like(groups))

    @torch.no_grad()
    def _scores(self, rolled: Rollouts, factors: Factors | None) -> Tensor:
        """(S, n, T) log probabilities of the rollouts under these factors; padding holds anything."""
        n = self.rule.rollouts
        rows, device = torch.arange(self.replicas * n), self.prompt.hidden.device
        tokens = torch.from_numpy(rolled.tokens)
        parts = [
            score(
                self.split,
                self.prompt,
                factors,
                (part // n).to(device),
                rolled.hidden[part.to(device)],
                tokens[part].to(device),
            )
            for part in rows.split(self.chunk)
        ]
        return torch.cat(parts).double().cpu().reshape(self.replicas, n, -1)

    def _update(self, rolled: Rollouts, weights: Tensor, bonus: Tensor) -> None:
        """One step of the optimiser along sum w grad log pi + sum bonus grad H, from the rows that have any."""
        n = self.rule.rollouts
        pulled = ((weights != 0) | (bonus != 0)).any(dim=1).nonzero()[:, 0]
        self.ascent.clear()
        device = self.prompt.hidden.device
        for part in pulled.split(self.chunk) if len(pulled) else ():
            longest = int(rolled.lengths[part.numpy()].max())
            tokens = torch.from_numpy(rolled.tokens)[part, :longest].to(device)
            logs = self.policy(
                self.split,
                self.prompt,
                self.factors,
                (part // n).to(device),
                rolled.hidden[part.to(device)],
                longest,
            )
            gain = (weights[part, :longest].to(logs) * chosen(logs, tokens)).sum()
            if bonus.any():
                entropy = -(logs.exp() * logs).sum(dim=-1)
                gain = gain + (bonus[part, :longest].to(logs) * entropy).sum()
            gain.backward()
        self.ascent.step()
        moved = torch.arange(self.replicas) if self.rule.optimiser.remembers else (pulled // n).unique()
        self._stale[moved] = True

    def state(self) -> dict[str, Tensor]:
        """All that the next round depends on, as named tensors (for safetensors)."""
        tensors = {"round": torch.tensor(self.round)}
        tensors |= {f"rule.{i}": x.clone() for i, x in enumerate(self.rule_state)}
        tensors |= {f"factor.{i}": p.detach().clone() for i, p in enumerate(self.parameters)}
        tensors |= {f"optimiser.{name}": value for name, value in self.ascent.state().items()}
        if self.reference is not None:
            for name, (down, up) in self.reference.items():
                tensors |= {f"reference.down.{name}": down.clone(), f"reference.up.{name}": up.clone()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state()`, bit for bit."""
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"factor.{i}"])
        self.rule_state = tuple(tensors[f"rule.{i}"].clone() for i in range(len(self.rule_state)))
        self.ascent.load_state(_under("optimiser.", tensors))
        downs, ups = (_under(f"reference.{side}.", tensors) for side in ("down", "up"))
        self.reference = {name: (downs[name], ups[name]) for name in downs} or None
        self.round = int(tensors["round"])
        self._opening = None
        self._stale[:] = True


def _each(function: Callable[..., Any], batch: Batch, *rest: Any) -> Any:
    """The function of each replica's own batch, along the leading axis of the fields that are there."""
    fields = {name: value for name, value in batch._asdict().items() if value is not None}
    return torch.vmap(lambda own, *others: function(Batch(**own), *others))(fields, *rest)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
