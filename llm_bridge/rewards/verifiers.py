"""Verifiers: what a response's text is worth. Every verifier is a row of `VERIFIERS`."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_bridge.rewards.math_answers import same_answer
from theory.refusal import Refusal

Outcome = float | None
"""Reward 1.0 or 0.0, or None where the response holds no answer the verifier can parse."""

INTEGER = re.compile(r"[+\u2212-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
NUMBER = re.compile(
    r"(?:(?<![\w)])[\u2212-])?"  # a sign, unless it subtracts: 20-8 ends in 8
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
GSM8K = re.compile(r"#### (\-?[0-9\.\,]+)")
TIMEOUT = 5


@dataclass(frozen=True)
class Verifier:
    """One verifier.

    Arguments:
        summary: one line for help texts.
        parse: text -> the answer it holds, or None.
        gold: the query's answer -> the same, or None; where it is None the query is rejected.
        same: whether an answer equals the gold one; None where that cannot be decided.
        wants: what a gold answer must look like, for the error message.
        entry: whether a query carries the JSON of its data-set entry, which `gold` then gets.
    """

    summary: str
    parse: Callable[[str], Any]
    gold: Callable[[str], Any]
    same: Callable[[Any, Any], bool | None]
    wants: str
    entry: bool = False


def verify(verifier: str, gold: str, text: str) -> Outcome:
    """The outcome of one response: 1.0 right, 0.0 wrong, None unparsable.

    Arguments:
        verifier: a row of `VERIFIERS`.
        gold: the right answer as its `gold` parses it: a query's answer, or the JSON of its entry.
    """
    row = VERIFIERS[verifier]
    answer = row.parse(text)
    if answer is None:
        return None
    same = row.same(answer, row.gold(gold))
    return None if same is None else float(same)


def score(outcomes: Sequence[Outcome], *, unparsable: str = "wrong") -> NDArray[np.float64]:
    """Rewards (R,) of outcomes (R,): an unparsable response is `wrong` (reward 0) or an `error`.

    Errors: Refusal under `error`, with the first unparsable rollout and their number; unknown policy.
    """
    if unparsable not in ("wrong", "error"):
        raise Refusal(f"unparsable {unparsable!r} is unknown; choose wrong or error")
    missing = [i for i, outcome in enumerate(outcomes) if outcome is None]
    if missing and unparsable == "error":
        raise Refusal(
            f"{len(missing)} of {len(outcomes)} responses are unparsable, the first is rollout {missing[0]}; "
            "allow more tokens, choose another verifier, or score them with unparsable='wrong'"
        )
    return np.array([0.0 if outcome is None else outcome for outcome in outcomes])


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("\u2212", "-"))


def _integer(text: str) -> Decimal | None:
    text = text.strip().removesuffix(".").rstrip()
    return _decimal(text) if INTEGER.fullmatch(text) else None


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def _one_number(text: str) -> Decimal | None:
    return _decimal(text.strip()) if NUMBER.fullmatch(text.strip()) else None


def _gsm8k(text: str) -> str | None:
    found = GSM8K.findall(text[-300:])
    return found[-1].replace(",", "").replace("$", "") if found else None


def _gsm8k_gold(text: str) -> str | None:
    number = text.rpartition("####")[2].strip().replace(",", "").replace("$", "")
    return number if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", number) else None


def last_boxed(text: str) -> str | None:
    """The contents of the last closed \\boxed{...}, braces matched."""
    for start in reversed([match.end() for match in re.finditer(r"\\boxed\s*\{", text)]):
        depth = 1
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start:end]
    return None


def _seconds() -> int | None:
    """math-verify's time-outs are signals, which only the main thread may set."""
    return TIMEOUT if threading.current_thread() is threading.main_thread() else None


def _expression(text: str) -> list[Any] | None:
    import math_verify

    return math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=_seconds()) or None  # pyright: ignore[reportArgumentType]


def _boxed(text: str) -> list[Any] | None:
    inside = last_boxed(text)
    return None if inside is None else _expression(inside)


def _boxed_gold(text: str) -> list[Any] | None:
    inside = last_boxed(text)
    return _expression(text if inside is None else inside)


def _math_gold(text: str) -> str | None:
    inside = last_boxed(text)
    return (text if inside is None else inside).strip() or None


def _equal_expressions(answer: list[Any], gold: list[Any]) -> bool | None:
    import math_verify
    from math_verify.errors import TimeoutException

    try:
        return math_verify.verify(gold, answer, timeout_seconds=_seconds(), raise_on_error=True)
    except TimeoutException:
        return None


def _tagged(text: str) -> str | None:
    """What stands in the last <answer> tag, else the whole text."""
    found = re.findall(r"<answer>(.*?)</answer>", text, flags=re.DOTALL)
    return (found[-1] if found else text).strip() or None


def _entry(text: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(text)
        whole = {"question", "answer"} <= set(entry) and "source_dataset" in entry["metadata"]
    except (ValueError, KeyError, TypeError):
        return None
    return entry if whole else None


def _scored(answer: str, entry: dict[str, Any]) -> bool:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(entry["metadata"]["source_dataset"])(answer, entry) >= 1  # pyright: ignore[reportCallIssue]


def _equal(answer: Any, gold: Any) -> bool:
    return bool(answer == gold)


VERIFIERS: dict[str, Verifier] = {
    "integer": Verifier(
        "the whole response is one integer", _integer, _integer, _equal, "one integer, such as 42 or -1,000"
    ),
    "last_number": Verifier(
        "the last number in the response", _last_number, _one_number, _equal, "one number, such as 42 or 0.5"
    ),
    "gsm8k": Verifier(
        "the number after the last '#### '",
        _gsm8k,
        _gsm8k_gold,
        _equal,
        "a number, or a solution ending in '#### 42'",
    ),
    "boxed": Verifier(
        "the last \\boxed{}, compared by math-verify",
        _boxed,
        _boxed_gold,
        _equal_expressions,
        "a LaTeX expression, such as \\frac{1}{2}",
    ),
    "math": Verifier(
        "the last \\boxed{}, equal as a string once spelling is set aside (MATH's own reward)",
        last_boxed,
        _math_gold,
        same_answer,
        "an answer, plain or in \\boxed{}",
    ),
    "reasoning_gym": Verifier(
        "full marks from the data set's own scorer",
        _tagged,
        _entry,
        _scored,
        "an entry as reasoning_gym_queries makes it (JSON: question, answer, metadata.source_dataset)",
        entry=True,
    ),
}
