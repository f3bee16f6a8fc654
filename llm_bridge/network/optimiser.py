"""The optimiser specs of `theory.rules` realised by torch, for replicas that are trained beside one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from theory.rules.optimiser import SGD, Adam


class Ascent:
    """Gradient ascent by a spec on tensors whose leading axis is the replica.

    Arguments:
        spec: what to do with the gradients; `clip_norm` is of each replica's own gradient over all tensors,
            never of the batch of replicas.
        parameters: leaves of shape (replicas, ...).
    Valid when: the replicas take their steps together (one step count for all).
    """

    def __init__(self, spec: SGD | Adam, parameters: Sequence[Tensor]) -> None:
        self.spec, self.parameters, self.steps = spec, list(parameters), 0
        if isinstance(spec, SGD):
            self.torch: torch.optim.Optimizer = torch.optim.SGD(
                self.parameters,
                lr=spec.eta,
                momentum=spec.momentum,
                nesterov=spec.nesterov,
                maximize=True,
            )
        else:
            self.torch = torch.optim.AdamW(
                self.parameters,
                lr=spec.eta,
                betas=(spec.beta1, spec.beta2),
                eps=spec.eps,
                weight_decay=spec.weight_decay,
                maximize=True,
            )

    def clear(self) -> None:
        """Zero gradients on every parameter: torch would skip one without, and with it Adam's step count."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def step(self) -> None:
        """One step along the gradients, which are clipped in place."""
        if self.spec.clip_norm is not None:
            clip_each_replica([p.grad for p in self.parameters if p.grad is not None], self.spec.clip_norm)
        rate = self.spec.eta * float(self.spec.schedule.factor(np.asarray(self.steps)))
        for group in self.torch.param_groups:
            group["lr"] = rate
        self.torch.step()
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on besides parameters and gradients, as named tensors."""
        tensors = {"steps": torch.tensor(self.steps)}
        for i, parameter in enumerate(self.parameters):
            for name, value in self.torch.state.get(parameter, {}).items():
                if torch.is_tensor(value):
                    tensors[f"{i}.{name}"] = value.clone()
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state()`, bit for bit."""
        self.steps = int(tensors["steps"])
        for name, value in tensors.items():
            if name != "steps":
                i, _, slot = name.partition(".")
                self.torch.state[self.parameters[int(i)]][slot] = value.clone()


def clip_each_replica(gradients: Sequence[Tensor], norm: float) -> None:
    """Scale each replica's gradients (replicas, ...) in place to joint Euclidean norm `norm` where longer."""
    length = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    factor = torch.where(length > norm, norm / length, 1.0)
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))
