"""What a variant runs, in words that every world understands."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from theory.pay import Clean, Pay
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.rules.spec import Count, Spec

Difficulty = Literal["easy", "medium", "hard", "extremely_hard"]
OVERLAP = 0.3


class Configuration(Spec):
    """A rule on queries; each world turns it into a spec of its own, or says why it cannot.

    Arguments:
        rule: the update rule; its eta is in units of the world's own step for that optimiser.
        pay: what a response is paid.
        difficulty: by the base success probability p0, which every world lists; of the single query.
        queries: training queries Q; 1 is the papers' bottom layer, more are a spectrum of difficulties.
        batch: queries B per round.
        overlap: share of features that queries have in common, a trait of the base model.
        shared: whether responses share features, also of the base model; false is one query of free logits, where
            there is nothing held out.
    Errors: Refusal naming the field, its value and the fix.
    """

    rule: Rule
    pay: Pay = Clean()
    difficulty: Difficulty = "medium"
    queries: Count = 1
    batch: Count = 1
    overlap: Annotated[float, Field(ge=0, le=1)] = OVERLAP
    shared: bool = True

    @model_validator(mode="after")
    def _every_field_has_an_effect(self) -> Configuration:
        if self.batch > self.queries:
            raise Refusal(
                f"batch = {self.batch} of queries = {self.queries}; give at most as many as there are"
            )
        if self.queries > 1 and self.difficulty != "medium":
            raise Refusal(
                f"difficulty = {self.difficulty!r} with queries = {self.queries}: several queries are a spectrum; "
                "leave it out"
            )
        if not self.shared and (self.queries > 1 or self.overlap != OVERLAP):
            raise Refusal(
                "shared = false is one query of free logits, to which queries and overlap mean nothing; leave them out"
            )
        return self

    def paid(self) -> tuple[float, float]:
        """Mean pay of a wrong and of a correct response."""
        zero = np.zeros(1)
        laws = [self.pay.law(np.full(1, truth), zero, zero) for truth in (0.0, 1.0)]
        wrong, correct = (sum(float(r[0]) * float(c[0]) for r, c in zip(*law, strict=True)) for law in laws)
        return wrong, correct
