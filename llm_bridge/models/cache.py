"""Models that are made on this machine once and kept: a folder of safetensors per model."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from llm_bridge.models.cache_folder import cache_directory
from llm_bridge.models.checksums import damage, write_manifest
from theory.warning import CacheWarning


def build_once(key: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `key`; where it is missing or damaged, `build(folder)` fills it first.

    The folder appears whole or not at all: it is filled under a temporary name and renamed, so an
    interrupted build leaves nothing that is read, and of two builders at once the first one wins.

    Errors: OSError where the cache cannot be written, naming $ONEARM_CACHE.
    Warns: `CacheWarning` where a file is not what it was when it was made.
    """
    final = cache_directory() / key
    if final.is_dir():
        if (wrong := damage(final)) is None:
            return final
        warnings.warn(f"{final} is damaged ({wrong}); it is made again", CacheWarning, stacklevel=2)
    try:
        if final.is_dir():
            _remove(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    except OSError as error:
        raise OSError(
            f"the model cache {final.parent} cannot be written ({error.strerror}); "
            "set ONEARM_CACHE to a folder that can be"
        ) from error
    try:
        build(temporary)
        write_manifest(temporary)
        try:
            os.replace(temporary, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _remove(folder: Path) -> None:
    """Take a folder out of the way as a whole, then delete it: of an interrupted removal no rest is read."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    with suppress(FileNotFoundError):  # another process was first
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def fingerprint(model: nn.Module) -> str:
    """First 16 hex digits of the sha256 over the parameters: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        value = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' advisory logs and progress bars inside the block, and restore them after it."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
