"""Engines are tested for what they compute: small shapes, many programs, so compiling is most of the time."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def _compile_quickly() -> Iterator[None]:
    """XLA's optimisations are left to `test_simulate.py`, which compiles as production does."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
