"""Errors that a user can mend: out of memory says what to lower, and others are not mistaken for it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
import typer

from experiments.cli.console import reporting

HUGE = 2**55


def raise_xla() -> None:
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1152921504606846976 bytes.")


def raise_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(HUGE), lambda: np.empty(HUGE), lambda: bytearray(HUGE), raise_xla, raise_cuda]
)  # fmt: skip
def test_out_of_memory_says_what_to_lower(
    allocate: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """The allocators' own errors: torch's CPU, NumPy's, Python's; XLA's and CUDA's by their words."""
    with pytest.raises(typer.Exit) as left, reporting(True):
        allocate()
    assert left.value.exit_code == 2
    said = capsys.readouterr()
    for word in ("out of memory", "--replicas", "--max-tokens", "--probe-rollouts", "--batch"):
        assert word in " ".join(said.err.split())
    assert "--replicas" in json.loads(said.out)["error"]


def test_other_runtime_errors_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"), reporting(False):
        raise RuntimeError("shapes do not fit")
