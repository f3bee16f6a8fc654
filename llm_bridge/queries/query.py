"""A query: what is asked, and what counts as right; and the row of a file that says so."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictStr, model_validator

from llm_bridge.rewards.verifiers import VERIFIERS, Outcome, verify
from theory.refusal import Refusal
from theory.rules.spec import Spec


class Query(Spec):
    """One query with its verifier.

    Arguments:
        prompt: the text asked, before any chat template.
        answer: the right answer, in the form the verifier parses.
        verifier: a row of `llm_bridge.rewards.verifiers.VERIFIERS`.
        name: short label for folders and tables.
        entry: JSON of the reasoning-gym entry, for the verifier reasoning_gym only.
        stop: one character that ends a response beside the model's own end tokens: a newline, for a base model
            that would continue its prompt. The token that holds it belongs to the response.
    Errors: Refusal where the prompt is empty, the verifier unknown, or the answer one the verifier
        itself cannot parse, and so could never pay.
    """

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
            raise Refusal("prompt is empty; write a question")
        if self.stop is not None and len(self.stop) != 1:
            raise Refusal(
                f"stop {self.stop!r} has {len(self.stop)} characters; give exactly one, such as a newline"
            )
        verifier = VERIFIERS.get(self.verifier)
        if verifier is None:
            raise Refusal(f"verifier {self.verifier!r} is unknown; choose {', '.join(VERIFIERS)}")
        if self.entry is not None and not verifier.entry:
            raise Refusal(
                f"entry is not used by verifier {self.verifier!r}; leave it out, or use reasoning_gym"
            )
        field = "entry" if verifier.entry else "answer"
        gold = getattr(self, field)
        if gold is None or verifier.gold(gold) is None:
            others = ", ".join(name for name in VERIFIERS if name != self.verifier)
            raise Refusal(
                f"{field} {gold!r} cannot be parsed by verifier {self.verifier!r}, which would never pay; "
                f"give {verifier.wants}, or another verifier ({others})"
            )
        return self

    def outcome(self, text: str) -> Outcome:
        """What its verifier says of a response's text: 1.0 right, 0.0 wrong, None unparsable."""
        given = self.entry if VERIFIERS[self.verifier].entry else None
        return verify(self.verifier, given or self.answer, text)

    def judged_by(self, verifier: str) -> Query:
        """The same query with another verifier.

        Errors: Refusal that names the query, where its answer is none that verifier can parse.
        """
        entry = self.entry if verifier == self.verifier else None
        try:
            return Query(**{**dict(self), "verifier": verifier, "entry": entry})
        except Refusal as error:
            raise Refusal(f"query {self.name or self.prompt!r}: {error}") from error


FIELDS = {"query": "prompt"} | {name: name for name in ("answer", "verifier", "name", "entry", "stop")}


def query_of(row: Any, place: str) -> Query:
    """The query of a row with `FIELDS`. Errors: Refusal with the place, the field and the fix."""
    if not isinstance(row, dict):
        raise Refusal(
            f'queries: {place}: {row!r} is not an object; write {{"query": "...", "answer": "..."}}'
        )
    if unknown := sorted(set(row) - set(FIELDS)):
        raise Refusal(f"queries: {place}: unknown field {unknown[0]!r}; the fields are {', '.join(FIELDS)}")
    for field in ("query", "answer"):
        if field not in row:
            raise Refusal(f'queries: {place}: field {field!r} is missing; add "{field}": "..."')
    for field, value in row.items():
        if not isinstance(value, str):
            raise Refusal(
                f"queries: {place}: field {field!r} is {value!r} ({type(value).__name__}), not text; "
                "put it in quotes"
            )
    try:
        return Query(**{FIELDS[field]: value for field, value in row.items()})
    except Refusal as error:
        raise Refusal(f"queries: {place}: {error}") from error
