"""How far a command has come: bars on a terminal, lines where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.cli.console import errors
from experiments.cli.lines import Told, lines


@contextmanager
def progress(as_json: bool, begin: str = "", plan: Mapping[str, str] | None = None) -> Iterator[Told]:
    """A progress callback: bars where standard error is a terminal (none with --json), else lines.

    Arguments:
        begin: said before anything is done, in lines.
        plan: of a stage, how much it has to do in words; lines begin a stage with it.
    """
    if sys.stderr.isatty():
        with bars(shown=not as_json) as told:
            yield told
        return
    with lines(begin, plan or {}) as told:
        yield told


@contextmanager
def bars(shown: bool = True) -> Iterator[Told]:
    """One bar per stage, with the time that remains."""
    columns = (
        TextColumn("{task.description:<10}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, disable=not shown) as drawn:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = drawn.add_task(stage, total=total)
            drawn.update(tasks[stage], completed=done, total=total)

        yield update
