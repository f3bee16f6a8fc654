"""Exact probabilities of given responses under replicas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.network.adapters import Factors
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.rollouts import Prompt, padded, read_responses, score
from theory.trees.prefix_tree import Tokens

CHUNK = 32
"""Responses scored at once: their logits are of the size of the vocabulary."""


def masses(
    split: SplitModel, prompt: Prompt, factors: Factors, replicas: int, responses: Sequence[Tokens]
) -> NDArray[np.float64]:
    """(S, R) pi_s(y): the probability that each replica gives each response to a prompt.

    Arguments: factors of the S replicas; R distinct responses as token ids, closed or cut as they would be sampled.
    """
    tokens = padded(responses).to(prompt.hidden.device)
    hidden = read_responses(split, prompt, tokens)
    which = torch.arange(len(responses)).repeat(replicas)
    rows = torch.arange(replicas).repeat_interleave(len(responses))
    logs = logprobs(split, prompt, factors, rows, hidden[which], tokens[which])
    return np.exp(logs).reshape(replicas, -1)


@torch.no_grad()
def logprobs(
    split: SplitModel, prompt: Prompt, factors: Factors, rows: Tensor, hidden: Tensor, tokens: Tensor
) -> NDArray[np.float64]:
    """(R,) log probabilities of responses (R, T) under the replicas `rows`; arguments as in `rollouts.score`."""
    parts: list[NDArray[np.float64]] = [np.zeros(0)]
    for at in chunks(tokens):
        mine, states = trimmed(hidden[at], tokens[at])
        parts.append(total(score(split, prompt, factors, rows[at], states, mine), mine))
    return np.concatenate(parts)


def chunks(tokens: Tensor) -> tuple[Tensor, ...]:
    """Row numbers of the parts that are scored at once."""
    return torch.arange(len(tokens)).split(CHUNK) if len(tokens) else ()


def trimmed(hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and hidden states without the columns that are padding in every row."""
    longest = int((tokens >= 0).sum(dim=1).max())
    return tokens[:, :longest], hidden[:, : longest - 1]


def total(logs: Tensor, tokens: Tensor) -> NDArray[np.float64]:
    """(R,) sums of the log probabilities (R, T) at the tokens that are there."""
    return (logs.double() * (tokens >= 0)).sum(dim=1).cpu().numpy()
