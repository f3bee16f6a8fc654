"""Rows of a JSONL or Parquet file, each with its place for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from theory.refusal import Refusal


def read_rows(path: str | Path, columns: Iterable[str], advice: str) -> Iterator[tuple[str, Any]]:
    """(place, row) of every row; columns without a value are left out of Parquet rows.

    Arguments:
        columns: that a Parquet file must have.
        advice: what to do about a file without them.
    Errors: FileNotFoundError; Refusal with the file, the line or row, and the fix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"queries: {path} is not a file; give a JSONL or Parquet file of queries")
    if path.suffix not in (".jsonl", ".ndjson", ".parquet"):
        raise Refusal(
            f"queries: {path} ends in {path.suffix!r}; give a file ending in .jsonl, .ndjson, .parquet"
        )
    if path.suffix == ".parquet":
        return _parquet_rows(path, set(columns), advice)
    return _json_lines(path)


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            yield place, json.loads(line)
        except UnicodeDecodeError as error:
            raise Refusal(f"queries: {place}: not UTF-8 text; save the file as UTF-8") from error
        except json.JSONDecodeError as error:
            raise Refusal(
                f"queries: {place}: not JSON ({error.msg} at column {error.colno}); "
                'write {"query": "...", "answer": "..."} on one line'
            ) from error


def _parquet_rows(path: Path, columns: set[str], advice: str) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise Refusal(f"queries: {path} is not Parquet ({error}); write it again, or give JSONL") from error
    if not columns <= set(table.column_names):
        raise Refusal(f"queries: {path} has the columns {', '.join(table.column_names)}; {advice}")
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}, row {number}", {k: v for k, v in row.items() if v is not None}
