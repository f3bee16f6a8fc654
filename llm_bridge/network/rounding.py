"""How far a model of coarse numbers is from the same weights in float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from llm_bridge.rollouts.rollouts import padded
from theory.trees.prefix_tree import Responses

CHUNK = 4
"""Responses that are read beside one another."""


@torch.no_grad()
def rounding(
    model: PreTrainedModel, prompt: Tensor, responses: Responses, most: int = 64
) -> dict[str, float]:
    """Mean and largest |log pi(y) - log pi_32(y)| over the responses that a probe drew most often.

    Arguments:
        model: the weights in float32, read by their own forward pass.
        prompt: (1, P) token ids.
        responses: of the model of coarse numbers, with its log probabilities.
        most: so many of them are read.
    Returns: rounding_mean and rounding_most [nats of a whole response], rounding_responses (how many).
    """
    prompt = prompt.to(model.device)
    order = np.argsort(-responses.counts, kind="stable")[:most]
    gaps: list[float] = []
    for part in np.array_split(order, -(-len(order) // CHUNK)):
        tokens = padded([responses.tokens[i] for i in part]).to(prompt.device)
        ids = torch.cat([prompt.expand(len(part), -1), tokens.clamp(min=0)], dim=1)
        # What stands behind a response changes nothing before it: the model is causal.
        kept = tokens.shape[1] + 1
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[:, :-1]
        logs = logits.gather(2, tokens.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(dim=-1)
        own = [sum(responses.logprobs[i]) for i in part]
        gaps += (torch.where(tokens >= 0, logs, 0.0).sum(dim=1).cpu() - torch.tensor(own)).abs().tolist()
    return {
        "rounding_mean": float(np.mean(gaps)),
        "rounding_most": max(gaps),
        "rounding_responses": float(len(gaps)),
    }
