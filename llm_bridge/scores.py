"""Scores: gradients of log probabilities with respect to the adapters, and their inner products."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llm_bridge.adapters import Factors
from llm_bridge.rollouts import Prompt
from llm_bridge.split import SplitModel
from theory.prefix_tree import Atom


def atom_scores(
    split: SplitModel,
    prompt: Prompt,
    factors: Factors,
    atoms: Sequence[Atom],
    *,
    chunk: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Scores of atoms at one replica's parameters: (M, P) gradients of their log probabilities.

    Every row of a batch owns a copy of the adapters, so that one backward pass yields `chunk` gradients.
    Arguments:
        factors: factors of one replica (leading axis 1).
        atoms: see `theory.prefix_tree.Atom`.
    """
    order = sorted(range(len(atoms)), key=lambda i: len(atoms[i].tokens))
    blocks: list[Tensor] = []
    done = 0
    for first in range(0, len(order), chunk):
        batch = [atoms[i] for i in order[first : first + chunk]]
        own = {
            name: (down.expand(len(batch), -1, -1).clone(), up.expand(len(batch), -1, -1).clone())
            for name, (down, up) in factors.items()
        }
        leaves = split.adapters.trainable(own)
        total = _log_probabilities(split, prompt, own, batch).sum()
        grads = torch.autograd.grad(total, leaves)
        blocks.append(torch.cat([g.reshape(len(batch), -1) for g in grads], dim=1))
        done += len(batch)
        if progress is not None:
            progress(done, len(atoms))
    scores = torch.cat(blocks)[torch.argsort(torch.tensor(order))]
    return scores


def gram(scores: Tensor) -> Tensor:
    """(M, M) inner products, accumulated in float64."""
    total = torch.zeros(len(scores), len(scores), dtype=torch.float64)
    for part in scores.split(16384, dim=1):
        part = part.double()
        total += part @ part.T
    return total


def _log_probabilities(split: SplitModel, prompt: Prompt, factors: Factors, atoms: Sequence[Atom]) -> Tensor:
    """(M,) log probability of each atom, each row with its own factors."""
    longest = max(len(a.tokens) for a in atoms)
    device = prompt.hidden.device
    tokens = torch.zeros(len(atoms), longest, dtype=torch.long, device=device)
    for i, atom in enumerate(atoms):
        tokens[i, : len(atom.tokens)] = torch.tensor(atom.tokens, dtype=torch.long)
    rows = len(atoms)
    whole = prompt.hidden.expand(rows, -1, -1)
    if longest:
        past = [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prompt.past]
        with torch.no_grad():
            hidden, _ = split.trunk.run(tokens=tokens, past=past)
        whole = torch.cat([whole, hidden], dim=1)
    with split.adapters.use(factors):
        out = split.head.forward(whole)[:, prompt.hidden.shape[1] - 1 :]
    # The output map is the dear part: only the positions that an atom scores pass through it.
    spans = [
        (atom.start, atom.start + 1 if atom.complement is not None else len(atom.tokens)) for atom in atoms
    ]
    row = torch.tensor([i for i, (first, last) in enumerate(spans) for _ in range(first, last)])
    column = torch.tensor([t for first, last in spans for t in range(first, last)])
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
