"""Pay by a line of text, as a command line has it."""

from __future__ import annotations

import re
from typing import Any

from theory.pay.kinds import PAYS, PaySpec, Shaped
from theory.refusal import Refusal


def named_pay(text: str) -> Any:
    """The pay that a line of text names: KIND, KIND:FIELD=VALUE,..., or a sum of such terms with their weights.

    plus_minus | noisy:false_positive=.1,pays=plus_minus | clean+.5*overlong:limit=64,buffer=16

    Arguments:
        text: a hyphen in the name of a kind or a field is an underscore.
    Errors: Refusal naming the kinds, or the field that is wrong.
    """
    terms = re.split(r"\+(?=\s*(?:[^+*,:=]*\*)?\s*[A-Za-z])", text)  # 1e+3 is a number
    try:
        if len(terms) == 1 and "*" not in text:
            return _one_pay(text)
        weighed = [term.rpartition("*") for term in terms]
        return Shaped.model_validate({
            "terms": [{"pays": _one_pay(pay)} | ({"weight": w} if star else {}) for w, star, pay in weighed]
        })  # fmt: skip
    except Refusal as error:
        raise Refusal(f"pay {text!r}: {error}") from None


def _one_pay(text: str) -> PaySpec:
    kind, _, rest = (part.strip() for part in text.partition(":"))
    kind = kind.replace("-", "_")
    if kind not in PAYS:
        raise Refusal(f"{kind!r} is unknown; choose {', '.join(PAYS)}")
    if kind == "shaped":
        raise Refusal("write the sum of its terms, such as clean+.5*overlong:limit=64,buffer=16")
    fields: dict[str, Any] = {}
    for item in rest.split(",") if rest else ():
        field, equals, value = (part.strip() for part in item.partition("="))
        field = field.replace("-", "_")
        if not equals or field in fields:
            raise Refusal(f"{item!r}; give each field once, as {kind}:FIELD=VALUE,FIELD=VALUE")
        fields[field] = {"kind": value.replace("-", "_")} if field == "pays" else value
    return PAYS[kind](**fields)
