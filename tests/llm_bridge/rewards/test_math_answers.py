"""MATH's string equality: the spellings it sets aside, and what it keeps apart, one case per rule of the source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_bridge.rewards.math_answers import normal, same_answer
from theory.refusal import Refusal

digits = st.integers(1, 9)


@given(a=digits, b=digits, c=digits, d=digits)
def test_spellings_of_a_fraction_are_one_and_fractions_are_strings(a: int, b: int, c: int, d: int) -> None:
    spelled = [
        f"{a}/{b}",
        f"\\frac{a}{b}",
        f"\\dfrac{{{a}}}{{{b}}}",
        f"\\tfrac {a}{{{b}}}",
        f"x={a} / {b}",
    ]
    assert all(same_answer(one, other) for one in spelled for other in spelled)
    assert same_answer(f"{a}/{b}", f"\\frac{{{c}}}{{{d}}}") == ((a, b) == (c, d))


@given(st.text(alphabet="\\{}frac sqrtex./=$%1a", max_size=20), st.text(max_size=5))
def test_any_two_answers_are_the_same_or_not_and_each_is_itself(text: str, other: str) -> None:
    assert same_answer(text, text)
    assert same_answer(text, other) == same_answer(other, text)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("0.5", r"\frac{1}{2}", True),
        (".5", r"\frac12", True),
        ("0.25", r"\frac14", False),  # only one half is known
        ("2/4", "1/2", False),
        ("a/b", r"\frac{a}{b}", False),  # only integers
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", True),
        (r"\sqrt3", r"\sqrt{3}", True),
        (r"90^\circ", "90", True),
        (r"90^{\circ}", "90", True),
        (r"\$18", "18", True),
        (r"12\%", "12", True),
        (r"10\text{ cm}", "10", True),
        (r"\text{east}", "east", False),
        ("k=5", "5", True),
        ("xyz=5", "5", False),  # the name is longer than two characters
        (r"1{,}000", "1000", False),
        (r"1,\!000", "1,000", True),
        ("18.0", "18", False),
        (r"\frac", r"\frac", True),  # cannot be normalised
        ("", "0", False),
    ],
)
def test_cases(answer: str, gold: str, same: bool) -> None:
    assert same_answer(answer, gold) is same


@pytest.mark.parametrize("text", [r"\frac", r"\sqrt", r"1\text{ a}\text{ b}"])
def test_what_cannot_be_normalised_says_so(text: str) -> None:
    with pytest.raises(Refusal, match="answer"):
        normal(text)
