"""Every response of a model small enough to enumerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llm_bridge.network.growing import Growing
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.rollouts import Prompt, open_prompt
from theory.trees.prefix_tree import Responses, Tokens


def enumerate_responses(
    split: SplitModel,
    prompt: Prompt,
    reward_of: Callable[[Tokens], float],
    *,
    max_tokens: int,
    end_tokens: Sequence[int],
) -> Responses:
    """Every response there is, with its exact log probability: for a model small enough to enumerate.

    Counts are set to one; grow the tree with cut = leaf_cut = 0 and keep = "all".
    """
    ends = set(end_tokens)
    opening = open_prompt(split, prompt, None, torch.zeros(1, dtype=torch.long))
    live: list[Tokens] = [()]
    logs: dict[Tokens, tuple[float, ...]] = {(): ()}
    trunk = Growing(split.trunk, prompt.past, max_tokens - 1)
    head, logits = Growing(split.head, opening.past, max_tokens - 1), opening.logits
    whole: list[Tokens] = []
    for t in range(max_tokens):
        table: NDArray[np.float64] = torch.log_softmax(logits.double(), dim=-1).detach().cpu().numpy()
        grown: list[Tokens] = []
        parent: list[int] = []
        for i, prefix in enumerate(live):
            for v in range(split.vocabulary):
                child = (*prefix, v)
                logs[child] = (*logs[prefix], float(table[i, v]))
                if v in ends or t == max_tokens - 1:
                    whole.append(child)
                else:
                    grown.append(child)
                    parent.append(i)
        if not grown:
            break
        live = grown
        at = torch.tensor(parent)
        with torch.no_grad():
            step = torch.tensor([[prefix[-1]] for prefix in live])
            trunk.select(at)
            head.select(at)
            logits = split.logits(head.run(trunk.run(step))[:, -1])
    return Responses(
        tuple(whole),
        tuple(logs[t] for t in whole),
        np.ones(len(whole), dtype=np.int64),
        np.array([reward_of(t) for t in whole]),
        np.array([t[-1] in ends for t in whole]),
    )
