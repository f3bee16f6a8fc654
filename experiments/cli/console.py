"""What every command shares: how errors, warnings, progress and results reach a user or a script."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from experiments.words import text_of
from theory.extras import missing
from theory.warning import CacheWarning, ForecastWarning, QueryWarning

errors = Console(stderr=True)
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, and nothing else there.")
]


@contextmanager
def telling() -> Iterator[None]:
    """Warnings become one line each on standard error."""

    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        errors.print(f"[yellow]warning:[/] {message}", highlight=False)

    with warnings.catch_warnings():
        # What libraries warn their developers of is not for the user of a command.
        warnings.simplefilter("ignore")
        for category in (ForecastWarning, QueryWarning, CacheWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = tell  # pyright: ignore[reportAttributeAccessIssue]
        yield


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Errors a user can mend become one line on standard error and exit code 2; warnings one line each."""
    with telling():
        try:
            yield
        except ValidationError as error:
            for item in error.errors():
                field = ".".join(str(x) for x in item["loc"]) or error.title
                _fail(f"{field}: {item['msg'].removeprefix('Value error, ')}", as_json)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            refusal = missing(error)
            if refusal is None:
                raise
            _fail(str(refusal), as_json)
            raise typer.Exit(2) from None
        except (ValueError, ImportError, OSError) as error:
            _fail(str(error), as_json)
            raise typer.Exit(2) from None
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            _fail(
                f"out of memory: {(str(error).strip() or type(error).__name__).splitlines()[0]}\nlower what is held at "
                "once: --replicas and --rollouts (training), --max-tokens, --probe-rollouts (probe and its scores), "
                "--batch (screen); or use --dtype bfloat16",
                as_json,
            )
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            errors.print("stopped; the same command goes on from here", highlight=False)
            raise typer.Exit(130) from None


def _out_of_memory(error: Exception) -> bool:
    """Of Python, NumPy, torch (whose CPU allocator has no class for it) or XLA; found without importing any."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in said for words in ("can't allocate memory", "out of memory", "resource_exhausted"))
    )


def _fail(message: str, as_json: bool) -> None:
    errors.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"error": message}))


@contextmanager
def bars(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress callback: one bar per label, with the time that remains."""
    columns = (
        TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, disable=as_json) as progress:
        tasks: dict[str, Any] = {}

        def update(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
            progress.update(tasks[label], completed=done, total=total)

        yield update


def show(name: str, result: dict[str, Any], as_json: bool) -> None:
    """Print a result: one JSON object, or a table without its long lists."""
    if as_json:
        print(json.dumps(result))
        return
    table = Table("", name, show_edge=False, pad_edge=False)
    for key, value in result.items():
        if isinstance(value, dict) or (isinstance(value, list) and len(value) > 8):
            continue
        table.add_row(key, text_of(value))
    Console().print(table)
