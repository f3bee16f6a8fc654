"""Queries: what is asked, and what counts as right. Built in, from a file, from the hub, or from reasoning-gym."""

from __future__ import annotations

import difflib
import json
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError, model_validator

from llm_bridge.hub import hub_rows
from llm_bridge.rows import read_rows
from llm_bridge.verifiers import VERIFIERS, last_boxed
from llm_bridge.warning import QueryWarning


class Query(BaseModel):
    """One query with its verifier.

    Arguments:
        prompt: the text asked, before any chat template.
        answer: the right answer, in the form the verifier parses.
        verifier: a row of `llm_bridge.verifiers.VERIFIERS`.
        name: short label for folders and tables.
        entry: JSON of the reasoning-gym entry, for the verifier reasoning_gym only.
        stop: one character that ends a response beside the model's own end tokens: a newline, for a base model
            that would continue its prompt. The token that holds it belongs to the response.
    Errors: ValidationError where the prompt is empty, the verifier unknown, or the answer one the verifier
        itself cannot parse, and so could never pay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: StrictStr
    answer: StrictStr
    verifier: StrictStr = "last_number"
    name: StrictStr | None = None
    entry: StrictStr | None = Field(default=None, repr=False)
    # Left out where there is none, so that older runs keep their hash.
    stop: StrictStr | None = Field(default=None, exclude_if=lambda stop: stop is None)

    @model_validator(mode="after")
    def _payable(self) -> Query:
        if not self.prompt.strip():
            raise ValueError("prompt is empty; write a question")
        if self.stop is not None and len(self.stop) != 1:
            raise ValueError(
                f"stop {self.stop!r} has {len(self.stop)} characters; give exactly one, such as a newline"
            )
        verifier = VERIFIERS.get(self.verifier)
        if verifier is None:
            raise ValueError(f"verifier {self.verifier!r} is unknown; choose {', '.join(VERIFIERS)}")
        if self.entry is not None and not verifier.entry:
            raise ValueError(
                f"entry is not used by verifier {self.verifier!r}; leave it out, or use reasoning_gym"
            )
        field = "entry" if verifier.entry else "answer"
        gold = getattr(self, field)
        if gold is None or verifier.gold(gold) is None:
            others = ", ".join(name for name in VERIFIERS if name != self.verifier)
            raise ValueError(
                f"{field} {gold!r} cannot be parsed by verifier {self.verifier!r}, which would never pay; "
                f"give {verifier.wants}, or another verifier ({others})"
            )
        return self

    def judged_by(self, verifier: str) -> Query:
        """The same query with another verifier.

        Errors: ValueError that names the query, where its answer is none that verifier can parse.
        """
        entry = self.entry if verifier == self.verifier else None
        try:
            return Query(**{**dict(self), "verifier": verifier, "entry": entry})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"query {self.name or self.prompt!r}: {reason}") from error


def _arithmetic(question: str, answer: int, name: str) -> Query:
    return Query(prompt=f"{question} Reply with only the number.", answer=str(answer), name=name)


BUILTIN: tuple[Query, ...] = (
    _arithmetic("What is 68 - 29?", 39, "68-29"),
    _arithmetic("What is 38 + 47?", 85, "38+47"),
    _arithmetic("What is 9 times 8?", 72, "9x8"),
    _arithmetic("What is 6 times 7?", 42, "6x7"),
    _arithmetic("What is 17 + 25?", 42, "17+25"),
    _arithmetic("What is 20 - 8?", 12, "20-8"),
    _arithmetic("What is 50 - 25?", 25, "50-25"),
    _arithmetic("What is 5 + 3?", 8, "5+3"),
    _arithmetic("What is 3 times 4?", 12, "3x4"),
    _arithmetic("What is 10 + 10?", 20, "10+10"),
    _arithmetic("What is 2 + 2?", 4, "2+2"),
    _arithmetic("What is 1 + 1?", 2, "1+1"),
    _arithmetic("What is 0 + 1?", 1, "0+1"),
    _arithmetic("What is 1 times 1?", 1, "1x1"),
    Query(prompt="Complete: 5 + 5 =", answer="10", name="5+5"),
    Query(prompt="2 + 2 =", answer="4", name="2+2="),
    Query(prompt="What is 1 divided by 1?", answer="1", name="1/1"),
    Query(prompt="Say the number 5.", answer="5", name="say-5"),
    Query(prompt="What is the number 7?", answer="7", name="number-7"),
)
"""Arithmetic, and the naming of numbers, which alone this model does more often than not: base success on
smollm2-135m from about .007 to .8 with 10 tokens. `onearm probe --queries builtin` measures each."""

DEFAULT: Query = next(query for query in BUILTIN if query.name == "17+25")
"""The query of `make overlay`."""


def load_queries(path: str | Path) -> list[Query]:
    """Queries from JSONL or Parquet with rows {"query", "answer"[, "verifier", "name", "stop"]}.

    Errors: ValueError (FileNotFoundError for a missing file) with the file, the line or row, and the fix.
    """
    advice = (
        "wanted are query, answer and, if need be, verifier, name, stop. "
        f"For GSM8K and MATH: --queries gsm8k:{path} or math:{path}"
    )
    queries = [_query(row, place) for place, row in read_rows(path, ("query", "answer"), advice)]
    if not queries:
        raise ValueError(f'queries: {path} is empty; write one {{"query": ..., "answer": ...}} per row')
    return queries


@dataclass(frozen=True)
class DataSet:
    """How a published data set's rows become queries: the column asked, the papers' words after it, the
    final answer out of the column `answer`, and the strict verifier.

    hub: arguments of `datasets.load_dataset`; `solved` is the column that holds the answer there.
    """

    column: str
    suffix: str
    final: Callable[[str], str]
    verifier: str
    hub: Mapping[str, Any]
    solved: str = "answer"


DATA_SETS: dict[str, DataSet] = {
    "gsm8k": DataSet(
        "question",
        ' Let\'s think step by step and output the final answer after "####".',
        lambda solution: solution.rpartition("####")[2].strip(),
        "gsm8k",
        {"path": "openai/gsm8k", "name": "main"},
    ),
    "math": DataSet(
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
    Errors: ValueError (FileNotFoundError for a missing file) with the file, the line or row, and the fix;
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
            raise ValueError(f"queries: {place}: has the columns {there}; {advice}")
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
        query = _query(fields, place)
        queries.append(query.model_copy(update={"answer": answer, "prompt": query.prompt + data.suffix}))
    source = path or data.hub["path"]
    if not queries:
        raise ValueError(f"queries: {source} is empty; {advice}")
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


def reasoning_gym_queries(dataset: str, seed: int, size: int, **config: Any) -> list[Query]:
    """`size` queries of the reasoning-gym data set, scored by its own scorer; the seed names them.

    Errors: ValueError for an unknown data set or setting, or a size below 1.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ImportError("reasoning-gym is not installed; pip install 'onearm[tasks]'") from error

    if size < 1:
        raise ValueError(f"size is {size}; ask for at least 1 query")
    if dataset not in DATASETS:
        near = difflib.get_close_matches(dataset, DATASETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`reasoning_gym.factory.DATASETS` lists them"
        raise ValueError(f"reasoning-gym has no data set {dataset!r}; {hint}")
    try:
        entries = reasoning_gym.create_dataset(dataset, seed=seed, size=size, **config)
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"reasoning-gym data set {dataset!r} rejects its settings {config}: {error}"
        ) from error
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
    Errors: ValueError for a size beyond the set, a split where it changes nothing, and those of `Query.judged_by`.
    """
    queries = _of_source(source, seed, size, split)
    return queries if verifier is None else [query.judged_by(verifier) for query in queries]


def _of_source(source: str, seed: int, size: int | None, split: str | None) -> list[Query]:
    name, colon, path = source.partition(":")
    hub = source in DATA_SETS
    if split is not None and not hub:
        raise ValueError(f"split {split!r} is of gsm8k or math from the hub, not of {source}; leave it out")
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
        raise ValueError(
            f"size is {size}, of {len(queries)} queries in {source}; ask for 1 to {len(queries)}"
        )
    return random.Random(seed).sample(queries, size)


FIELDS = {"query": "prompt"} | {name: name for name in ("answer", "verifier", "name", "entry", "stop")}


def _query(row: Any, place: str) -> Query:
    if not isinstance(row, dict):
        raise ValueError(
            f'queries: {place}: {row!r} is not an object; write {{"query": "...", "answer": "..."}}'
        )
    if unknown := sorted(set(row) - set(FIELDS)):
        raise ValueError(
            f"queries: {place}: unknown field {unknown[0]!r}; the fields are {', '.join(FIELDS)}"
        )
    for field in ("query", "answer"):
        if field not in row:
            raise ValueError(f'queries: {place}: field {field!r} is missing; add "{field}": "..."')
    for field, value in row.items():
        if not isinstance(value, str):
            raise ValueError(
                f"queries: {place}: field {field!r} is {value!r} ({type(value).__name__}), not text; "
                "put it in quotes"
            )
    try:
        return Query(**{FIELDS[field]: value for field, value in row.items()})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"queries: {place}: {reason}") from error
