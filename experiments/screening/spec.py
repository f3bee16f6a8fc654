"""What a screening is: everything that its result depends on, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from experiments.specs import FileSpec, ModelSpec, mark_of
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules.spec import Count

Probability = Annotated[float, Field(ge=0, le=1)]


class ScreenSpec(FileSpec):
    """Which set is screened for which success p, and how.

    Arguments:
        source: where the queries come from, as --queries has it; `queries` is a digest of what was read there.
        low, high: the range of p wanted.
        budget: rollouts in all.
        batch: rollouts per visit of a query. Half of the budget gives a first visit to budget / (2 batch) queries.
        most: rollouts for one query, after which it stays undecided; None: a fifth of the budget, at least a batch.
        error: chance at which a query in range is dropped.
    """

    source: str
    queries: str
    model: ModelSpec = ModelSpec()
    low: Probability = 0.02
    high: Probability = 0.5
    budget: Count = 2000
    batch: Count = 8
    most: Count | None = None
    max_tokens: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    error: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _sensible(self) -> ScreenSpec:
        if self.low >= self.high:
            raise Refusal(f"p0 {self.low:g}:{self.high:g} holds no p; give LOW:HIGH with LOW below HIGH")
        if (self.low, self.high) == (0, 1):
            raise Refusal("p0 0:1 holds every p, and there is nothing to screen for; narrow it")
        if self.batch > self.budget:
            raise Refusal(
                f"batch {self.batch} is more than budget {self.budget}; lower --batch or raise --budget"
            )
        if self.most is not None and not self.batch <= self.most < self.budget:
            raise Refusal(
                f"most {self.most} is not from batch {self.batch} to below budget {self.budget}; "
                "choose one that is, or leave it out"
            )
        return self

    @property
    def wanted(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def cap(self) -> int:
        return self.most if self.most is not None else max(self.batch, self.budget // 5)

    @property
    def stage(self) -> str:
        return mark_of(self.model_dump(mode="json"))


def digest_of(queries: Sequence[Query]) -> str:
    """12 hex digits that change with any query, or their order."""
    return mark_of([query.model_dump(mode="json") for query in queries])
