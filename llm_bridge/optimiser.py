"""The optimiser specs of `theory.rules` realised by torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from theory.rules.optimiser import SGD, Adam


def make_optimiser(spec: SGD | Adam, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Gradient ascent on the parameters: SGD theta += eta g, or Adam with decoupled weight decay."""
    if isinstance(spec, SGD):
        return torch.optim.SGD(parameters, lr=spec.eta, maximize=True)
    return torch.optim.AdamW(
        parameters,
        lr=spec.eta,
        betas=(spec.beta1, spec.beta2),
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        maximize=True,
    )
