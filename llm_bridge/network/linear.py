"""The linearised network: token logits to first order in the adapters at the base model, every softmax exact."""

from __future__ import annotations

import warnings

import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from llm_bridge.network.adapters import Factors
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.rollouts import Prompt, read_whole
from theory.refusal import Refusal


def linear_logits(
    split: SplitModel, prompt: Prompt, factors: Factors, rows: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Base logits z(0) and their first-order change J theta, (R, T, V) each, before every response token.

    One forward-mode pass, theta the tangent. The change is differentiable in theta, so that training the
    linearised network needs nothing but its log probabilities (`linear_response_logits`).

    Arguments: see `llm_bridge.rollouts.rollouts.score`; only the up factors B move.
    Errors: Refusal where the adapters train A too: its tangent at B = 0 is zero, and would hide what it does.
    """
    if split.adapters.spec.trained != "up":
        raise Refusal(
            f"adapter.trained is {split.adapters.spec.trained!r}: at the base model the first-order change of A is "
            "zero, and of full parameters no tangent is held, so there is no linearised network to compare with; "
            'use trained = "up"'
        )
    with fwd.dual_level():
        with warnings.catch_warnings():
            # torch compiles its forward-mode rules on first use, by a function it has itself deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            dual = {
                name: (down, fwd.make_dual(torch.zeros_like(up), up)) for name, (down, up) in factors.items()
            }
        # The fused attention kernels have no forward-mode derivative.
        with split.adapters.use(dual, rows), sdpa_kernel(SDPBackend.MATH):
            both = fwd.unpack_dual(split.logits(read_whole(split, prompt, rows, hidden)))
    assert both.tangent is not None
    return both.primal.detach(), both.tangent


def linear_response_logits(
    split: SplitModel, prompt: Prompt, factors: Factors | None, rows: Tensor, hidden: Tensor, tokens: Tensor
) -> Tensor:
    """Logits (P, V) of the linearised network, z(0) + J theta, before each token that is there.

    Arguments: as those of `llm_bridge.rollouts.rollouts.response_logits`, for which it stands in.
    Source: design of this project, section 2 (the check that told the sequence kernel from the tree kernel).
    """
    factors = split.adapters.fresh(len(rows)) if factors is None else factors
    base, change = linear_logits(split, prompt, factors, rows, hidden[:, : tokens.shape[1] - 1])
    return (base + change)[tokens >= 0]
