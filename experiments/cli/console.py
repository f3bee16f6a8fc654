"""How errors, warnings and results reach a user or a script. Whatever a user wrote is printed as it stands."""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.words import text_of
from theory.extras import missing
from theory.refusal import Refusal
from theory.warning import CacheWarning, ForecastWarning, QueryWarning

# Brackets and colons in a query, a path or a message are the user's, not marks of style.
_plain = partial(Console, markup=False, emoji=False, highlight=False)
errors = _plain(stderr=True)

REPORT = (
    "This is a fault of onearm and not of yours. Please report it, with the command as you typed it, what "
    "`onearm doctor` prints, and the traceback above."
)
MEMORY = (
    "lower what is held at once: --replicas and --rollouts (training), --max-tokens, --probe-rollouts (probe and its "
    "scores), --batch (screen); or use --dtype bfloat16"
)


def output(width: int | None = None) -> Console:
    """Standard output, at least `width` columns wide where that is given."""
    made = _plain()
    return made if width is None or made.width >= width else _plain(width=width)


def say(kind: str, message: object, style: str) -> None:
    """One line on standard error: 'kind: message'."""
    errors.print(Text.assemble((f"{kind}:", style), " ", str(message)), soft_wrap=True)


@contextmanager
def telling() -> Iterator[None]:
    """Warnings become one line each on standard error."""

    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        say("warning", message, "yellow")

    with warnings.catch_warnings():
        # What libraries warn their developers of is not for the user of a command.
        warnings.simplefilter("ignore")
        for category in (ForecastWarning, QueryWarning, CacheWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = tell  # pyright: ignore[reportAttributeAccessIssue]
        yield


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """What a user can mend becomes one line on standard error and exit code 2; warnings one line each.

    Any other exception is a bug: it goes on, with exit code 1, and its traceback ends in what to report.
    """
    with telling():
        try:
            yield
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # The reader of a pipe has left, which typer ends without a word.
            message = mendable(error)
            if message is None:
                error.add_note(REPORT)
                if as_json:
                    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
                raise
            say("error", message, "red")
            if as_json:
                print(json.dumps({"error": message}))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            errors.print("stopped; the same command goes on from here")
            raise typer.Exit(130) from None


def mendable(error: Exception) -> str | None:
    """What to tell the user of an error that a user can mend; None of a bug."""
    if isinstance(error, Refusal):
        return str(error)
    if isinstance(error, ImportError):
        return _to_install(error)
    if isinstance(error, OSError):
        named = error.filename is not None and error.strerror is not None
        return f"{error.filename}: {error.strerror}" if named else str(error) or type(error).__name__
    if _out_of_memory(error):
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"out of memory: {first}\n{MEMORY}"
    return None


def _to_install(error: ImportError) -> str | None:
    """What to install, where a package of an extra is missing; None where an import of our own fails."""
    wanted = missing(error)
    return None if wanted is None else str(wanted)


def _out_of_memory(error: Exception) -> bool:
    """Of Python, NumPy, torch (whose CPU allocator has no class for it) or XLA; found without importing any."""
    said = str(error).lower()
    by_words = isinstance(error, RuntimeError) and any(
        words in said for words in ("can't allocate memory", "out of memory", "resource_exhausted")
    )
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or by_words


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
    output().print(table)
