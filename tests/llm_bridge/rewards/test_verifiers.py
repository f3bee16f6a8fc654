"""Verifiers: invariants, then cases worked by hand, then errors."""

import threading
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_bridge.queries.query import Query
from llm_bridge.rewards.verifiers import VERIFIERS, last_boxed, score
from theory.refusal import Refusal

numbers = st.integers(-(10**12), 10**12)
# Words without digits or anything that could join a number.
prose = st.text(alphabet="abcdefgh !?:;\n", max_size=30)


def outcome(verifier: str, answer: str, text: str) -> float | None:
    return Query(prompt="q", answer=answer, verifier=verifier).outcome(text)


@given(number=numbers, before=st.sampled_from(["", " ", "\n"]), after=st.sampled_from(["", ".", " .", ".\n"]))
def test_integer_reads_every_spelling_of_its_answer(number: int, before: str, after: str) -> None:
    for text in (str(number), f"{number:,}", f"{number:+}", f"{number:+,}"):
        assert outcome("integer", str(number), before + text + after) == 1.0


@given(right=numbers, said=numbers)
def test_a_number_is_right_or_wrong_and_never_unparsable(right: int, said: int) -> None:
    for verifier, text in (
        ("integer", f"{said}"),
        ("last_number", f"it is {said}."),
        ("gsm8k", f"#### {said}"),
    ):
        assert outcome(verifier, str(right), text) == float(right == said)


@given(text=prose)
def test_text_without_a_number_is_unparsable(text: str) -> None:
    for verifier in ("integer", "last_number", "gsm8k", "boxed", "math"):
        assert outcome(verifier, "7", text) is None


@given(text=st.text(max_size=60), verifier=st.sampled_from(["integer", "last_number", "gsm8k"]))
def test_any_text_has_an_outcome(text: str, verifier: str) -> None:
    assert outcome(verifier, "7", text) in (0.0, 1.0, None)


@given(before=prose, first=numbers, between=prose, last=numbers)
def test_last_number_ignores_all_but_the_last(before: str, first: int, between: str, last: int) -> None:
    assert outcome("last_number", str(last), f"{before} {first} {between} {last}") == 1.0


@given(inner=st.text(alphabet="ab12+", min_size=1, max_size=10), depth=st.integers(0, 4))
def test_boxed_keeps_matched_braces(inner: str, depth: int) -> None:
    nested = "{" * depth + inner + "}" * depth
    assert last_boxed(f"\\boxed{{0}} then \\boxed{{{nested}}} end }} {{") == nested


@pytest.mark.parametrize(
    ("verifier", "answer", "text", "expected"),
    [
        ("integer", "42", "42", 1.0),
        ("integer", "1,000", "1000.", 1.0),
        ("integer", "-5", "\u22125", 1.0),
        ("integer", "42", "042", 1.0),
        ("integer", "42", "41", 0.0),
        ("integer", "42", "42..", None),
        ("integer", "42", "The answer is 42", None),
        ("integer", "42", "17 + 25 = 42", None),
        ("integer", "42", "4 2", None),
        ("integer", "42", "42.0", None),
        ("integer", "1000", "1,00,0", None),
        ("integer", "42", "", None),
        ("integer", "3", "\u0663", None),  # Arabic-Indic three: no digit of the grammar
        ("last_number", "42", "17 + 25 = 42", 1.0),
        ("last_number", "42", "42.", 1.0),
        ("last_number", "8", "20-8", 1.0),
        ("last_number", "-8", "it is -8", 1.0),
        ("last_number", "0.5", "about .50 m", 1.0),
        ("last_number", "1234", "$1,234", 1.0),
        ("last_number", "3", "1,2,3", 1.0),
        ("last_number", "42", "42 or 43", 0.0),
        ("last_number", "42", "forty-two", None),
        ("gsm8k", "72", "48 + 24 = 72\n#### 72", 1.0),
        ("gsm8k", "She sold 72.\n#### 72", "#### 72", 1.0),
        ("gsm8k", "1,000", "#### 1,000", 1.0),
        ("gsm8k", "72", "#### 7 then #### 72", 1.0),
        ("gsm8k", "72", "72", None),
        ("gsm8k", "72", "####72", None),
        ("gsm8k", "72", "#### $72", None),
        ("gsm8k", "72", "#### 72.", 0.0),  # exact string equality, as published
        ("gsm8k", "72", "#### 72.0", 0.0),
        ("gsm8k", "72", "#### 72" + " " * 300, None),  # beyond the last 300 characters
        ("boxed", r"\frac{1}{2}", r"so \boxed{0.5}", 1.0),
        ("boxed", r"the answer is \boxed{\frac{1}{2}}", r"\boxed{\dfrac12}", 1.0),
        ("boxed", "7", r"\boxed{7} no, \boxed{8}", 0.0),
        ("boxed", "7", r"\boxed{7", None),
        ("boxed", "7", "7", None),
    ],
)
def test_cases(verifier: str, answer: str, text: str, expected: float | None) -> None:
    assert outcome(verifier, answer, text) == expected


def test_a_huge_integer_is_compared_digit_by_digit() -> None:
    """Python's int() refuses more than 4,300 digits; a model may write them."""
    assert outcome("integer", "7", "7" * 5000) == 0.0
    assert VERIFIERS["integer"].parse("9" * 40) == Decimal("9" * 40)


def test_boxed_works_outside_the_main_thread() -> None:
    seen: list[float | None] = []
    worker = threading.Thread(target=lambda: seen.append(outcome("boxed", "7", r"\boxed{14/2}")))
    worker.start()
    worker.join()
    assert seen == [1.0]


def test_score_counts_an_unparsable_response_as_it_is_told() -> None:
    assert np.array_equal(score([1.0, None, 0.0]), [1.0, 0.0, 0.0])
    assert score([], unparsable="error").shape == (0,)
    with pytest.raises(Refusal, match=r"1 of 3 responses are unparsable, the first is rollout 1"):
        score([1.0, None, 0.0], unparsable="error")
    with pytest.raises(Refusal, match="unparsable 'drop' is unknown; choose wrong or error"):
        score([1.0], unparsable="drop")
