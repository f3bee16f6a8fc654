"""Queries: what is asked, and what counts as right. Built in, from a file, or from reasoning-gym."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError, model_validator

from llm_bridge.rows import read_rows
from llm_bridge.verifiers import VERIFIERS, last_boxed


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
    final answer out of the column `answer`, and the strict verifier."""

    column: str
    suffix: str
    final: Callable[[str], str]
    verifier: str


DATA_SETS: dict[str, DataSet] = {
    "gsm8k": DataSet(
        "question",
        ' Let\'s think step by step and output the final answer after "####".',
        lambda solution: solution.rpartition("####")[2].strip(),
        "gsm8k",
    ),
    "math": DataSet(
        "problem",
        " Let's think step by step and output the final answer within \\boxed{}.",
        lambda answer: answer if (inside := last_boxed(answer)) is None else inside,
        "math",
    ),
}
"""GSM8K (arXiv 2110.14168) and MATH (arXiv 2103.03874), prompts and rewards as verl has them."""


def data_set_queries(name: str, path: str | Path) -> list[Query]:
    """Queries from a local file of a row of `DATA_SETS`, in its published layout; other columns are not read.

    Errors: ValueError (FileNotFoundError for a missing file) with the file, the line or row, and the fix.
    """
    data = DATA_SETS[name]
    wanted = (data.column, "answer")
    advice = f"{name} wants {' and '.join(wanted)}"
    queries: list[Query] = []
    for place, row in read_rows(path, wanted, advice):
        if not isinstance(row, dict) or not set(wanted) <= set(row):
            there = ", ".join(row) if isinstance(row, dict) else "none"
            raise ValueError(f"queries: {place}: has the columns {there}; {advice}")
        fields = {
            "query": row[data.column],
            "answer": row["answer"],
            "verifier": data.verifier,
            "name": f"{name}-{len(queries)}",
        }
        query = _query(fields, place)
        queries.append(
            query.model_copy(
                update={"answer": data.final(query.answer), "prompt": query.prompt + data.suffix}
            )
        )
    if not queries:
        raise ValueError(f"queries: {path} is empty; {advice}")
    return queries


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


def parse_source(source: str, *, seed: int = 0, size: int = 10) -> list[Query]:
    """Queries from `builtin`, `reasoning-gym:NAME` (with seed and size), `gsm8k:PATH`, `math:PATH`, or a path."""
    if source == "builtin":
        return list(BUILTIN)
    if source.startswith("reasoning-gym:"):
        return reasoning_gym_queries(source.removeprefix("reasoning-gym:"), seed, size)
    name, colon, path = source.partition(":")
    if colon and name in DATA_SETS:
        return data_set_queries(name, path)
    return load_queries(source)


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
