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
from experiments.specs import RunSpec
from theory.trees.prefix_tree import Tokens

Array = NDArray[np.float64]
OBSERVED = "observed.parquet"
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


@dataclass(frozen=True)
class Observed:
    """A run of S replicas over T rounds, R = B n rollouts each, and the looks at its held-out queries.

    Arguments:
        outcomes: (S, T, R) 1 for a correct response, whatever it was paid; 0 for a wrong or an unparsable one.
        rewards: (S, T, R) what was paid.
        logprobs: (S, T, R) of the responses, when they were sampled.
        query: (S, T, R) the training query that the rollout answers.
        tokens: the responses, replica by replica, round by round.
        held_out: (S, E, H, m) outcomes of m rollouts of the H held-out queries at each of E looks.
        unparsable: how many of the rollouts trained on held no answer.
        seconds: what training took.
    """

    outcomes: Array
    rewards: Array
    logprobs: Array
    query: NDArray[np.int64]
    tokens: list[list[list[Tokens]]]
    held_out: Array
    unparsable: int
    seconds: float

    def success(self, name: str) -> Array:
        """(S, T) mean outcome of each round's rollouts ("training"), (S, E) of each look ("held_out")."""
        return self.outcomes.mean(axis=2) if name == "training" else self.held_out.mean(axis=(2, 3))

    @property
    def token_count(self) -> int:
        return sum(len(t) for run in self.tokens for turn in run for t in turn)

    def first(self, replicas: int) -> Observed:
        """The run of the first so many replicas; counts and cost stay those of the whole."""
        names = ("outcomes", "rewards", "logprobs", "query", "tokens", "held_out")
        return replace(self, **{name: getattr(self, name)[:replicas] for name in names})


def write_observed(path: Path, rows: Sequence[dict[str, Any]], notes: dict[str, str]) -> None:
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), COLUMNS).replace_schema_metadata(notes), temporary)


def load_observed(out: Path, spec: RunSpec) -> Observed | None:
    """The finished run of a spec in its folder; None where there is none."""
    found = read_rows(out / OBSERVED, spec.stage("train"))
    if found is None:
        return None
    rows, notes = found
    training, apart = len(spec.queries), len(spec.apart)
    held, looks = spec.held_out, len(spec.looks)
    shape = (spec.replicas, spec.rounds, spec.batch * spec.rule.rollouts)
    outcomes, rewards, logprobs = np.zeros((3, *shape))
    query = np.zeros(shape, dtype=np.int64)
    tokens: list[list[list[Tokens]]] = [[[()] * shape[2] for _ in range(shape[1])] for _ in range(shape[0])]
    seen = np.zeros((spec.replicas, looks, apart, held.rollouts if held else 0))
    unparsable = 0
    for row in rows:
        s, t, q, i = row["replica"], row["round"] - 1, row["query"], row["rollout"]
        if q >= training:
            assert held is not None
            seen[s, t // held.every, q - training, i] = row["reward"]
            continue
        outcomes[s, t, i] = row["outcome"] or 0.0  # None: unparsable, which is wrong
        unparsable += row["outcome"] is None
        rewards[s, t, i], logprobs[s, t, i], query[s, t, i] = row["reward"], row["logprob"], q
        tokens[s][t][i] = tuple(row["tokens"])
    return Observed(outcomes, rewards, logprobs, query, tokens, seen, unparsable, float(notes["seconds"]))
