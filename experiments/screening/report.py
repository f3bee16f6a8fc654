"""What a screening says: a row per query, how many of the set can be in range at most, and a sentence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.folder import store
from experiments.screening.spec import ScreenSpec
from llm_bridge.queries.query import FIELDS, Query
from theory.screening import Verdict, interval, most_in_range, verdict

TABLE = pa.schema([
    ("number", pa.int32()), ("name", pa.string()), ("query", pa.string()), ("answer", pa.string()),
    ("verifier", pa.string()), ("verdict", pa.string()), ("rollouts", pa.int32()), ("successes", pa.int32()),
    ("unparsable", pa.int32()), ("estimate", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
    ("tokens", pa.int32()),
])  # fmt: skip


@dataclass
class Tally:
    """What was seen of one query: outcome, number of tokens and text of each rollout."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rollouts(self) -> int:
        return len(self.rows)

    @property
    def successes(self) -> int:
        return sum(row["reward"] > 0 for row in self.rows)


@dataclass(frozen=True)
class ScreenReport:
    """A screening as it stands.

    Arguments:
        order: in which the queries are visited first; tallies: what was seen of those looked at.
        verdict: of a tally; seconds: all rollouts took.
    """

    spec: ScreenSpec
    queries: Sequence[Query]
    order: Sequence[int]
    tallies: Mapping[int, Tally]
    verdict: Callable[[Tally], Verdict]
    seconds: float

    def write(self, out: Path) -> dict[str, Any]:
        """Write screen.parquet, screen.json, and queries.jsonl where a query is in range; returns the numbers."""
        spec, tallies = self.spec, self.tallies
        table = [self._row(i, tally) for i, tally in tallies.items()]
        write_rows(out / "screen.parquet", table, TABLE, {"stage": spec.stage})
        found = [row for row in table if row["verdict"] == "in range"]
        path = out / "queries.jsonl"
        path.unlink(missing_ok=True)
        if found:
            with store.replacing(path) as temporary:
                temporary.write_text("".join(line_of(self.queries[row["number"]]) for row in found))
        limit = self.limit()
        counts = Counter(row["verdict"] for row in table)
        numbers = {
            "source": spec.source,
            "model": spec.model.name,
            "set": len(self.queries),
            "looked_at": len(table),
            **{
                kind.replace(" ", "_"): counts[kind]
                for kind in ("in range", "too easy", "too hard", "undecided")
            },
            "rollouts": sum(row["rollouts"] for row in table),
            "budget": spec.budget,
            "unparsable": sum(row["unparsable"] for row in table),
            "tokens": sum(row["tokens"] for row in table),
            "seconds": self.seconds,
            "in_range_at_most": limit,
            "says": self._says(len(found), counts["undecided"], len(table), limit),
        }
        store.write_json(out / "screen.json", numbers)
        return numbers | {"queries": table}

    def limit(self) -> int:
        """95% limit of the set's queries in range; the least of two or three, which share the 5%.

        Of the planned queries those count as kept that were not dropped; or those with a success on their first visit,
        which a query in range lacks with probability at most (1 - low)^batch. The latter also for as many queries as
        the whole budget can visit once: it holds where so little was promising that all of them were.
        """
        spec, order, tallies = self.spec, self.order, self.tallies
        planned = planned_of(spec, len(self.queries))
        dropped = sum(self.verdict(tallies[i]) in ("too hard", "too easy") for i in order[:planned])
        ways = [(planned - dropped, planned, spec.error)]
        for looked in sorted({planned, min(len(order), spec.budget // spec.batch)}):
            first = (tallies.get(i, Tally()).rows[: spec.batch] for i in order[:looked])
            silent = sum(len(rows) == spec.batch and not any(row["reward"] for row in rows) for rows in first)
            ways.append((looked - silent, looked, (1 - spec.low) ** spec.batch))
        level = 1 - 0.05 / len(ways)
        return min(most_in_range(kept, looked, len(order), miss, level) for kept, looked, miss in ways)

    def _says(self, found: int, undecided: int, looked: int, limit: int) -> str:
        spec, size = self.spec, len(self.queries)
        wanted = f"{spec.low:g} to {spec.high:g}"
        if found:
            return (
                f"{found} of {looked} queries looked at are in range ({wanted}), in queries.jsonl; each is out of "
                f"it with probability at most {spec.error / 2:.3g}"
            )
        none = f"none found in range ({wanted}) among {looked} queries looked at"
        left = f"{undecided} of them undecided" if undecided else "all of them decided"
        room = size - (looked - undecided)  # what is not ruled out one by one
        if room and limit >= room:
            return f"{none}, {left}; too few rollouts to say how many are: raise --budget, or --p0"
        return f"{none}, {left}; with 95% confidence at most {limit} ({limit / size:.2g}) of this set's {size} are"

    def _row(self, number: int, tally: Tally) -> dict[str, Any]:
        query, s, n = self.queries[number], tally.successes, tally.rollouts
        low, high = interval(s, n, self.spec.error)
        return {
            "number": number, "name": query.name, "query": query.prompt, "answer": query.answer,
            "verifier": query.verifier, "verdict": self.verdict(tally), "rollouts": n, "successes": s,
            "unparsable": sum(row["outcome"] is None for row in tally.rows),
            "estimate": s / n, "low": low, "high": high, "tokens": sum(row["tokens"] for row in tally.rows),
        }  # fmt: skip


def planned_of(spec: ScreenSpec, size: int) -> int:
    """Number of queries of a set that get a first visit whatever is seen."""
    return min(size, max(1, spec.budget // (2 * spec.batch)))


def verdicts(spec: ScreenSpec) -> Callable[[Tally], Verdict]:
    """The verdict of a tally; each pair of counts is worked out once."""
    said = cache(partial(verdict, wanted=spec.wanted, error=spec.error))
    return lambda tally: said(tally.successes, tally.rollouts)


def write_rows(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema, notes: dict[str, str]) -> None:
    with store.replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema).replace_schema_metadata(notes), temporary)


def line_of(query: Query) -> str:
    """A row that --queries reads back as the same query."""
    fields = {name: getattr(query, attribute) for name, attribute in FIELDS.items()}
    return json.dumps({name: value for name, value in fields.items() if value is not None}) + "\n"
