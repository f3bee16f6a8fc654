"""Files of a run folder: written under a temporary name and renamed, and marked with their stage's hash."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.specs import FileSpec


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well: no half-written file is ever read."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def open_folder(out: Path, spec: FileSpec) -> None:
    """Make `out` the folder of `spec`, or find that it already is.

    Errors: Refusal where the folder cannot be written, or holds another spec (fields named): results are
    never overwritten by a different run.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise Refusal(
            f"--out {out} cannot be written ({error.strerror}); choose a folder you may write to"
        ) from error
    path = out / "spec.toml"
    if path.exists():
        changed = type(spec).read(path).differences(spec)
        if changed:
            raise Refusal(
                f"--out {out} holds another run ({'; '.join(changed[:5])}); "
                "give another folder, or delete this one to start anew"
            )
        return
    with replacing(path) as temporary:
        spec.write(temporary)


def load_arrays(
    path: Path, stage: str, kind: Literal["numpy", "pt"] = "numpy"
) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Arrays and notes of a safetensors file of this stage; None where there is none.

    Arguments: kind "pt" gives torch's tensors in place of NumPy's arrays.
    """
    if not path.exists():
        return None
    with safe_open(path, kind) as file:
        notes = file.metadata() or {}
        if notes.get("stage") != stage:
            return None
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118


def read_rows(path: Path, stage: str) -> tuple[list[dict[str, Any]], dict[str, str]] | None:
    """Rows and notes of an observed file of this stage, else None; one that is half-written is not there."""
    found = read_noted(path)
    if found is None or found[1].get("stage") != stage:
        return None
    return found[0].to_pylist(), found[1]


def read_noted(path: Path) -> tuple[pa.Table, dict[str, str]] | None:
    """A Parquet file's table and notes, else None; one that is half-written is not there."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid:
        return None
    return table, {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
