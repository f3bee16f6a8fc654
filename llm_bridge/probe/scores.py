"""Scores: gradients of log probabilities with respect to the adapters, and their inner products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.network.adapters import Factors
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.sketch import Reduction
from llm_bridge.rollouts.rollouts import Prompt, read_responses
from theory.trees.prefix_tree import Atom, Tokens


def atom_scores(
    split: SplitModel,
    prompt: Prompt,
    factors: Factors,
    atoms: Sequence[Atom],
    *,
    reduction: Reduction | None = None,
    chunk: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Scores of atoms at one replica's parameters: (M, P) gradients of their log probabilities.

    Every row of a batch owns a copy of the adapters, so that one backward pass yields `chunk` gradients.
    Arguments:
        factors: factors of one replica (leading axis 1).
        atoms: see `theory.trees.prefix_tree.Atom`.
        reduction: reduces each batch's gradients at once, so that no more than one batch's are held.
    """
    chunk = min(chunk, split.adapters.at_once or chunk)
    order = sorted(range(len(atoms)), key=lambda i: len(atoms[i].tokens))
    read = _trunk_of(split, prompt, [_read_of(atom) for atom in atoms], chunk)
    blocks: list[Tensor] = []
    done = 0
    if progress is not None:
        progress(done, len(atoms))
    for first in range(0, len(order), chunk):
        batch = [atoms[i] for i in order[first : first + chunk]]
        own = split.adapters.own(factors, len(batch))
        leaves = split.adapters.trainable(own)
        total = _log_probabilities(split, prompt, own, batch, read).sum()
        grads = torch.autograd.grad(total, leaves)
        if reduction is None:
            blocks.append(torch.cat([g.reshape(len(batch), -1) for g in grads], dim=1))
        else:
            blocks.append(reduction(grads))
        done += len(batch)
        if progress is not None:
            progress(done, len(atoms))
    scores = torch.cat(blocks)[torch.argsort(torch.tensor(order))]
    return scores


Path = tuple[Prompt, Sequence[Atom], NDArray[np.floating]]
"""A prompt, M of its atoms, and (S, M) how much of each atom's score a replica moves along."""


def displaced(
    split: SplitModel,
    paths: Sequence[Path],
    *,
    base: Factors | None = None,
    chunk: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Factors:
    """Factors of S replicas at  theta + sum_q sum_m shares_qsm g_q(m),  g_q(m) the scores of query q's atoms at theta.

    No score is stored: a chunk of atoms is read once and differentiated along every replica's shares.

    Arguments:
        paths: one per query, of the same S replicas.
        base: theta, one replica's factors (leading axis 1); None is the base model.
        progress: called as progress(done, total) of all queries' atoms.
    """
    replicas = len(paths[0][2])
    moved = split.adapters.fresh(replicas)
    start = split.adapters.fresh(1) if base is None else _detached(base)
    leaves = split.adapters.trainable(start)
    totals = [torch.zeros(replicas, *leaf.shape[1:]).to(leaf) for leaf in leaves]
    done, count = 0, sum(len(atoms) for _, atoms, _ in paths)
    if progress is not None:
        progress(done, count)
    for prompt, atoms, shares in paths:
        order = sorted(range(len(atoms)), key=lambda i, atoms=atoms: len(atoms[i].tokens))
        read = _trunk_of(split, prompt, [_read_of(atom) for atom in atoms], chunk)
        for first in range(0, len(order), chunk):
            part = order[first : first + chunk]
            rows = torch.zeros(len(part), dtype=torch.long, device=prompt.hidden.device)
            logs = _log_probabilities(split, prompt, start, [atoms[i] for i in part], read, rows)
            for s, row in enumerate(torch.from_numpy(np.asarray(shares)[:, part])):
                grads = torch.autograd.grad(logs, leaves, row.to(logs), retain_graph=s + 1 < replicas)
                for total, grad in zip(totals, grads, strict=True):
                    total[s] += grad[0]
            done += len(part)
            if progress is not None:
                progress(done, count)
    with torch.no_grad():
        for parameter, leaf, total in zip(split.adapters.trainable(moved), leaves, totals, strict=True):
            parameter.copy_(leaf + total)
    return _detached(moved)


def _detached(factors: Factors) -> Factors:
    """The same numbers as leaves of their own, which no gradient asked of them marks."""
    return {name: tuple(x.detach() for x in tensors) for name, tensors in factors.items()}


def gram(scores: Tensor) -> Tensor:
    """(M, M) inner products, accumulated in float64."""
    total = torch.zeros(len(scores), len(scores), dtype=torch.float64)
    for part in scores.split(16384, dim=1):
        part = part.double()
        total += part @ part.T
    return total


def _read_of(atom: Atom) -> Tokens:
    """The tokens that come before the last distribution an atom scores."""
    return atom.tokens if atom.complement is not None else atom.tokens[:-1]


@torch.no_grad()
def _trunk_of(
    split: SplitModel, prompt: Prompt, sequences: Sequence[Tokens], chunk: int
) -> dict[Tokens, Tensor]:
    """(tokens, D) the trunk's output of each sequence; one that another begins with is a part of its output."""
    ordered = sorted({tokens for tokens in sequences if tokens})
    # In this order, whatever begins with a sequence follows it.
    whole = [mine for mine, next_one in pairwise([*ordered, ()]) if next_one[: len(mine)] != mine]
    found: dict[Tokens, Tensor] = {(): prompt.hidden[0, :0]}
    by_length = sorted(whole, key=len)
    for first in range(0, len(by_length), chunk):
        part = by_length[first : first + chunk]
        # `read_responses` leaves the last token out, for which the padding stands in.
        padded = [torch.tensor((*tokens, 0)) for tokens in part]
        given = torch.nn.utils.rnn.pad_sequence(padded, batch_first=True).to(prompt.hidden.device)
        for tokens, hidden in zip(part, read_responses(split, prompt, given), strict=True):
            found |= {tokens[:n]: hidden[:n] for n in range(1, len(tokens) + 1) if tokens[:n] not in found}
    return found


def _log_probabilities(
    split: SplitModel,
    prompt: Prompt,
    factors: Factors,
    atoms: Sequence[Atom],
    read: dict[Tokens, Tensor],
    replicas: Tensor | None = None,
) -> Tensor:
    """(M,) log probability of each atom, under factors of its own or those of replicas (M,); `read` is the trunk's
    output of each."""
    device, rows = prompt.hidden.device, len(atoms)
    hidden = torch.nn.utils.rnn.pad_sequence([read[_read_of(atom)] for atom in atoms], batch_first=True)
    whole = torch.cat([prompt.hidden.expand(rows, -1, -1), hidden], dim=1)
    # The output map is the dear part: only the positions that an atom scores pass through it.
    spans = [
        (atom.start, atom.start + 1 if atom.complement is not None else len(atom.tokens)) for atom in atoms
    ]
    row = torch.tensor([i for i, (first, last) in enumerate(spans) for _ in range(first, last)])
    column = torch.tensor([t for first, last in spans for t in range(first, last)])
    with split.adapters.use(factors, replicas):
        out = split.head.forward(whole)[:, prompt.hidden.shape[1] - 1 :]
        logits = split.logits(out[row.to(device), column.to(device)])  # (positions, V)
    norms, values, done = logits.logsumexp(dim=1), [], 0
    for atom, (first, last) in zip(atoms, spans, strict=True):
        mine, total = logits[done : done + last - first], norms[done : done + last - first]
        done += last - first
        if atom.complement is None:
            picked = torch.tensor(atom.tokens[first:last], device=device)
            values.append((mine.gather(1, picked[:, None])[:, 0] - total).sum())
        else:
            named = torch.tensor(atom.complement, dtype=torch.long, device=device)
            values.append(mine[0].index_fill(0, named, -torch.inf).logsumexp(dim=0) - total[0])
    return torch.stack(values)
