"""A run as it was observed: the rows of its rollouts, observed.parquet, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from experiments.folder.store import read_rows, replacing
from theory.trees.prefix_tree import Tokens


@dataclass(frozen=True)
class Observed:
    """A run: rewards (S, T, n), the responses behind them with their log probabilities (S, T, n) when they
    were sampled, how many were unparsable, and its cost."""

    rewards: NDArray[np.float64]
    logprobs: NDArray[np.float64]
    tokens: list[list[list[Tokens]]]
    unparsable: int
    seconds: float

    @property
    def outcomes(self) -> NDArray[np.float64]:
        """(S, T) mean reward of the round's rollouts."""
        return self.rewards.mean(axis=2)

    @property
    def token_count(self) -> int:
        return sum(len(t) for run in self.tokens for turn in run for t in turn)

    def first(self, replicas: int) -> Observed:
        """The run of the first so many replicas; counts and cost stay those of the whole."""
        return replace(
            self,
            rewards=self.rewards[:replicas],
            logprobs=self.logprobs[:replicas],
            tokens=self.tokens[:replicas],
        )


COLUMNS = pa.schema([
    ("replica", pa.int32()),
    ("round", pa.int32()),
    ("query", pa.int32()),
    ("rollout", pa.int32()),
    ("tokens", pa.list_(pa.int32())),
    ("text", pa.string()),
    ("outcome", pa.float64()),
    ("reward", pa.float64()),
    ("logprob", pa.float64()),
])  # fmt: skip


def write_observed(path: Path, rows: Sequence[dict[str, Any]], notes: dict[str, str]) -> None:
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), COLUMNS).replace_schema_metadata(notes), temporary)


def load_observed(out: Path, stage: str) -> Observed | None:
    found = read_rows(out / "observed.parquet", stage)
    if found is None:
        return None
    rows, notes = found
    shape = tuple(1 + max(row[k] for row in rows) for k in ("replica", "round", "rollout"))
    shape = (shape[0], shape[1] - 1, shape[2])
    rewards, logprobs = np.zeros(shape), np.zeros(shape)
    tokens: list[list[list[Tokens]]] = [[[()] * shape[2] for _ in range(shape[1])] for _ in range(shape[0])]
    for row in rows:
        s, t, i = row["replica"], row["round"] - 1, row["rollout"]
        rewards[s, t, i], logprobs[s, t, i] = row["reward"], row["logprob"]
        tokens[s][t][i] = tuple(row["tokens"])
    return Observed(
        rewards, logprobs, tokens, sum(row["outcome"] is None for row in rows), float(notes["seconds"])
    )
