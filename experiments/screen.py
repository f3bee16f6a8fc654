"""Screening: which queries of a set have a base success in the range wanted, found within a budget of rollouts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments import store
from experiments.run_folder import RunFolder
from experiments.screen_spec import ScreenSpec
from llm_bridge.base_rollouts import BaseRollouts, Visit
from llm_bridge.probe import SCREEN_STREAM
from llm_bridge.queries import FIELDS, Query
from llm_bridge.verifiers import score, verify
from theory.screening import Verdict, interval, most_in_range, nearest_verdict, verdict

TOGETHER = 4
"""Queries whose first visits are sampled together."""
SAVE_EVERY = 10.0
"""Seconds of rollouts that a killed screening may lose."""


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


@dataclass
class Screening(RunFolder):
    """One folder and what it takes to fill it. The order of visits follows from the rewards alone, so a screening
    that was stopped is gone through again on its record, and draws where that ends.

    Arguments: those of `RunFolder`, and
        queries: the whole set, in its own order.
    """

    spec: ScreenSpec
    queries: Sequence[Query] = field(kw_only=True)

    @cached_property
    def base(self) -> BaseRollouts:
        return BaseRollouts(
            self.language_model, max_tokens=self.spec.max_tokens, seed=self.spec.seed, stream=SCREEN_STREAM
        )

    def run(self) -> dict[str, Any]:
        """Rollouts until the budget is spent or nothing is left to decide; writes screen.parquet, screen.json, and
        queries.jsonl where a query is in range."""
        spec = self.spec
        record, seconds = self._recorded()
        order = [int(i) for i in _order(spec.seed, len(self.queries))]
        tallies: dict[int, Tally] = {}
        spent, saved = 0, time.perf_counter()
        try:
            while spent < spec.budget and (visit := self._next(order, tallies)) is not None:
                number, size = visit
                tally = tallies.setdefault(number, Tally())
                size = min(size, spec.budget - spent, spec.cap - tally.rollouts)
                known = record.get(number, [])[tally.rollouts : tally.rollouts + size]
                started = time.perf_counter()
                if len(known) < size:
                    for visit, rows in self._draw(
                        self._together(number, tally.rollouts, size, order, record)
                    ):
                        record[visit.number] = record.get(visit.number, [])[: visit.first] + rows
                    known = record[number][tally.rollouts :]
                    seconds += time.perf_counter() - started
                tally.rows += known
                spent += size
                self.progress("screen", spent, spec.budget)
                if time.perf_counter() - saved > SAVE_EVERY:
                    self._save(tallies, record, seconds)
                    saved = time.perf_counter()
        finally:
            self._save(tallies, record, seconds)
        return self._report(order, tallies, seconds)

    @property
    def planned(self) -> int:
        """Number of queries that get a first visit whatever is seen."""
        return min(len(self.queries), max(1, self.spec.budget // (2 * self.spec.batch)))

    def _next(self, order: Sequence[int], tallies: dict[int, Tally]) -> tuple[int, int] | None:
        """(query, rollouts) of the next visit: the planned queries once each, in order; then, of those with a success,
        the one whose verdict is had soonest; then a new query; then those without a success, the soonest had first.

        A visit is one batch, and up to four where half of what the verdict needs is more.
        """
        spec = self.spec
        new = (order[len(tallies)], spec.batch) if len(tallies) < len(order) else None
        if new and len(tallies) < self.planned:
            return new
        live = [i for i, t in tallies.items() if t.rollouts < spec.cap and self._verdict(t) == "undecided"]
        seen = [i for i in live if tallies[i].successes]
        if new and not seen:
            return new
        if not live:
            return None
        asked = seen or live
        counts = [tallies[i].successes for i in asked], [tallies[i].rollouts for i in asked]
        rate, needed = nearest_verdict(*counts, spec.wanted, spec.error)
        best = int(np.argmax(rate))
        largest = max(spec.batch, min(4 * spec.batch, counts[1][best]))
        return asked[best], int(np.clip(needed[best] / 2, spec.batch, largest))

    def _verdict(self, tally: Tally) -> Verdict:
        return self._said(tally.successes, tally.rollouts)

    @cached_property
    def _said(self) -> Callable[[int, int], Verdict]:
        return cache(partial(verdict, wanted=self.spec.wanted, error=self.spec.error))

    def _together(
        self,
        number: int,
        first: int,
        size: int,
        order: Sequence[int],
        record: dict[int, list[dict[str, Any]]],
    ) -> list[Visit]:
        """A visit, and those that will be made whatever it shows: a batch of more rows costs little more."""
        visits = [Visit(number, self.queries[number], first, size)]
        planned = order[: self.planned]
        if first == 0 and number in planned:
            coming = [i for i in planned[planned.index(number) + 1 :] if i not in record]
            visits += [Visit(i, self.queries[i], 0, size) for i in coming[: TOGETHER - 1]]
        return visits

    def _draw(self, visits: Sequence[Visit]) -> Iterator[tuple[Visit, list[dict[str, Any]]]]:
        for visit, responses in zip(visits, self.base.draw(visits), strict=True):
            texts = [self.base.model.decode(list(tokens)) for tokens in responses]
            outcomes = [verify(visit.query, text) for text in texts]
            yield (
                visit,
                [
                    {
                        "number": visit.number,
                        "rollout": visit.first + i,
                        "outcome": outcomes[i],
                        "reward": float(score(outcomes[i : i + 1])[0]),
                        "tokens": len(responses[i]),
                        "text": texts[i],
                    }
                    for i in range(visit.rollouts)
                ],
            )

    def _recorded(self) -> tuple[dict[int, list[dict[str, Any]]], float]:
        rows, notes = store.read_rows(self.out / "rollouts.parquet", self.spec.stage) or ([], {})
        record: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            record.setdefault(row["number"], []).append(row)
        return record, float(notes.get("seconds", 0.0))

    def _save(
        self, tallies: dict[int, Tally], record: dict[int, list[dict[str, Any]]], seconds: float
    ) -> None:
        """All rollouts known, those of the record that are not yet gone through again included."""
        longest = {i: max(tallies.get(i, Tally()).rows, rows, key=len) for i, rows in record.items()}
        rows = [row for part in ({i: t.rows for i, t in tallies.items()} | longest).values() for row in part]
        _write(
            self.out / "rollouts.parquet",
            rows,
            ROLLOUTS,
            {"stage": self.spec.stage, "seconds": repr(seconds)},
        )

    def _report(self, order: Sequence[int], tallies: dict[int, Tally], seconds: float) -> dict[str, Any]:
        spec = self.spec
        table = [self._row(i, tally) for i, tally in tallies.items()]
        _write(self.out / "screen.parquet", table, TABLE, {"stage": spec.stage})
        found = [row for row in table if row["verdict"] == "in range"]
        path = self.out / "queries.jsonl"
        path.unlink(missing_ok=True)
        if found:
            with store.replacing(path) as temporary:
                temporary.write_text("".join(_line(self.queries[row["number"]]) for row in found))
        limit = self._limit(order, tallies)
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
            "seconds": seconds,
            "in_range_at_most": limit,
            "says": self._says(len(found), counts["undecided"], len(table), limit),
        }
        store.write_json(self.out / "screen.json", numbers)
        return numbers | {"queries": table}

    def _limit(self, order: Sequence[int], tallies: dict[int, Tally]) -> int:
        """95% limit of the set's queries in range; the least of two or three, which share the 5%.

        Of the planned queries those count as kept that were not dropped; or those with a success on their first visit,
        which a query in range lacks with probability at most (1 - low)^batch. The latter also for as many queries as
        the whole budget can visit once: it holds where so little was promising that all of them were.
        """
        spec = self.spec
        dropped = sum(self._verdict(tallies[i]) in ("too hard", "too easy") for i in order[: self.planned])
        ways = [(self.planned - dropped, self.planned, spec.error)]
        for looked in sorted({self.planned, min(len(order), spec.budget // spec.batch)}):
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
            "verifier": query.verifier, "verdict": self._verdict(tally), "rollouts": n, "successes": s,
            "unparsable": sum(row["outcome"] is None for row in tally.rows),
            "estimate": s / n, "low": low, "high": high, "tokens": sum(row["tokens"] for row in tally.rows),
        }  # fmt: skip


ROLLOUTS = pa.schema([
    ("number", pa.int32()), ("rollout", pa.int32()), ("outcome", pa.float64()), ("reward", pa.float64()),
    ("tokens", pa.int32()), ("text", pa.string()),
])  # fmt: skip
TABLE = pa.schema([
    ("number", pa.int32()), ("name", pa.string()), ("query", pa.string()), ("answer", pa.string()),
    ("verifier", pa.string()), ("verdict", pa.string()), ("rollouts", pa.int32()), ("successes", pa.int32()),
    ("unparsable", pa.int32()), ("estimate", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
    ("tokens", pa.int32()),
])  # fmt: skip


def _write(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema, notes: dict[str, str]) -> None:
    with store.replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema).replace_schema_metadata(notes), temporary)


def _line(query: Query) -> str:
    """A row that --queries reads back as the same query."""
    fields = {name: getattr(query, attribute) for name, attribute in FIELDS.items()}
    return json.dumps({name: value for name, value in fields.items() if value is not None}) + "\n"


def _order(seed: int, count: int) -> np.ndarray:
    """The queries shuffled; a counter that no rollout has."""
    bits = np.random.Philox(key=np.array([seed, SCREEN_STREAM], dtype=np.uint64), counter=[0, 0, 0, 1])
    return np.random.Generator(bits).permutation(count)
