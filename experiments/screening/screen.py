"""Screening: which queries of a set have a base success in the range wanted, found within a budget of rollouts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from experiments.folder import store
from experiments.folder.run_folder import RunFolder
from experiments.screening.report import ScreenReport, Tally, planned_of, verdicts, write_rows
from experiments.screening.spec import ScreenSpec
from llm_bridge.probe.survey import SCREEN_STREAM
from llm_bridge.queries.query import Query
from llm_bridge.rewards.verifiers import score
from llm_bridge.rollouts.base_rollouts import BaseRollouts, Visit
from theory.screening import Verdict, nearest_verdict

TOGETHER = 4
"""Queries whose first visits are sampled together."""
SAVE_EVERY = 10.0
"""Seconds of rollouts that a killed screening may lose."""


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
        self.progress("screen", spent, spec.budget)
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
        report = ScreenReport(spec, self.queries, order, tallies, self._verdict, seconds)
        return report.write(self.out)

    @property
    def planned(self) -> int:
        return planned_of(self.spec, len(self.queries))

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

    @cached_property
    def _verdict(self) -> Callable[[Tally], Verdict]:
        return verdicts(self.spec)

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
            outcomes = [visit.query.outcome(text) for text in texts]
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
        write_rows(
            self.out / "rollouts.parquet",
            rows,
            ROLLOUTS,
            {"stage": self.spec.stage, "seconds": repr(seconds)},
        )


ROLLOUTS = pa.schema([
    ("number", pa.int32()), ("rollout", pa.int32()), ("outcome", pa.float64()), ("reward", pa.float64()),
    ("tokens", pa.int32()), ("text", pa.string()),
])  # fmt: skip


def _order(seed: int, count: int) -> np.ndarray:
    """The queries shuffled; a counter that no rollout has."""
    bits = np.random.Philox(key=np.array([seed, SCREEN_STREAM], dtype=np.uint64), counter=[0, 0, 0, 1])
    return np.random.Generator(bits).permutation(count)
