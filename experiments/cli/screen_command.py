"""`onearm screen`: queries of wanted difficulty out of a set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from experiments.cli.console import Json, bars, reporting, show, text_of
from experiments.cli.options import (
    Device,
    DType,
    MaxTokens,
    Model,
    Out,
    QuerySet,
    Seed,
    Size,
    Source,
    Split,
    VerifierName,
)  # fmt: skip
from theory.extras import require
from theory.refusal import Refusal

Flag = typer.Option
SHOWN = 24


def screen(
    queries: QuerySet,
    size: Size = None,
    split: Split = None,
    p0: Annotated[str, Flag(help="LOW:HIGH, the base success wanted.")] = "0.02:0.5",
    budget: Annotated[int, Flag(help="Rollouts in all.")] = 2000,
    verifier: VerifierName = None,
    model: Model = "smollm2-135m",
    max_tokens: MaxTokens = 10,
    batch: Annotated[int, Flag(help="Rollouts per visit of a query.")] = 8,
    most: Annotated[
        int | None,
        Flag(help="Rollouts after which a query is left undecided. Default: a fifth of the budget."),
    ] = None,
    error: Annotated[float, Flag(help="Chance at which a query in range is dropped.")] = 0.05,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: DType = "float32",
    source: Source = "auto",
    out: Out = Path("runs/screen"),
    as_json: Json = False,
) -> None:
    """Find the queries of a set that the base model answers neither never nor always; too hard and too easy ones are
    dropped as soon as a sequential test can tell. Writes queries.jsonl, for onearm overlay --queries.

    Example: onearm screen --queries builtin --p0 0.05:0.5 --budget 1000 --out runs/screen
    """
    with reporting(as_json):
        require("llm")
        from experiments.screening.screen import Screening
        from experiments.screening.spec import ScreenSpec, digest_of
        from experiments.specs import ModelSpec
        from llm_bridge.queries.sources import parse_source

        asked = parse_source(queries, seed=seed, size=size, split=split, verifier=verifier)
        low, high = _range(p0)
        spec = ScreenSpec(
            source=queries, queries=digest_of(asked), low=low, high=high, budget=budget, batch=batch, most=most,
            model=ModelSpec(name=model, device=device, dtype=dtype, source=source),  # pyright: ignore[reportArgumentType]
            max_tokens=max_tokens, seed=seed, error=error,
        )  # fmt: skip
        with bars(as_json) as progress:
            made = Screening(spec, out, progress, queries=asked).run()
        if as_json:
            print(json.dumps(made))
            return
        _table(made["queries"])
        show("screen", {name: value for name, value in made.items() if name != "says"}, as_json)
        Console().print(made["says"], highlight=False, soft_wrap=True)


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError(text)
        return float(low), float(high)
    except ValueError:
        raise Refusal(f"--p0 {text!r} is no range; give LOW:HIGH, such as 0.02:0.5") from None


def _table(rows: list[dict[str, Any]]) -> None:
    """Those in range first, then by what is known of them; the tail of a long table is left to screen.parquet."""
    order = ["in range", "undecided", "too easy", "too hard"]
    rows = sorted(rows, key=lambda row: (order.index(row["verdict"]), -row["estimate"], row["number"]))
    columns = ("verdict", "estimate", "low", "high", "successes", "rollouts", "unparsable")
    table = Table("query", *columns, show_edge=False, pad_edge=False)
    for row in rows[:SHOWN]:
        table.add_row(row["name"] or row["query"][:40], *(text_of(row[name]) for name in columns))
    console = Console(width=max(100, Console().width))
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN} more, in screen.parquet", highlight=False)
