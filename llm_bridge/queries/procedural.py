"""Procedural queries, by reasoning-gym."""

from __future__ import annotations

import difflib
import json
from typing import Any

from llm_bridge.queries.query import Query
from theory.extras import refusing
from theory.refusal import Refusal


def reasoning_gym_queries(dataset: str, seed: int, size: int, **config: Any) -> list[Query]:
    """`size` queries of the reasoning-gym data set, scored by its own scorer; the seed names them.

    Errors: Refusal for an unknown data set or setting, a size below 1, or without reasoning-gym.
    """
    with refusing():
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

    if size < 1:
        raise Refusal(f"size is {size}; ask for at least 1 query")
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`reasoning_gym.factory.DATASETS` lists them"
        raise Refusal(f"reasoning-gym has no data set {dataset!r}; {hint}")
    try:
        entries = reasoning_gym.create_dataset(dataset, seed=seed, size=size, **config)
    except (TypeError, AssertionError, ValueError) as error:
        raise Refusal(f"reasoning-gym data set {dataset!r} rejects its settings {config}: {error}") from error
    return [
        Query(
            prompt=entry["question"],
            answer=str(entry["answer"]),
            verifier="reasoning_gym",
            name=f"{dataset}-{seed}-{i}",
            entry=json.dumps(entry, default=str),
        )
        for i, entry in enumerate(entries[k] for k in range(size))
    ]
