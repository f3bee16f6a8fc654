"""Queries by what --queries names: built in, a file, a data set, or reasoning-gym."""

from __future__ import annotations

import random
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


def _of_source(source: str, seed: int, size: int | None, split: str | None) -> list[Query]:
    name, colon, path = source.partition(":")
    hub = source in DATA_SETS
    if split is not None and not hub:
        raise Refusal(f"split {split!r} is of gsm8k or math from the hub, not of {source}; leave it out")
    if name == "reasoning-gym" and colon:
        return reasoning_gym_queries(path, seed, 10 if size is None else size)
    if source == "builtin":
        queries = list(BUILTIN)
    elif hub or (colon and name in DATA_SETS):
        queries = data_set_queries(name, None if hub else path, split or "test")
    else:
        queries = load_queries(source)
    if size is None:
        return queries
    if not 1 <= size <= len(queries):
        raise Refusal(f"size is {size}, of {len(queries)} queries in {source}; ask for 1 to {len(queries)}")
    return random.Random(seed).sample(queries, size)
