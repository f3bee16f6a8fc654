"""Low-rank adapters, one set per row of a batch: the parameters that are trained and probed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llm_bridge.network.specs import AdapterSpec
from theory.refusal import Refusal

Factors = dict[str, tuple[Tensor, ...]]
"""Of each map its A and B, or of full parameters each tensor itself; the leading axis is the replica."""


class AdaptedLinear(nn.Module):
    """A frozen linear map plus the low-rank map of each batch row, where factors are bound."""

    def __init__(self, base: nn.Linear | Conv1D, factor: float) -> None:
        super().__init__()
        self.base = base
        self.factor = factor
        self.bound: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x: (rows, tokens, inputs) -> (rows, tokens, outputs)."""
        y = self.base(x)
        if self.bound is None:
            return y
        down, up = self.bound  # (rows or 1, rank, inputs), (rows, outputs, rank)
        if up.dtype == y.dtype:
            return torch.baddbmm(y, _by_rows(x, down), up.mT, alpha=self.factor)
        return y + (self.factor * (_by_rows(x.to(up.dtype), down) @ up.mT)).to(y.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        first, second = self.base.weight.shape
        return (second, first) if isinstance(self.base, Conv1D) else (first, second)


def _by_rows(x: Tensor, down: Tensor) -> Tensor:
    """(rows, tokens, rank) A x, in one product where all rows share A."""
    return x @ (down[0].T if len(down) == 1 else down.mT)


class Adapters:
    """The adapted maps of a list of blocks; factors are passed in, so that any number of replicas share it.

    at_once: how many replicas, or rows that own their factors, may lie side by side; None is any number.
    parts: what the tensors of one name are called.
    """

    at_once: int | None = None
    parts = ("down", "up")

    def __init__(self, blocks: nn.ModuleList, spec: AdapterSpec) -> None:
        self.spec = spec
        self.maps: dict[str, AdaptedLinear] = {}
        for b, block in enumerate(blocks):
            for name, module in list(block.named_modules()):
                if isinstance(module, nn.Linear | Conv1D):
                    owner = block.get_submodule(name.rpartition(".")[0])
                    adapted = AdaptedLinear(module, spec.scale / spec.rank)
                    setattr(owner, name.rpartition(".")[2], adapted)
                    self.maps[f"{b}.{name}"] = adapted
        if not self.maps:
            raise Refusal(
                "adapters found no torch.nn.Linear or Conv1D in the model's last blocks; use another model"
            )

    def fresh(self, replicas: int) -> Factors:
        """Factors of `replicas` identical replicas at the base model: A (replicas, rank, in), B = 0.

        In float32 at least: bfloat16 would lose steps that are small beside what was learned before.
        """
        generator = torch.Generator().manual_seed(self.spec.seed)
        factors: Factors = {}
        for name, module in self.maps.items():
            weight = module.base.weight
            kind = torch.promote_types(weight.dtype, torch.float32)
            out, inputs = module.shape
            a = (
                2 * torch.rand(self.spec.rank, inputs, generator=generator, dtype=torch.float64) - 1
            ) / inputs**0.5
            down = a.to(weight.device, kind).expand(replicas, -1, -1)
            if self.spec.trained == "both":  # else all replicas share one A in memory
                down = down.clone()
            factors[name] = (down, down.new_zeros(replicas, out, self.spec.rank))
        return factors

    def own(self, factors: Factors, rows: int) -> Factors:
        """Factors of one replica (leading axis 1), a copy of what is trained for each of `rows` rows."""
        both = self.spec.trained == "both"
        wide = ((name, *(x.expand(rows, -1, -1) for x in pair)) for name, pair in factors.items())
        return {name: (down.clone() if both else down, up.clone()) for name, down, up in wide}

    @contextmanager
    def use(self, factors: Factors | None, rows: Tensor | None = None) -> Iterator[None]:
        """Bind factors to the maps; batch row i uses replica rows[i] (default: row i its own)."""
        try:
            if factors is not None:
                everyone = torch.arange(len(next(iter(factors.values()))[1]))
                if rows is not None and torch.equal(rows, everyone.to(rows.device)):
                    rows = None
                for name, module in self.maps.items():
                    down, up = factors[name]
                    # Where all replicas share A in memory, no row needs a copy of it.
                    down = down[:1] if down.stride(0) == 0 else down if rows is None else down[rows]
                    module.bound = (down, up if rows is None else up[rows])
            yield
        finally:
            for module in self.maps.values():
                module.bound = None

    def trainable(self, factors: Factors) -> list[Tensor]:
        """The tensors that are trained, as leaves that require gradients, in a fixed order."""
        both = self.spec.trained == "both"
        return [x.requires_grad_() for down, up in factors.values() for x in ((down, up) if both else (up,))]
