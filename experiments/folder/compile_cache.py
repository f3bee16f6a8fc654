"""Compiled simulations, kept on disk from one command to the next."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from llm_bridge.models.cache_folder import cache_directory, left_out
from theory.warning import ForecastWarning

SWITCH = "ONEARM_COMPILE_CACHE"


class CompileCacheWarning(ForecastWarning):
    """Compiled code is not kept; everything else goes on."""


def folder() -> Path:
    """Beside the models."""
    return cache_directory() / "compiled"


def keep_compiled() -> bool:
    """Let JAX keep what takes it a tenth of a second to compile; whether it does. Called by commands, never at import.

    $ONEARM_COMPILE_CACHE = off leaves it out. A folder that cannot be written costs one warning.
    """
    if left_out(SWITCH):
        return False
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        warnings.warn(
            f"compiled code is not kept: {where} cannot be written ({error.strerror}); set ONEARM_CACHE to a folder "
            f"that can be, or {SWITCH} to off",
            CompileCacheWarning,
            stacklevel=2,
        )
        return False
    import jax

    jax.config.update("jax_compilation_cache_dir", str(where))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return True
