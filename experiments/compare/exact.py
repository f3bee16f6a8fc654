"""Exact quantities of a model small enough to enumerate: the judge of every approximation in the forecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.models.language_model import LanguageModel
from llm_bridge.network.adapters import Factors
from llm_bridge.network.plain import open_model
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.network.split import SplitModel, repeat
from llm_bridge.probe.enumerate import enumerate_responses
from llm_bridge.probe.scores import atom_scores, gram
from llm_bridge.rollouts.rollouts import Prompt, read_prompt, score
from theory.trees.prefix_tree import Responses, Tokens, grow
from theory.trees.probe import Probe
from theory.trees.probe_record import ProbeRecord

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Enumerated:
    """Every response of one query, with the model it belongs to.

    Valid when: vocabulary ** max_tokens is some thousands (tiny-arithmetic with 3 tokens: 2,381 responses).
    """

    split: SplitModel
    prompt: Prompt
    responses: Responses
    vocabulary: int
    hidden: Tensor
    tokens: Tensor

    def success(self, factors: Factors | None = None) -> float:
        """p = sum over all correct responses of pi(y), exactly, at the given factors of one replica."""
        right = torch.from_numpy(self.responses.rewards > 0)
        with torch.no_grad():
            logs = self.logprobs(factors or self.split.adapters.fresh(1), right.nonzero()[:, 0])
        return float(logs.exp().sum())

    def logprobs(self, factors: Factors, which: Tensor) -> Tensor:
        """(len(which),) differentiable log probability of whole responses, replica 0 of `factors`."""
        tokens = self.tokens[which]
        rows = torch.zeros(len(which), dtype=torch.long)
        logs = score(self.split, self.prompt, factors, rows, self.hidden[which], tokens)
        return (logs * (tokens >= 0)).sum(dim=1)

    def after(self, response: int, eta: float) -> float:
        """p after one pull of a response with weight one: theta += eta grad log pi(y)."""
        factors = self.split.adapters.fresh(1)
        leaves = self.split.adapters.trainable(factors)
        grads = torch.autograd.grad(self.logprobs(factors, torch.tensor([response])).sum(), leaves)
        with torch.no_grad():
            for leaf, grad in zip(leaves, grads, strict=True):
                leaf += eta * grad
        return self.success(factors)

    def expected_step(self, eta: float) -> float:
        """E[p after one round] - p for the minimalist rule, over every response that can be sampled."""
        before, mass = self.success(), self.responses.mass
        return float(
            sum(
                mass[i] * (self.after(int(i), eta) - before)
                for i in np.flatnonzero(self.responses.rewards > 0)
            )
        )

    def probe(self) -> Probe:
        """The probe that leaves nothing out: every edge of the whole tree, no cut, no rest, no tail."""
        layout = grow(self.responses, vocabulary=self.vocabulary, cut=0.0, leaf_cut=0.0, keep="all")
        scores = atom_scores(self.split, self.prompt, self.split.adapters.fresh(1), layout.atoms, chunk=256)
        record = ProbeRecord(vocabulary=self.vocabulary)
        return Probe(self.responses, layout, gram(scores).numpy(), record, scores.numpy())


def enumerate_model(
    model: LanguageModel,
    prompt: str,
    reward_of: Callable[[Tokens], float],
    max_tokens: int,
    spec: AdapterSpec | FullSpec,
) -> Enumerated:
    """All responses of one query up to `max_tokens` tokens."""
    split = open_model(model.model, spec)
    read = read_prompt(split, model.encode_prompt(prompt))
    responses = enumerate_responses(
        split, read, reward_of, max_tokens=max_tokens, end_tokens=model.end_tokens
    )
    tokens = torch.full((len(responses.tokens), max_tokens), -1, dtype=torch.long)
    for i, response in enumerate(responses.tokens):
        tokens[i, : len(response)] = torch.tensor(response)
    with torch.no_grad():
        hidden, _ = split.trunk.run(tokens.clamp(min=0), past=repeat(read.past, len(tokens)))
    return Enumerated(split, read, responses, split.vocabulary, hidden[:, :-1], tokens)
