"""`onearm screen`: queries of wanted difficulty out of a set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.cli.command import Command, Given, Option
from experiments.cli.console import output, show
from experiments.cli.options import (
    DEVICE,
    DTYPE,
    MAX_TOKENS,
    NAME,
    OUT,
    QUERY_SET,
    SEED,
    SIZE,
    SOURCE,
    SPLIT,
    VERIFIER,
)
from experiments.cli.progress import progress
from experiments.words import text_of
from theory.refusal import Refusal

SHOWN = 24
SCREENING = "Screening"
OPTIONS = (
    QUERY_SET,
    SIZE,
    SPLIT,
    VERIFIER,
    Option("p0", str, "Range of the initial success that is wanted, LOW:HIGH.", "0.02:0.5", panel=SCREENING),
    Option("budget", int, "Number of rollouts in all.", 2000, panel=SCREENING),
    Option("batch", int, "Number of rollouts each time that a query is looked at.", 8, panel=SCREENING),
    Option(
        "most", int | None, "Number of rollouts after which a query is left undecided.", panel=SCREENING,
        shown="a fifth of --budget",
    ),
    Option("error", float, "Chance at which a query in range is dropped by mistake.", 0.05, panel=SCREENING),
    NAME,
    SOURCE,
    DEVICE,
    DTYPE,
    MAX_TOKENS,
    SEED,
    replace(OUT, default=Path("runs/screen")),
)  # fmt: skip


def screen(given: Given) -> None:
    """Find the queries of a set that the base model answers neither never nor always.

    Queries that are too hard or too easy are dropped as soon as a sequential test can tell. The rest is written to
    queries.jsonl, which onearm overlay --queries reads.

    Example: onearm screen --queries builtin --p0 0.05:0.5 --budget 1000 --out runs/screen
    """
    from experiments.screening.screen import Screening
    from experiments.screening.spec import ScreenSpec, digest_of
    from experiments.specs import ModelSpec
    from llm_bridge.queries.sources import parse_source

    asked = parse_source(
        given.queries, seed=given.seed, size=given.size, split=given.split, verifier=given.verifier
    )
    low, high = _range(given.p0)
    spec = ScreenSpec(
        source=given.queries, queries=digest_of(asked), low=low, high=high,
        model=ModelSpec(name=given.model, **given.some("device", "dtype", "source")),
        **{name: given[name] for name in ("budget", "batch", "most", "max_tokens", "seed", "error")},
    )  # fmt: skip
    plan = f"{spec.budget:,} rollouts at most, of {len(asked):,} queries"
    with progress(given.as_json, f"screen: {plan}", {"screen": plan}) as told:
        made = Screening(spec, given.out, told, queries=asked).run()
    if given.as_json:
        print(json.dumps(made))
        return
    _table(made["queries"])
    show("screen", {name: value for name, value in made.items() if name != "says"}, given.as_json)
    output().print(made["says"], soft_wrap=True)


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
    output(100).print(table)
    if len(rows) > SHOWN:
        output().print(f"... and {len(rows) - SHOWN} more, in screen.parquet")


COMMAND = Command("screen", screen, OPTIONS, panel="Language models", needs="llm")
