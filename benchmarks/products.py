"""The matrix products of a piece of work: counted as it runs, and replayed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


@contextmanager
def recorded(model: nn.Module) -> Iterator[Counter[Shape]]:
    """Counts of the products  (rows, inputs) x (inputs, outputs)  of every linear map that runs inside.

    The gradient's products are those of its forward pass once more per map (weights are frozen: no outer product).
    """
    seen: Counter[Shape] = Counter()

    def hook(module: nn.Linear, given: tuple[Tensor, ...], out: Tensor) -> None:
        shape = (out.numel() // module.out_features, module.in_features, module.out_features)
        seen[shape] += 2 if out.requires_grad else 1

    maps = [m for m in model.modules() if isinstance(m, nn.Linear)]
    handles = [m.register_forward_hook(hook) for m in maps]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def replayed(products: Counter[Shape]) -> Callable[[], object]:
    """The products alone, on weights of 128 MiB in all per shape, taken in turns."""
    weights = {
        shape: [torch.randn(shape[2], shape[1]) for _ in range(max(1, 2**25 // (shape[1] * shape[2])))]
        for shape in {(0, k, n) for _, k, n in products}
    }

    def run() -> object:
        with torch.no_grad():
            for (m, k, n), count in products.items():
                x, turn = torch.randn(m, k), weights[0, k, n]
                for i in range(count):
                    nn.functional.linear(x, turn[i % len(turn)])

    return run


def large(operations: float, rows: int = 1024, width: int = 1536) -> Callable[[], object]:
    """About so many operations as products of many rows: the rate that this processor reaches."""
    x, weight = torch.randn(rows, width), torch.randn(width, width)
    count = max(1, round(operations / (2 * rows * width**2)))
    return lambda: [nn.functional.linear(x, weight) for _ in range(count)]
