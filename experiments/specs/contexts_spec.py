"""What a run of several queries is: everything that its result depends on, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from experiments.specs.run_spec import ForecastSpec, ProbeSpec, TrainingSpec
from llm_bridge.network.specs import FullSpec
from llm_bridge.queries.query import Query
from theory.pay import Clean, Pay, no_pay_on_text
from theory.refusal import Refusal
from theory.rules.spec import Count, Spec


class HeldOut(Spec):
    """Queries that are never trained on: every so many rounds, so many rollouts of each are drawn and verified."""

    queries: Annotated[tuple[Query, ...], Field(min_length=1)]
    every: Count = 5
    rollouts: Count = 4


class ContextsSpec(TrainingSpec):
    """Several queries, one model, one rule: the batched contextual bandit of arXiv 2601.22532.

    Arguments:
        batch: queries per round, drawn without replacement by each replica for itself.
        held_out: queries whose success is forecast and observed, and that are not trained on.
        pay: what a verified response is paid; success stays what the query's own verifier says.
    Errors: Refusal for a batch that the queries cannot fill, a query on both sides, or pay that means nothing
        on text.
    """

    queries: Annotated[tuple[Query, ...], Field(min_length=1)]
    batch: Count
    held_out: HeldOut | None = None
    # Left out where it pays the reward itself, so that older runs keep their hash.
    pay: Pay = Field(default=Clean(), exclude_if=lambda pay: pay == Clean())
    rounds: Count = 40
    replicas: Count = 16
    probe: ProbeSpec = ProbeSpec(rollouts=512)
    forecast: ForecastSpec = ForecastSpec(bootstraps=8, seeds=128)

    @model_validator(mode="after")
    def _batch_can_be_filled(self) -> ContextsSpec:
        if isinstance(self.adapter, FullSpec):
            raise Refusal("adapter is full parameters, of one query and replica alone; train adapters here")
        if self.batch > len(self.queries):
            raise Refusal(
                f"batch = {self.batch} of {len(self.queries)} training queries; give 1 to all of them"
            )
        if self.probe.coordinates is not None:
            raise Refusal(
                f"probe.coordinates {self.probe.coordinates} changes nothing in a joint probe, whose forecast has a "
                "kernel; leave it out"
            )
        if self.forecast.relinearise is not None:
            raise Refusal(
                f"forecast.relinearise after rounds {self.forecast.relinearise.rounds} is of one query's forecast; "
                "leave it out of several queries'"
            )
        both = {q.prompt for q in self.queries} & {q.prompt for q in self.apart}
        if both:
            raise Refusal(f"query {min(both)!r} is trained on and held out; leave it out of one of them")
        if (reason := no_pay_on_text(self.pay)) is not None:
            raise Refusal(f"pay {self.pay.kind}: {reason}")
        return self

    @property
    def apart(self) -> tuple[Query, ...]:
        """The held-out queries."""
        return () if self.held_out is None else self.held_out.queries

    @property
    def probed(self) -> ContextsSpec:
        """A spec of the same joint probe: its queries in order, whichever of them are held out and looked at."""
        return self.model_copy(update={"queries": (*self.queries, *self.apart), "held_out": None})

    def stage(self, name: Literal["probe", "forecast", "train", "overlay"]) -> str:
        """12 hex digits that change with any field that stage's result depends on."""
        training = {"rule", "rounds", "replicas", "batch", "pay"}
        return self.digest({
            "probe": {*training, "forecast"},
            "train": {"probe", "forecast"},
            "forecast": set[str](),
            "overlay": set[str](),
        }[name])  # fmt: skip
