"""Rollouts: responses sampled token by token at temperature 1 over the full vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.adapters import Factors
from llm_bridge.split import SplitModel, State, repeat, select


@dataclass(frozen=True)
class Prompt:
    """A prompt after the trunk: what all replicas share."""

    tokens: Tensor  # (1, P)
    hidden: Tensor  # (1, P, D) trunk output
    past: State  # trunk keys and values, batch one


@dataclass(frozen=True)
class Opening:
    """A prompt after the head, per replica: keys and values, and log probabilities of the first token."""

    past: State
    logits: Tensor  # (rows, V)


@dataclass(frozen=True)
class Rollouts:
    """R rollouts, padded to T tokens: tokens (-1 beyond the end), their log probabilities, lengths.

    `hidden` (R, T-1, D) is the trunk's output for all tokens but the last: the gradient pass starts there.
    """

    tokens: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    lengths: NDArray[np.int64]
    ended: NDArray[np.bool_]
    hidden: Tensor

    @property
    def mask(self) -> NDArray[np.float64]:
        return (self.tokens >= 0).astype(float)


def uniforms(seed: int, replica: int, turn: int, query: int, rollout: int, count: int) -> NDArray[np.float64]:
    """(count,) uniform numbers of one rollout: a Philox stream whose key and counter name it uniquely.

    key = (seed, replica), counter = (0, rollout, query, turn): injective, and independent of what else is in
    the batch, so that a resumed run draws what the uninterrupted one would have drawn.
    """
    # As uint64: from a list NumPy takes numbers beyond 2^63 by way of float, where neighbours are the same.
    key, counter = (np.array(x, dtype=np.uint64) for x in ([seed, replica], [0, rollout, query, turn]))
    bits = np.random.Philox(key=key, counter=counter)
    return np.random.Generator(bits).random(count)


@torch.no_grad()
def read_prompt(split: SplitModel, tokens: Tensor) -> Prompt:
    hidden, past = split.trunk.run(tokens=tokens)
    return Prompt(tokens, hidden, past)


@torch.no_grad()
def open_prompt(split: SplitModel, prompt: Prompt, factors: Factors | None, rows: Tensor) -> Opening:
    """The prompt through the head of each replica in `rows`."""
    with split.adapters.use(factors, rows):
        hidden, past = split.head.run(hidden=prompt.hidden.expand(len(rows), -1, -1))
    return Opening(past, split.logits(hidden[:, -1]))


@torch.no_grad()
def sample(
    split: SplitModel,
    prompt: Prompt,
    opening: Opening,
    factors: Factors | None,
    rows: Tensor,
    draws: NDArray[np.float64],
    end_tokens: Sequence[int],
) -> Rollouts:
    """Sample one response per row; each prefix is computed once, however many rollouts share it.

    Arguments:
        opening: one entry per replica that occurs in `rows`.
        rows: (R,) the replica of each rollout, an index into `factors` and `opening`.
        draws: (R, T) uniforms; token t of row r is the inverse-CDF draw of draws[r, t], so T limits the length.
        end_tokens: ids that close a response; the end token belongs to it and is scored.
    """
    count, limit = draws.shape
    tokens = np.full((count, limit), -1, dtype=np.int64)
    logprobs = np.zeros((count, limit))
    hiddens = prompt.hidden.new_zeros(count, max(limit - 1, 0), prompt.hidden.shape[-1])
    device, ends = prompt.hidden.device, torch.tensor(list(end_tokens))
    # Rollout live[i] reads prefix trunk_of[i] of the trunk's batch and row head_of[i] of the head's.
    live, trunk_of, head_of = torch.arange(count), torch.zeros(count, dtype=torch.long), rows.cpu()
    trunk, head, logits, owner = prompt.past, opening.past, opening.logits, torch.arange(len(opening.logits))
    for t in range(limit):
        picked, log = draw(logits, head_of, torch.from_numpy(draws[live.numpy(), t]))
        tokens[live.numpy(), t] = picked.numpy()
        logprobs[live.numpy(), t] = log.numpy()
        going = (~torch.isin(picked, ends)).nonzero()[:, 0]
        if t == limit - 1 or len(going) == 0:
            break
        live, picked = live[going], picked[going]
        stem, trunk_of = torch.unique(torch.stack([trunk_of[going], picked]), dim=1, return_inverse=True)
        leaf, head_of = torch.unique(
            torch.stack([head_of[going], picked, trunk_of]), dim=1, return_inverse=True
        )
        middle, trunk = split.trunk.run(
            tokens=stem[1][:, None].to(device), past=select(trunk, stem[0].to(device))
        )
        hiddens[live.to(device), t] = middle[trunk_of.to(device), 0]
        owner = owner[leaf[0]]
        with split.adapters.use(factors, owner.to(device)):
            last, head = split.head.run(
                hidden=middle[leaf[2].to(device)], past=select(head, leaf[0].to(device))
            )
        logits = split.logits(last[:, -1])
    lengths = (tokens >= 0).sum(axis=1)
    final = tokens[np.arange(count), lengths - 1]
    return Rollouts(tokens, logprobs, lengths, np.isin(final, list(end_tokens)), hiddens)


def draw(logits: Tensor, rows: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse-CDF draws from softmax(logits[rows]) in float64, and their log probabilities: (R,), (R,)."""
    logs = torch.log_softmax(logits.double(), dim=-1).cpu()
    cdf = logs.exp().cumsum(dim=-1)
    token = torch.empty(len(rows), dtype=torch.long)
    for row in rows.unique():
        mine = (rows == row).nonzero()[:, 0]
        token[mine] = torch.searchsorted(cdf[row], uniform[mine] * cdf[row, -1], right=True)
    token.clamp_(max=logits.shape[-1] - 1)
    return token, logs[rows, token]


def distributions(
    split: SplitModel, prompt: Prompt, factors: Factors | None, rows: Tensor, hidden: Tensor, count: int
) -> Tensor:
    """Differentiable log probabilities (R, count, V) of every next token, at the first `count` of given responses.

    Arguments:
        factors: None is the base model.
        hidden: (R, T-1, D) trunk output of all response tokens but the last, as `Rollouts.hidden` holds it.
    """
    with split.adapters.use(factors, rows):
        out = read_whole(split, prompt, rows, hidden[:, : count - 1])
    return torch.log_softmax(split.logits(out), dim=-1)


def score(
    split: SplitModel,
    prompt: Prompt,
    factors: Factors | None,
    rows: Tensor,
    hidden: Tensor,
    tokens: Tensor,
) -> Tensor:
    """Differentiable log probabilities (R, T, in the model's dtype) of given responses.

    Arguments:
        factors, hidden: as in `distributions`.
        tokens: (R, T) token ids; padding may hold anything (mask it out).
    """
    return chosen(distributions(split, prompt, factors, rows, hidden, tokens.shape[1]), tokens)


def read_whole(split: SplitModel, prompt: Prompt, rows: Tensor, hidden: Tensor) -> Tensor:
    """(R, T, D) the bound head's output before each of the T response tokens; hidden is (R, T-1, D)."""
    whole = torch.cat([prompt.hidden.expand(len(rows), -1, -1), hidden], dim=1)
    return split.head.forward(whole)[:, prompt.hidden.shape[1] - 1 :]


def chosen(logs: Tensor, tokens: Tensor) -> Tensor:
    """(R, T) the log probabilities of tokens (R, T) out of logs (R, T, V); padding (-1) holds anything."""
    return logs.gather(2, tokens.clamp(min=0)[:, :, None])[:, :, 0]


@torch.no_grad()
def read_responses(split: SplitModel, prompt: Prompt, tokens: Tensor) -> Tensor:
    """(R, T-1, D) the trunk's output for all but the last of given response tokens (R, T); `Rollouts.hidden`."""
    rows, limit = tokens.shape
    if limit == 1 or rows == 0:
        return prompt.hidden.new_zeros(rows, limit - 1, prompt.hidden.shape[-1])
    return split.trunk.run(tokens=tokens[:, :-1].clamp(min=0), past=repeat(prompt.past, rows))[0]
