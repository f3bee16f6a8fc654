"""Rows of a data set from the hub, by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from theory.extras import missing
from theory.refusal import Refusal


def hub_rows(name: str, hub: Mapping[str, Any], split: str) -> Iterator[tuple[str, Any]]:
    """(place, row) of every row of one split.

    Arguments:
        name: what the data set is called in --queries, for messages.
        hub: arguments of `datasets.load_dataset`.
    Errors: Refusal without `datasets`, and where the hub is out of reach or has no such split. Both name
        the form that reads a local file.
    """
    instead = f"give a local file in its published layout (--queries {name}:FILE, Parquet or JSONL)"
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        refusal = missing(error)
        if refusal is None:
            raise
        raise Refusal(f"--queries {name} reads from the hub, and {refusal}, or {instead}") from error
    try:
        table = load_dataset(**hub, split=split)
    except (
        Exception
    ) as error:  # whatever the hub's clients raise where it cannot be reached: they have no one class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Refusal(
            f"queries: {name} ({hub['path']}, split {split!r}) cannot be loaded: {reason}; "
            f"check --split and the connection, or {instead}"
        ) from error
    for number, row in enumerate(table, start=1):
        yield f"{hub['path']} {split}, row {number}", row
