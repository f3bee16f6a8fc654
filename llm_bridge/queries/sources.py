"""Queries by what --queries names: built in, a file, a data set, or reasoning-gym."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_bridge.queries.builtin import BUILTIN
from llm_bridge.queries.data_sets import DATA_SETS, data_set_queries
from llm_bridge.queries.procedural import reasoning_gym_queries
from llm_bridge.queries.query import Query, query_of
from llm_bridge.queries.rows import read_rows
from theory.refusal import Refusal


def load_queries(path: str | Path) -> list[Query]:
    """Queries from JSONL or Parquet with rows {"query", "answer"[, "verifier", "name", "stop"]}.

    Errors: Refusal (FileNotFoundError for a missing file) with the file, the line or row, and the fix.
    """
    advice = (
        "wanted are query, answer and, if need be, verifier, name, stop. "
        f"For GSM8K and MATH: --queries gsm8k:{path} or math:{path}"
    )
    queries = [query_of(row, place) for place, row in read_rows(path, ("query", "answer"), advice)]
    if not queries:
        raise Refusal(f'queries: {path} is empty; write one {{"query": ..., "answer": ...}} per row')
    return queries


def parse_source(
    source: str,
    *,
    seed: int = 0,
    size: int | None = None,
    split: str | None = None,
    verifier: str | None = None,
) -> list[Query]:
    """Queries from `builtin`, `reasoning-gym:NAME`, `gsm8k:PATH` or `math:PATH`, `gsm8k` or `math` (hub), or a path.

    Arguments:
        size: so many of them, drawn with the seed and in the order drawn; None: all, in their own order. reasoning-gym
            makes so many, 10 where it is None.
        split: of gsm8k or math from the hub; None: test.
        verifier: takes the place of each query's own.
    Errors: Refusal for a size beyond the set, a split where it changes nothing, and those of `Query.judged_by`.
    """
    queries = _of_source(source, seed, size, split)
    return queries if verifier is None else [query.judged_by(verifier) for query in queries]


@dataclass(frozen=True)
class Source:
    """One kind of source.

    Arguments:
        summary: one line for help texts.
        form: how it is written.
        load: (what stands behind the colon or None, seed, size, split) -> queries, before any are drawn.
        sized: whether `load` makes as many as are asked for, so that none are drawn from what it gives.
    """

    summary: str
    form: str
    load: Callable[[str | None, int, int | None, str], list[Query]]
    sized: bool = False


def _of_data_set(name: str) -> Source:
    return Source(
        DATA_SETS[name].summary,
        f"{name} (from the hub) or {name}:PATH",
        lambda path, seed, size, split: data_set_queries(name, path, split),
    )


SOURCES: dict[str, Source] = {
    "builtin": Source(
        f"{len(BUILTIN)} short queries that need no file",
        "builtin",
        lambda rest, seed, size, split: list(BUILTIN),
    ),
    "reasoning-gym": Source(
        "queries made by the reasoning-gym data set NAME, scored by its own scorer",
        "reasoning-gym:NAME",
        lambda rest, seed, size, split: reasoning_gym_queries(rest or "", seed, 10 if size is None else size),
        sized=True,
    ),
    **{name: _of_data_set(name) for name in DATA_SETS},
}
"""What --queries may name; anything else is the path of a JSONL or Parquet file with rows {"query", "answer"}."""


def _of_source(source: str, seed: int, size: int | None, split: str | None) -> list[Query]:
    name, colon, rest = source.partition(":")
    if split is not None and source not in DATA_SETS:
        raise Refusal(f"split {split!r} is of gsm8k or math from the hub, not of {source}; leave it out")
    # `builtin` takes nothing behind a colon, and reasoning-gym needs a name there: else they are paths.
    if name not in SOURCES or (name == "builtin" and colon) or (name == "reasoning-gym" and not colon):
        queries = load_queries(source)
    else:
        queries = SOURCES[name].load(rest if colon else None, seed, size, split or "test")
        if SOURCES[name].sized:
            return queries
    if size is None:
        return queries
    if not 1 <= size <= len(queries):
        raise Refusal(f"size is {size}, of {len(queries)} queries in {source}; ask for 1 to {len(queries)}")
    return random.Random(seed).sample(queries, size)
