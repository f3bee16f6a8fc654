"""Reinforcement fine-tuning of S replicas of one model beside one another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.network.adapters import Factors
from llm_bridge.network.optimiser import Ascent
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.asked import Asked, Question
from llm_bridge.rollouts.draws import Draws, numbers
from llm_bridge.rollouts.rollouts import (
    Prompt,
    Rollouts,
    chosen,
    read_responses,
    response_logits,
    score,
)
from theory.pay import Clean, PaySpec
from theory.refusal import Refusal
from theory.rules.batch import GREEDY, SAMPLED, Batch
from theory.rules.rule import Rule
from theory.trees.prefix_tree import Tokens

Policy = Callable[[SplitModel, Prompt, Factors | None, Tensor, Tensor, Tensor], Tensor]
"""Logits before the tokens of given responses: the network's (`rollouts.response_logits`) or its linearisation's."""


@dataclass(frozen=True)
class Round:
    """What one round did, in rows: replica by replica, its batch's queries in order, n rollouts each.

    Arguments:
        replica, query: (R,) whose rollout the row is, and the index of the training query that it answers.
    """

    number: int
    replica: NDArray[np.int64]
    query: NDArray[np.int64]
    tokens: list[Tokens]
    rewards: NDArray[np.float64]
    logprob: NDArray[np.float64]
    seconds: float


class Trainer:
    """S independent runs beside one another: a shared frozen trunk, adapters of their own.

    Each round, per replica: a batch of B of the Q queries, n rollouts each at temperature 1, verified;
    w = rule(rewards, log probabilities, the query as group); theta moves along
    sum_it w_it grad log pi(y_it | x_i, y_i,<t)  by the rule's optimiser, plus the gradient of the exact entropy
    where the rule has that bonus; once per epoch, the log probabilities scored anew.

    Arguments:
        questions: the Q training queries.
        batch: B, drawn uniformly without replacement by each replica for itself; all Q where not given.
        held_out: queries that are never trained on; `evaluate` samples them.
        seed: draws of replica s in round t depend on (seed, s, t, query, rollout) alone.
        chunk: rows that are differentiated at once (the micro-batch); gradients add up, the step does not change.
        pay: what a verified reward is paid; the reward itself where not given. Held-out rollouts are not paid.
        recompute: run each adapted block again in the backward pass, which then keeps one tensor per block.
        policy: gives the logits that are differentiated; another than the network's own can only `retrace`.
    Helpers of the rule's signal (extra and greedy rollouts) are sampled and paid like the others; they get no weight,
    and a `Round` does not show them.

    Errors: Refusal for a batch that the queries cannot fill, and a reward that is not finite, naming replica and
        round.
    Valid when: the first epoch of every round is on-policy; the reference of the rule's KL is the base model,
        or the policy it was at the last refresh.
    """

    def __init__(
        self,
        split: SplitModel,
        questions: Sequence[Question],
        rule: Rule,
        *,
        replicas: int,
        max_tokens: int,
        batch: int | None = None,
        held_out: Sequence[Question] = (),
        seed: int = 0,
        pay: PaySpec | None = None,
        chunk: int = 16,
        recompute: bool = False,
        policy: Policy = response_logits,
    ) -> None:
        self.recompute = recompute
        self.batch = len(questions) if batch is None else batch
        if not 1 <= self.batch <= len(questions):
            raise Refusal(f"batch = {batch} of {len(questions)} training queries; give 1 to all of them")
        self.split, self.rule, self.policy = split, rule, policy
        self.replicas, self.max_tokens, self.chunk = replicas, max_tokens, chunk
        self.asked = [Asked(split, question, replicas) for question in (*questions, *held_out)]
        self.training = len(questions)
        self.draws = Draws(self.asked, self.training, replicas, self.batch, max_tokens, seed, pay or Clean())
        self.factors: Factors = split.adapters.fresh(replicas)
        self.parameters = split.adapters.trainable(self.factors)
        self.ascent = Ascent(rule.optimiser, self.parameters)
        self.reference: Factors | None = None  # the base model
        # A memory per replica: torch.vmap maps over the first axis.
        memory = rule.init(torch, self.training)
        self.rule_state = tuple(x.expand(replicas, *x.shape).clone() for x in memory)
        self.round = 0
        self.whole = True

    @property
    def rows_each(self) -> int:
        """Rows of one replica in a round: B (n + helpers)."""
        return self.batch * self.rule.drawn

    def run(self, rounds: int) -> Iterator[Round]:
        """Rounds up to number `rounds`, one at a time."""
        while self.round < rounds:
            yield self.step()

    def step(self) -> Round:
        """One round of every replica."""
        started = time.perf_counter()
        self._refresh()
        query = self.draws.queries(self.round).repeat(self.rule.drawn)
        role = np.tile(self.rule.roles, self.replicas * self.batch)
        number = np.tile(numbers(self.rule), self.replicas * self.batch)
        rolled = self.draws.rollouts(self.factors, self.round, query, number, role == GREEDY)
        tokens = _responses(rolled)
        verified = self.draws.rewards(query, tokens)
        rewards = self.draws.paid(self.round, query, number, rolled.lengths, verified)
        batch = self._batch(rolled, query, rewards)
        # An interrupt inside the update leaves parameters that no whole number of rounds has.
        self.whole = False
        memory = self.rule_state
        for epoch in range(self.rule.epochs):
            if epoch:
                batch = batch._replace(logprobs=self._scores(rolled, query, self.factors))
            weights, memory = _each(self.rule.weights, batch, self.rule_state)
            bonus = _each(self.rule.entropy_weights, batch)
            self._update(rolled, query, weights.flatten(0, 1), bonus.flatten(0, 1))
        self.rule_state = memory
        logprob = rolled.logprobs.sum(axis=1)
        replica = np.arange(self.replicas).repeat(self.rows_each)
        seconds = time.perf_counter() - started
        own = role == SAMPLED
        shown = [y for y, kept in zip(tokens, own, strict=True) if kept]
        done = Round(self.round, replica[own], query[own], shown, rewards[own], logprob[own], seconds)
        self.round += 1
        self.whole = True
        return done

    def evaluate(self, rollouts: int) -> NDArray[np.float64]:
        """(S, H, rollouts) rewards of fresh rollouts of the held-out queries, as the replicas are now.

        Nothing that a later round depends on changes. Errors: Refusal where there is no held-out query.
        """
        held = range(self.training, len(self.asked))
        if not held:
            raise Refusal("there is no held-out query to evaluate; give Trainer some with held_out=")
        _, rewards = self.respond(held, rollouts)
        return rewards.reshape(self.replicas, len(held), rollouts)

    def respond(self, questions: Sequence[int], rollouts: int) -> tuple[list[Tokens], NDArray[np.float64]]:
        """Fresh rollouts of these of the queries, held-out ones counted after those trained on: responses and rewards,
        replica by replica, query by query. Nothing that a later round depends on changes.

        Of a query that is trained on they are the draws of the next round.
        """
        query = np.tile(np.repeat(questions, rollouts), self.replicas)
        number = np.tile(np.arange(rollouts), self.replicas * len(questions))
        tokens = _responses(self.draws.rollouts(self.factors, self.round, query, number))
        return tokens, self.draws.rewards(query, tokens)

    def retrace(
        self,
        responses: Sequence[Tokens],
        rewards: NDArray[np.float64],
        query: NDArray[np.int64] | None = None,
    ) -> None:
        """One round on given responses in place of fresh rollouts: the replicas of a record, trained again.

        Arguments: (S B n) responses, replica-major, what they were paid, and the training query that each answers,
            which may be left out where the batch is all of them.
        Errors: Refusal for a batch that is not all the queries without `query`, and for a rule with a KL term, an
            entropy bonus, several epochs or helper rollouts, whose weights need what no record holds.
        """
        if self.rule.signal.helpers:
            raise Refusal(
                f"signal {self.rule.signal.kind} draws rollouts that are not trained on, which a record does not hold; "
                "retrace a run of a rule without extra or greedy rollouts"
            )
        if self.rule.kl.kind != "none" or self.rule.entropy.kind != "none" or self.rule.epochs > 1:
            raise Refusal(
                f"rule.kl is {self.rule.kl.kind}, entropy {self.rule.entropy.kind}, epochs {self.rule.epochs}: the "
                "weights depend on log probabilities of every token, which a record of responses does not hold; "
                "retrace a run of a rule without these"
            )
        if query is None:
            if self.batch < self.training:
                raise Refusal(
                    f"batch = {self.batch} of {self.training} queries: responses alone do not say which were asked; "
                    "give the query of each"
                )
            query = self.draws.queries(self.round).repeat(self.rule.rollouts)
        count = len(responses)
        tokens = np.full((count, self.max_tokens), -1, dtype=np.int64)
        for row, response in zip(tokens, responses, strict=True):
            row[: len(response)] = response
        lengths = (tokens >= 0).sum(axis=1)
        prompt = self.asked[0].prompt
        hidden = prompt.hidden.new_zeros(count, self.max_tokens - 1, prompt.hidden.shape[-1])
        # Whether a response was closed or cut is read by nobody here.
        rolled = Rollouts(tokens, np.zeros(tokens.shape), lengths, np.ones(count, dtype=bool), hidden)
        batch = self._batch(rolled, query, rewards)
        weights, self.rule_state = _each(self.rule.weights, batch, self.rule_state)
        weights = weights.flatten(0, 1)
        # Only rollouts that have weight are read: most of a round's cost is the trunk.
        for asked, part in self._parts((weights != 0).any(dim=1), query, whole=True):
            part = part.to(hidden.device)
            given = torch.from_numpy(tokens).to(hidden.device)[part]
            hidden[part] = read_responses(self.split, asked.prompt, given)
        self._update(rolled, query, weights, torch.zeros_like(weights))
        self.round += 1

    def _parts(
        self, wanted: Tensor, query: NDArray[np.int64], *, whole: bool = False
    ) -> Iterator[tuple[Asked, Tensor]]:
        """The wanted rows (a mask), query by query, in chunks unless `whole`."""
        for q in np.unique(query):
            rows = (wanted & torch.from_numpy(query == q)).nonzero()[:, 0]
            if len(rows):
                for part in (rows,) if whole else rows.split(self.chunk):
                    yield self.asked[q], part

    def _refresh(self) -> None:
        """Make the current policy the reference, every so many rounds where the rule's KL says so."""
        every = self.rule.kl.refresh
        if every is not None and self.round and self.round % every == 0:
            self.reference = {
                name: tuple(x.detach().clone() for x in pair) for name, pair in self.factors.items()
            }

    def _batch(self, rolled: Rollouts, query: NDArray[np.int64], rewards: NDArray[np.float64]) -> Batch:
        """The round's batch with a leading axis of replicas: each replica is a batch of its own."""
        shape = (self.replicas, self.rows_each, -1)
        logs, mask = (torch.from_numpy(x).reshape(shape) for x in (rolled.logprobs, rolled.mask))
        paid = torch.from_numpy(rewards).reshape(shape[:2])
        groups = torch.from_numpy(query).reshape(shape[:2])
        if not np.isfinite(rewards).all():
            row = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise Refusal(
                f"reward {rewards[row]} of replica {row // self.rows_each} in round {self.round + 1} is not "
                "finite; make the verifier return 0 or 1, or None where it cannot tell"
            )
        reference = self._scores(rolled, query, self.reference) if self.rule.kl.reads_reference else logs
        role = torch.tensor(self.rule.roles).repeat(self.replicas, self.batch)
        return Batch(logs, logs, reference, paid, groups, mask, role)

    @torch.no_grad()
    def _scores(self, rolled: Rollouts, query: NDArray[np.int64], factors: Factors | None) -> Tensor:
        """(S, B n, T) log probabilities of the rollouts under these factors; padding holds anything."""
        tokens = torch.from_numpy(rolled.tokens)
        scores = torch.zeros(tokens.shape, dtype=torch.float64)
        device = rolled.hidden.device
        for asked, part in self._parts(torch.ones(len(query), dtype=torch.bool), query):
            logs = score(
                self.split,
                asked.prompt,
                factors,
                (part // self.rows_each).to(device),
                rolled.hidden[part.to(device)],
                tokens[part].to(device),
            )
            scores[part] = logs.double().cpu()
        return scores.reshape(self.replicas, self.rows_each, -1)

    def _update(self, rolled: Rollouts, query: NDArray[np.int64], weights: Tensor, bonus: Tensor) -> None:
        """One step of the optimiser along sum w grad log pi + sum bonus grad H, from the rows that have any."""
        pulled = ((weights != 0) | (bonus != 0)).any(dim=1)
        self.ascent.clear()
        device = rolled.hidden.device
        for asked, part in self._parts(pulled, query):
            longest = int(rolled.lengths[part.numpy()].max())
            tokens = torch.from_numpy(rolled.tokens)[part, :longest].to(device)
            rows = (part // self.rows_each).to(device)
            there = tokens >= 0
            with self.split.head.recomputing() if self.recompute else nullcontext():
                logits = self.policy(
                    self.split, asked.prompt, self.factors, rows, rolled.hidden[part.to(device)], tokens
                )
                gain = (weights[part, :longest].to(logits)[there] * chosen(logits, tokens[there])).sum()
                if bonus.any():
                    logs = torch.log_softmax(logits, dim=-1)
                    entropy = -(logs.exp() * logs).sum(dim=-1)
                    gain = gain + (bonus[part, :longest].to(logits)[there] * entropy).sum()
                # Blocks that run again need the adapters that they ran with.
                with self.split.adapters.use(self.factors, rows) if self.recompute else nullcontext():
                    gain.backward()
        self.ascent.step()
        moved = (pulled.nonzero()[:, 0] // self.rows_each).unique()
        self._moved(torch.arange(self.replicas) if self.rule.optimiser.remembers else moved)

    def _moved(self, replicas: Tensor) -> None:
        for asked in self.asked:
            asked.moved(replicas)

    def state(self) -> dict[str, Tensor]:
        """All that the next round depends on, as named tensors (for safetensors)."""
        tensors = {"round": torch.tensor(self.round)}
        tensors |= {f"rule.{i}": x.clone() for i, x in enumerate(self.rule_state)}
        tensors |= {f"factor.{i}": p.detach().clone() for i, p in enumerate(self.parameters)}
        tensors |= {f"optimiser.{name}": value for name, value in self.ascent.state().items()}
        if self.reference is not None:
            for name, pair in self.reference.items():
                sides = zip(self.split.adapters.parts, pair, strict=True)
                tensors |= {f"reference.{side}.{name}": x.clone() for side, x in sides}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state()`, bit for bit."""
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"factor.{i}"])
        self.rule_state = tuple(tensors[f"rule.{i}"].clone() for i in range(len(self.rule_state)))
        self.ascent.load_state(_under("optimiser.", tensors))
        sides = [_under(f"reference.{side}.", tensors) for side in self.split.adapters.parts]
        self.reference = {name: tuple(side[name] for side in sides) for name in sides[0]} or None
        self.round = int(tensors["round"])
        self._moved(torch.arange(self.replicas))


def _responses(rolled: Rollouts) -> list[Tokens]:
    return [
        tuple(int(x) for x in row[:length])
        for row, length in zip(rolled.tokens, rolled.lengths, strict=True)
    ]  # fmt: skip


def _each(function: Callable[..., Any], batch: Batch, *rest: Any) -> Any:
    """The function of each replica's own batch, along the leading axis of the fields that are there."""
    fields = {name: value for name, value in batch._asdict().items() if value is not None}
    return torch.vmap(lambda own, *others: function(Batch(**own), *others))(fields, *rest)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
