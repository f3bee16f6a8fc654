"""When two MATH answers are the same string, once spelling is set aside (arXiv 2103.03874)."""

from __future__ import annotations

import re

from theory.refusal import Refusal

DROPPED = re.compile(r"\\left|\\right|\^\{\\circ\}|\^\\circ|\\\$|\\%")


def same_answer(answer: str, gold: str) -> bool:
    """normal(answer) == normal(gold), as strings: 1/2 is \\frac12 and 0.5, but 2/4 is not.

    Where one of the two cannot be normalised, they are compared as they stand.
    Source: `is_equiv` of the MATH data set (arXiv 2103.03874, math_equivalence.py), verl's reward for it.
    """
    try:
        return normal(answer) == normal(gold)
    except ValueError:
        return answer == gold


def normal(text: str) -> str:
    """The answer without spaces, units, degrees, percent and a leading `x=`, its fractions and roots braced.

    Errors: Refusal where a \\frac or \\sqrt has no argument, or units are named twice.
    """
    # One order throughout, the source's: double backslashes go first, else they would hide a \left.
    text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = re.sub(r"[td]frac", "frac", text)
    text = DROPPED.sub("", text)
    value, *units = text.split("\\text{ ")
    if len(units) > 1:
        raise Refusal(f"answer {text!r} names units twice")
    text = value.replace(" .", " 0.").replace("{.", "{0.")
    text = f"0{text}" if text.startswith(".") else text
    name, *rest = text.split("=")
    text = rest[0] if len(rest) == 1 and len(name) <= 2 else text
    text = _braced_fractions(_braced_roots(text).replace(" ", ""))
    if text == "0.5":
        return "\\frac{1}{2}"
    if whole := re.fullmatch(r"(-?(?:0|[1-9][0-9]*))/(-?(?:0|[1-9][0-9]*))", text):
        return f"\\frac{{{whole[1]}}}{{{whole[2]}}}"
    return text


def _braced_roots(text: str) -> str:
    first, *rest = text.split("\\sqrt")
    if "" in rest:
        raise Refusal(f"answer {text!r} has a root of nothing")
    return first + "".join(
        "\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}") for part in rest
    )


def _braced_fractions(text: str) -> str:
    first, *rest = text.split("\\frac")
    if "" in rest:
        raise Refusal(f"answer {text!r} has a fraction of nothing")
    if any(part[0] != "{" and len(part) < 2 for part in rest):
        return text
    return first + "".join("\\frac" + _arguments(part) for part in rest)


def _arguments(part: str) -> str:
    if part[0] == "{":
        return part
    below = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
    return f"{{{part[0]}}}{below}"
