"""Full parameters: every parameter of one replica is trained and probed, in place of adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llm_bridge.network.adapters import Factors
from llm_bridge.network.specs import FullSpec
from theory.refusal import Refusal


class FullParameters:
    """The interface of `Adapters` for a model's own parameters: factors of a name are its one tensor (1, ...).

    A tensor that several modules share (tied embeddings) is one parameter.
    """

    at_once = 1
    parts = ("whole",)

    def __init__(self, model: nn.Module, spec: FullSpec) -> None:
        self.spec = spec
        self._slots: dict[str, list[tuple[dict[str, Any], str]]] = {}
        first: dict[Tensor, str] = {}
        for path, module in model.named_modules():
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    name = first.setdefault(parameter, f"{path}.{key}")
                    self._slots.setdefault(name, []).append((module._parameters, key))

    def fresh(self, replicas: int) -> Factors:
        """A copy of the base model's parameters. Errors: Refusal for more than one replica."""
        if replicas != 1:
            raise Refusal(
                f"replicas = {replicas} with full parameters, of which only one copy is held; give 1 "
                "(--replicas 1), and another seed for another run"
            )
        slots = ((name, *held[0]) for name, held in self._slots.items())
        # Row by row, as files of tensors are.
        return {
            name: (there[key].detach()[None].clone(memory_format=torch.contiguous_format),)
            for name, there, key in slots
        }

    def own(self, factors: Factors, rows: int) -> Factors:
        """Factors that the one row of a batch owns: no copy is made."""
        assert rows == 1
        return {name: (whole.detach(),) for name, (whole,) in factors.items()}

    @contextmanager
    def use(self, factors: Factors | None, rows: Tensor | None = None) -> Iterator[None]:
        """Put factors in the place of the model's parameters; all rows are of the one replica."""
        base = [there[key] for slots in self._slots.values() for there, key in slots]
        try:
            if factors is not None:
                for name, slots in self._slots.items():
                    own = factors[name][0][0]
                    for there, key in slots:
                        there[key] = own
            yield
        finally:
            held = (slot for slots in self._slots.values() for slot in slots)
            for (there, key), parameter in zip(held, base, strict=True):
                there[key] = parameter

    def trainable(self, factors: Factors) -> list[Tensor]:
        """The tensors that are trained, as leaves that require gradients, in a fixed order."""
        return [whole.requires_grad_() for (whole,) in factors.values()]
