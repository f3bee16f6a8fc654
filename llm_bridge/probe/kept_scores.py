"""Scores on their way to their Gram matrix: one query's in memory, several queries' in a temporary file."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_bridge.probe.scores import gram

BLOCK = 1024
"""Rows of a block of the Gram matrix: two of them and their product are all that is in memory."""
COLUMNS = 8192
"""Columns whose products are summed in the file's own precision; across these parts in float64."""


class KeptScores:
    """The scores (M_q, P) of one query after another, and the inner products of all of them.

    Arguments:
        queries: how many there will be. From two on they are written to a temporary file, so that memory is bounded
            whatever their number.
        precision: of the file's numbers: float32, or float64 of a model in float64.
    Errors: OSError where the temporary folder has no room: 4 or 8 bytes per trained parameter and score, or per
        coordinate of a sketch.
    """

    def __init__(self, queries: int, precision: torch.dtype) -> None:
        self.precision = precision
        self._file: IO[bytes] | None = tempfile.TemporaryFile() if queries > 1 else None  # noqa: SIM115
        self._whole: Tensor | None = None
        self._rows = self._width = 0

    def __enter__(self) -> KeptScores:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, scores: Tensor) -> None:
        """The next query's."""
        if self._file is None:
            assert self._whole is None, "one query's scores alone are held in memory"
            self._whole = scores
            return
        self._file.write(scores.to(self.precision).cpu().numpy().tobytes())
        self._rows, self._width = self._rows + len(scores), scores.shape[1]

    def gram(self) -> NDArray[np.float64]:
        """(M, M) inner products, query by query; M is the sum of theirs."""
        if self._file is None:
            assert self._whole is not None
            return gram(self._whole).numpy()
        self._file.flush()
        kind = torch.zeros(0, dtype=self.precision).numpy().dtype
        stored = np.memmap(self._file, kind, mode="c", shape=(self._rows, self._width))  # pyright: ignore[reportArgumentType]
        return _blockwise(stored)


def _blockwise(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """(M, M) inner products of stored scores (M, P), block by block."""
    count, width = scores.shape
    whole = np.zeros((count, count))
    for first in range(0, count, BLOCK):
        rows = torch.from_numpy(scores[first : first + BLOCK])
        for other in range(0, first + BLOCK, BLOCK):
            columns = rows if other == first else torch.from_numpy(scores[other : other + BLOCK])
            block = torch.zeros(len(rows), len(columns), dtype=torch.float64)
            for part in range(0, width, COLUMNS):
                block += (rows[:, part : part + COLUMNS] @ columns[:, part : part + COLUMNS].T).double()
            whole[first : first + len(rows), other : other + len(columns)] = block.numpy()
            whole[other : other + len(columns), first : first + len(rows)] = block.numpy().T
    return whole
