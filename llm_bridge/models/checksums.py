"""What a folder held when it was made, and whether it still does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

MANIFEST = "checksums.json"


def write_manifest(folder: Path) -> None:
    """Size, time of change and sha256 of each file of the folder and of those in it, into checksums.json."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    held = {
        path.relative_to(folder).as_posix(): _entry(path)
        for path in files
        if not path.name.endswith(MANIFEST)
    }
    temporary = folder / f".{os.getpid()}.{MANIFEST}"
    temporary.write_text(json.dumps(held, indent=1))
    os.replace(temporary, folder / MANIFEST)


def damage(folder: Path) -> str | None:
    """What is wrong with the folder, in a few words; None where nothing is.

    Sizes are compared always. Checksums, a second per GB, only of files whose time of change is another than when they
    were made: of a copied cache at its first use, which then keeps the new times, and of any file that was written to.
    """
    manifest = folder / MANIFEST
    try:
        held: dict[str, dict[str, int | str]] = json.loads(manifest.read_text()) if manifest.exists() else {}
    except ValueError:
        return f"{MANIFEST} cannot be read"
    touched = not held  # made before there were checksums: they are taken now
    for name, entry in held.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} of {entry['size']} bytes"
        if path.stat().st_mtime_ns != entry["changed"]:
            touched = True
            if _sha256(path) != entry["sha256"]:
                return f"{name} has another checksum"
    if touched:
        with contextlib.suppress(OSError):  # a cache that may only be read is checked anew each time
            write_manifest(folder)
    return None


def _entry(path: Path) -> dict[str, int | str]:
    found = path.stat()
    return {"size": found.st_size, "changed": found.st_mtime_ns, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
