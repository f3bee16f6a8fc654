"""Scores in few coordinates: a linear sketch that keeps inner products, for models too large to keep a score of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from theory.refusal import Refusal

Reduction = Callable[[Sequence[Tensor]], Tensor]
"""What is kept of gradients, tensors (rows, ...): (rows, anything)."""


class Coordinates:
    """A uniform sample of a vector's coordinates, without replacement; all of them where there are no more.

    Arguments:
        count, width: how many of how many.
        seed: the sample follows from it: the same coordinates of all vectors.
    Errors: Refusal for a count below 1.
    """

    def __init__(self, count: int, width: int, seed: int) -> None:
        if count < 1:
            raise Refusal(f"coordinates = {count}; give at least 1")
        rng = np.random.default_rng(np.random.SeedSequence((seed, 11)))
        drawn = rng.choice(width, min(count, width), replace=False, shuffle=False)
        self.places = torch.from_numpy(np.sort(drawn))
        self.share = len(self.places) / width

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """(rows, count) the sampled coordinates of vectors that lie in tensors (rows, ...), in order."""
        picked: list[Tensor] = []
        first = 0
        for part in parts:
            flat = part.detach().reshape(len(part), -1)
            inside = (self.places >= first) & (self.places < first + flat.shape[1])
            picked.append(flat[:, (self.places[inside] - first).to(flat.device)])
            first += flat.shape[1]
        return torch.cat(picked, dim=1)


class Sketch:
    """S x = sum_b roll(sign_b * x_b, shift_b), x cut into blocks x_b of d coordinates: (P,) -> (d,).

    A count-sketch: <S a, S b> is unbiased, its variance at most (|a|^2 |b|^2 + <a, b>^2) / d, over signs and shifts.
    Two coordinates of one block never meet and two of different blocks meet with probability 1/d, which is all
    that the bound asks of a hash; blocks in place of a table of P places make it a pass over contiguous memory.

    Arguments:
        size: d, coordinates kept.
        seed: signs and shifts follow from it and from a tensor's place alone: one sketch for all scores.
    Errors: Refusal for a size below 1.
    Source: Charikar, Chen and Farach-Colton 2002; Weinberger et al. 2009 for inner products.
    Valid when: every vector is cut into the same parts. It keeps one byte per coordinate of x.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise Refusal(f"sketch = {size}; give at least 1 coordinate")
        self.size, self.seed = size, seed
        self._drawn: dict[int, tuple[Tensor, list[int]]] = {}

    @property
    def error(self) -> float:
        """Largest standard deviation of <S a, S b> / (|a| |b|): sqrt(2/d), of a vector with itself."""
        return math.sqrt(2 / self.size)

    def __call__(self, parts: Sequence[Tensor]) -> Tensor:
        """(rows, d) sketches in float64 of vectors whose coordinates lie in tensors (rows, ...), in order."""
        rows = len(parts[0])
        total = torch.zeros(rows, self.size, dtype=torch.float64, device=parts[0].device)
        for place, part in enumerate(parts):
            flat = part.detach().reshape(rows, -1)
            signs, shifts = self._of(place, flat.shape[1])
            for b, shift in enumerate(shifts):
                at = slice(b * self.size, (b + 1) * self.size)
                block = flat[:, at] * signs[at].to(flat.device)
                before = min(self.size - shift, block.shape[1])
                total[:, shift : shift + before] += block[:, :before]
                total[:, : block.shape[1] - before] += block[:, before:]
        return total

    def _of(self, place: int, count: int) -> tuple[Tensor, list[int]]:
        """Signs (count,) and shifts (blocks,) of the tensor at this place."""
        if place not in self._drawn:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + place) % 2**63)
            signs = torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
            shifts = torch.randint(0, self.size, (-(-count // self.size),), generator=generator)
            self._drawn[place] = signs, shifts.tolist()
        return self._drawn[place]
