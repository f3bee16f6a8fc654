"""Rollouts: responses sampled token by token at temperature 1 over the full vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.network.adapters import Factors
from llm_bridge.network.growing import Growing
from llm_bridge.network.split import SplitModel, State, beside, pad_left, repeat, select
from theory.trees.prefix_tree import Tokens

BLOCK = 512
"""Tokens whose mass is summed first: a draw then looks into one block instead of the whole vocabulary."""


@dataclass(frozen=True)
class Prompt:
    """A prompt after the trunk, what all replicas share; or Q prompts, padded on the left to one length."""

    tokens: Tensor  # (Q, P)
    hidden: Tensor  # (Q, P, D) trunk output
    past: State  # trunk keys and values, Q rows
    padding: Tensor  # (Q,) tokens on the left that are nobody's


@dataclass(frozen=True)
class Opening:
    """A prompt after the head, an entry per replica: keys and values, logits of the first token, which replica.

    `prompts` says which of several prompts an entry is of.
    """

    past: State
    logits: Tensor  # (entries, V)
    replicas: Tensor  # (entries,)
    prompts: Tensor  # (entries,)


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
    hidden, past = split.trunk.run(tokens)
    return Prompt(tokens, hidden, past, torch.zeros(len(tokens), dtype=torch.long, device=tokens.device))


def side_by_side(prompts: Sequence[Prompt]) -> Prompt:
    """Several prompts as one batch."""
    if len(prompts) == 1:
        return prompts[0]
    longest = max(prompt.tokens.shape[1] for prompt in prompts)
    return Prompt(
        torch.cat([pad_left(prompt.tokens, 1, longest) for prompt in prompts]),
        torch.cat([pad_left(prompt.hidden, 1, longest) for prompt in prompts]),
        beside([prompt.past for prompt in prompts]),
        torch.cat([prompt.padding + longest - prompt.tokens.shape[1] for prompt in prompts]),
    )


def opened_together(openings: Sequence[Opening]) -> Opening:
    """Opening i is of prompt i of a batch: their entries one after the other."""
    if len(openings) == 1:
        return openings[0]
    return Opening(
        beside([opening.past for opening in openings]),
        torch.cat([opening.logits for opening in openings]),
        torch.cat([opening.replicas for opening in openings]),
        torch.cat([torch.full_like(opening.replicas, q) for q, opening in enumerate(openings)]),
    )


@torch.no_grad()
def open_prompt(split: SplitModel, prompt: Prompt, factors: Factors | None, rows: Tensor) -> Opening:
    """The prompt through the head of each replica in `rows`."""
    with split.adapters.use(factors, rows):
        hidden, past = split.head.run(prompt.hidden.expand(len(rows), -1, -1))
        return Opening(past, split.logits(hidden[:, -1]), rows, torch.zeros_like(rows))


@torch.no_grad()
def sample(
    split: SplitModel,
    prompt: Prompt,
    opening: Opening,
    factors: Factors | None,
    rows: Tensor,
    draws: NDArray[np.float64],
    end_tokens: Sequence[Sequence[int]],
) -> Rollouts:
    """Sample one response per row; each prefix is computed once, however many rollouts share it.

    Responses to several prompts are sampled beside one another: a step costs little more for more rows.

    Arguments:
        rows: (R,) the entry of `opening` that each rollout starts from.
        factors: those of every replica; an entry's own are at the index that `opening.replicas` names.
        draws: (R, T) uniforms; token t of row r is the inverse-CDF draw of draws[r, t], so T limits the length. NaN in
            place of a number takes the most likely token.
        end_tokens: per prompt, ids that close a response; the end token belongs to it and is scored.
    """
    count, limit = draws.shape
    tokens = np.full((count, limit), -1, dtype=np.int64)
    logprobs = np.zeros((count, limit))
    hiddens = prompt.hidden.new_zeros(count, max(limit - 1, 0), prompt.hidden.shape[-1])
    ended = np.zeros(count, dtype=bool)
    device, ends = prompt.hidden.device, [torch.tensor(list(ids)) for ids in end_tokens]
    padded = bool(prompt.padding.any())
    # Rollout live[i] reads prefix trunk_of[i] of the trunk's batch and row head_of[i] of the head's.
    live, head_of = torch.arange(count), rows.cpu()
    trunk_of, of = opening.prompts.cpu()[head_of], torch.arange(len(prompt.tokens))
    trunk = Growing(split.trunk, prompt.past, limit - 1)
    head = Growing(split.head, opening.past, limit - 1)
    logits, owner = opening.logits, opening.replicas.cpu()
    for t in range(limit):
        picked, log = draw(logits, head_of, torch.from_numpy(draws[live.numpy(), t]))
        tokens[live.numpy(), t] = picked.numpy()
        logprobs[live.numpy(), t] = log.numpy()
        closed = torch.zeros(len(live), dtype=torch.bool)
        for q, ids in enumerate(ends):
            closed |= (of[trunk_of] == q) & torch.isin(picked, ids)
        ended[live[closed].numpy()] = True
        going = (~closed).nonzero()[:, 0]
        if t == limit - 1 or len(going) == 0:
            break
        live, picked = live[going], picked[going]
        stem, trunk_of = torch.unique(torch.stack([trunk_of[going], picked]), dim=1, return_inverse=True)
        leaf, head_of = torch.unique(
            torch.stack([head_of[going], picked, trunk_of]), dim=1, return_inverse=True
        )
        of = of[stem[0]]
        padding = prompt.padding[of.to(device)] if padded else None
        trunk.select(stem[0].to(device))
        middle = trunk.run(stem[1][:, None].to(device), padding=padding)
        hiddens[live.to(device), t] = middle[trunk_of.to(device), 0]
        owner = owner[leaf[0]]
        head.select(leaf[0].to(device))
        with split.adapters.use(factors, owner.to(device)):
            last = head.run(
                middle[leaf[2].to(device)],
                padding=None if padding is None else padding[leaf[2].to(device)],
            )
            logits = split.logits(last[:, -1])
    return Rollouts(tokens, logprobs, (tokens >= 0).sum(axis=1), ended, hiddens)


def draw(logits: Tensor, rows: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse-CDF draws from softmax(logits[rows]), and their log probabilities: (R,), (R,) in float64.

    Masses are summed in the logits' dtype, at least float32, within a block of tokens, and in float64 across blocks.
    A uniform number of NaN draws nothing: it takes the most likely token.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = logits.amax(dim=-1, keepdim=True)
    weights = F.pad((logits - top).exp_(), (0, -logits.shape[-1] % BLOCK))
    blocks = weights.view(len(logits), -1, BLOCK)
    ends = blocks.sum(dim=-1).cpu().double().cumsum(dim=-1)
    target = uniform * ends[rows, -1]
    block = torch.searchsorted(ends[rows], target[:, None], right=True)[:, 0].clamp_(max=ends.shape[1] - 1)
    before = torch.where(block > 0, ends[rows, block - 1], 0.0)
    inside = blocks[rows.to(logits.device), block.to(logits.device)].cpu().double().cumsum(dim=-1)
    place = torch.searchsorted(inside, (target - before)[:, None], right=True)[:, 0].clamp_(max=BLOCK - 1)
    token = (block * BLOCK + place).clamp_(max=logits.shape[-1] - 1)
    if (greedy := uniform.isnan()).any():
        token = torch.where(greedy, logits.argmax(dim=-1).cpu()[rows], token)
    at = rows.to(logits.device), token.to(logits.device)
    return token, (logits[at] - top[at[0], 0]).cpu().double() - ends[rows, -1].log()


def response_logits(
    split: SplitModel, prompt: Prompt, factors: Factors | None, rows: Tensor, hidden: Tensor, tokens: Tensor
) -> Tensor:
    """Differentiable logits (P, V) before each of the P tokens that are there, response by response.

    The output map is the dear part of a small model: padding does not pass through it. A prompt is read once for all
    responses of a replica.

    Arguments:
        factors: None is the base model.
        rows: (R,) the replica of each response.
        hidden: (R, T-1, D) trunk output of all response tokens but the last, as `Rollouts.hidden` holds it.
        tokens: (R, T) token ids, -1 beyond the end.
    """
    hidden = hidden[:, : tokens.shape[1] - 1]
    replicas, of = rows.unique(return_inverse=True)
    if len(replicas) == len(rows) or not split.head.continues:
        with split.adapters.use(factors, rows):
            out = read_whole(split, prompt, rows, hidden)
            return split.logits(out[tokens >= 0])
    with split.adapters.use(factors, replicas):
        first, past = split.head.run(prompt.hidden.expand(len(replicas), -1, -1))
    out = first[of, -1:]
    with split.adapters.use(factors, rows):
        if hidden.shape[1]:
            later, _ = split.head.run(hidden, past=select(past, of))
            out = torch.cat([out, later], dim=1)
        return split.logits(out[tokens >= 0])


def chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits) at the tokens: (P, V), (P,) -> (P,), without a second matrix of the logits' size."""
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)


def score(
    split: SplitModel,
    prompt: Prompt,
    factors: Factors | None,
    rows: Tensor,
    hidden: Tensor,
    tokens: Tensor,
) -> Tensor:
    """Differentiable log probabilities (R, T, in the model's dtype) of given responses, zero at padding.

    Arguments: as in `response_logits`.
    """
    there = tokens >= 0
    logits = response_logits(split, prompt, factors, rows, hidden, tokens)
    return logits.new_zeros(tokens.shape).masked_scatter(there, chosen(logits, tokens[there]))


def read_whole(split: SplitModel, prompt: Prompt, rows: Tensor, hidden: Tensor) -> Tensor:
    """(R, T, D) the bound head's output before each of the T response tokens; hidden is (R, T-1, D)."""
    whole = torch.cat([prompt.hidden.expand(len(rows), -1, -1), hidden], dim=1)
    return split.head.forward(whole)[:, prompt.hidden.shape[1] - 1 :]


def padded(responses: Sequence[Tokens]) -> Tensor:
    """(R, T) token ids of responses, -1 beyond the end."""
    longest = max((len(y) for y in responses), default=1)
    return torch.tensor([[*y, *[-1] * (longest - len(y))] for y in responses]).reshape(-1, longest)


@torch.no_grad()
def read_responses(split: SplitModel, prompt: Prompt, tokens: Tensor) -> Tensor:
    """(R, T-1, D) the trunk's output for all but the last of given response tokens (R, T); `Rollouts.hidden`."""
    rows, limit = tokens.shape
    if limit == 1 or rows == 0:
        return prompt.hidden.new_zeros(rows, limit - 1, prompt.hidden.shape[-1])
    return split.trunk.run(tokens[:, :-1].clamp(min=0), past=repeat(prompt.past, rows))[0]
