"""Published data sets as queries: GSM8K and MATH, from a local file or from the hub."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_bridge.models.hub import hub_rows
from llm_bridge.queries.query import Query, query_of
from llm_bridge.queries.rows import read_rows
from llm_bridge.rewards.verifiers import last_boxed
from theory.refusal import Refusal
from theory.warning import QueryWarning


@dataclass(frozen=True)
class DataSet:
    """How a published data set's rows become queries.

    Arguments:
        summary: one line for help texts.
        column, suffix: the column asked, and the papers' words after it.
        final: the final answer out of the column `answer`.
        verifier: the strict one.
        hub: arguments of `datasets.load_dataset`; `solved` is the column that holds the answer there.
    """

    summary: str
    column: str
    suffix: str
    final: Callable[[str], str]
    verifier: str
    hub: Mapping[str, Any]
    solved: str = "answer"


DATA_SETS: dict[str, DataSet] = {
    "gsm8k": DataSet(
        "grade-school word problems (arXiv 2110.14168), the answer after ####",
        "question",
        ' Let\'s think step by step and output the final answer after "####".',
        lambda solution: solution.rpartition("####")[2].strip(),
        "gsm8k",
        {"path": "openai/gsm8k", "name": "main"},
    ),
    "math": DataSet(
        "competition mathematics (arXiv 2103.03874), the answer in \\boxed{}",
        "problem",
        " Let's think step by step and output the final answer within \\boxed{}.",
        lambda answer: answer if (inside := last_boxed(answer)) is None else inside,
        "math",
        {"path": "DigitalLearningGmbH/MATH-lighteval"},
        solved="solution",
    ),
}
"""GSM8K (arXiv 2110.14168) and MATH (arXiv 2103.03874), prompts and rewards as verl has them."""


def data_set_queries(name: str, path: str | Path | None, split: str = "test") -> list[Query]:
    """Queries of a row of `DATA_SETS`, from a local file in its published layout, or (None) from the hub.

    Other columns are not read. Rows without a question or with an answer that cannot be parsed are errors; rows whose
    answer is empty, as two of MATH's training set are, could never be paid: they are left out.

    Arguments:
        split: of the hub's data set; a file is one split already.
    Errors: Refusal (FileNotFoundError for a missing file) with the file, the line or row, and the fix;
        those of `hub_rows`.
    Warns: `QueryWarning` naming the rows left out.
    """
    data = DATA_SETS[name]
    wanted = (data.column, "answer")
    advice = f"{name} wants {' and '.join(wanted)}"
    rows = hub_queries(name, data, split) if path is None else read_rows(path, wanted, advice)
    queries: list[Query] = []
    empty: list[int] = []
    for number, (place, row) in enumerate(rows):
        if not isinstance(row, dict) or not set(wanted) <= set(row):
            there = ", ".join(row) if isinstance(row, dict) else "none"
            raise Refusal(f"queries: {place}: has the columns {there}; {advice}")
        answer = data.final(row["answer"]) if isinstance(row["answer"], str) else row["answer"]
        if isinstance(answer, str) and not answer.strip():
            empty.append(number + 1)
            continue
        fields = {
            "query": row[data.column],
            "answer": row["answer"],
            "verifier": data.verifier,
            "name": f"{name}-{number}",
        }
        query = query_of(fields, place)
        queries.append(query.model_copy(update={"answer": answer, "prompt": query.prompt + data.suffix}))
    source = path or data.hub["path"]
    if not queries:
        raise Refusal(f"queries: {source} is empty; {advice}")
    if empty:
        word = "row" if len(empty) == 1 else "rows"
        warnings.warn(
            f"{len(empty)} {word} of {len(queries) + len(empty):,} of {source} left out: "
            f"{word} {', '.join(map(str, empty[:10]))}{', ...' if len(empty) > 10 else ''}: empty answer",
            QueryWarning,
            stacklevel=2,
        )
    return queries


def hub_queries(name: str, data: DataSet, split: str) -> Iterator[tuple[str, Any]]:
    """The hub's rows in the layout of the local files: an answer that stands in a solution is its last box."""
    for place, row in hub_rows(name, data.hub, split):
        if data.solved != "answer" and data.solved in row:
            row = {data.column: row[data.column], "answer": last_boxed(row[data.solved]) or ""}
        yield place, row
