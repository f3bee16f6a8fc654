"""The built-in queries, which need no file."""

from __future__ import annotations

from llm_bridge.queries.query import Query


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
