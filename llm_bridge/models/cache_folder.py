"""Where this machine keeps what onearm makes once; found without torch, whose import takes seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_directory() -> Path:
    """The folder of what is made once and kept: $ONEARM_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("ONEARM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "onearm"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "onearm"


def left_out(switch: str) -> bool:
    """Whether the user switched off what is kept under this environment variable."""
    return os.environ.get(switch, "").lower() in ("off", "0", "no", "false")
