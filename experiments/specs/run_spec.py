"""A run as data: queries, one model, one rule; what is probed, forecast, trained and compared."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from theory.pay import Clean, Pay, no_pay_on_text

from experiments.specs.file_spec import FileSpec
from experiments.specs.parts import ForecastSpec, HeldOut, ModelSpec
from experiments.specs.stages import Stage, mark
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules.displaceable import cannot_go_on
from theory.rules.rule import Rule
from theory.rules.spec import Count

SHALLOW = ("tiny-arithmetic",)


def default_adapter(fields: dict[str, Any]) -> AdapterSpec:
    """Of a spec's model: the last 4 blocks, or all where the model of the registry has fewer."""
    model = fields.get("model")
    return AdapterSpec(blocks="all") if model is not None and model.name in SHALLOW else AdapterSpec()


def default_forecast(fields: dict[str, Any]) -> ForecastSpec:
    """Half as many trees of several queries, whose kernel grows with the square of their number."""
    several = len(fields.get("queries", ())) > 1
    return ForecastSpec(bootstraps=8, seeds=128) if several else ForecastSpec()


class RunSpec(FileSpec):
    """Queries, one model, one rule: the batched contextual bandit of arXiv 2601.22532; of one query, 2601.14599.

    Arguments:
        queries: those trained on.
        batch: how many of them a round trains on, drawn without replacement by each replica; default all.
        held_out: queries whose success is forecast and observed, and that are not trained on.
        model: the language model.
        rule: the update rule; its rollouts are per query and round.
        pay: what a verified response is paid; success stays what the query's own verifier says.
        adapter: what is trained: adapters, or every parameter.
        rounds: updates of each replica.
        replicas: independent runs, trained beside one another.
        max_tokens: longest response.
        seed: every random draw follows from it.
        probe, forecast: how the base model is probed, and how much is simulated.
    Errors: Refusal naming field, value and fix, for whatever a spec alone can tell will not work.
    """

    queries: Annotated[tuple[Query, ...], Field(min_length=1)]
    batch: Count = Field(default_factory=lambda fields: max(1, len(fields.get("queries", ()))))
    held_out: HeldOut | None = None
    model: ModelSpec = ModelSpec()
    rule: Rule
    # Left out where it pays the verified reward itself, so that records of such runs keep their hash.
    pay: Pay = Field(default=Clean(), exclude_if=lambda pay: pay == Clean())
    adapter: AdapterSpec | FullSpec = Field(default_factory=default_adapter)
    rounds: Count = 80
    replicas: Count = 32
    max_tokens: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    probe: ProbeSpec = ProbeSpec()
    forecast: ForecastSpec = Field(default_factory=default_forecast)

    @field_validator("queries", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, Query) else value

    @model_validator(mode="after")
    def _queries_fit_together(self) -> RunSpec:
        if self.batch > len(self.queries):
            raise Refusal(
                f"batch = {self.batch} of {len(self.queries)} training queries; give 1 to all of them"
            )
        both = {q.prompt for q in self.queries} & {q.prompt for q in self.apart}
        if both:
            raise Refusal(f"query {min(both)!r} is trained on and held out; leave it out of one of them")
        if (reason := no_pay_on_text(self.pay)) is not None:
            raise Refusal(f"pay {self.pay.kind}: {reason}")
        return self

    @model_validator(mode="after")
    def _coordinates_are_read(self) -> RunSpec:
        if self.probe.coordinates is not None and self.rule.optimiser.linear:
            raise Refusal(
                f"probe.coordinates = {self.probe.coordinates} with optimiser {self.rule.optimiser.kind}, which the "
                "kernel carries; leave coordinates out (--coordinates), or choose adam (--optimiser adam)"
            )
        return self

    @model_validator(mode="after")
    def _relinearised_on_the_way(self) -> RunSpec:
        asked = self.forecast.relinearise
        if asked is None:
            return self
        if reason := cannot_go_on(self.rule):
            raise Refusal(f"forecast.relinearise: {reason}, or leave relinearise out (--relinearise)")
        if asked.rounds[-1] >= self.rounds:
            raise Refusal(
                f"forecast.relinearise after round {asked.rounds[-1]} of {self.rounds} changes nothing; give rounds "
                f"from 1 to {self.rounds - 1} (--relinearise), or more rounds"
            )
        return self

    @model_validator(mode="after")
    def _replicas_there_is_room_for(self) -> RunSpec:
        if self.full and self.replicas != 1:
            raise Refusal(
                f"replicas = {self.replicas} with full parameters, of which only one copy is held; give 1 "
                "(--replicas 1), and another seed for another run"
            )
        if self.full and self.model.dtype == "bfloat16":
            raise Refusal(
                "model.dtype is bfloat16 with full parameters, which lose steps that are small beside a weight; give "
                "float32 (--dtype float32), or train adapters, which are in float32 beside a model in bfloat16"
            )
        if not self.full and self.replicas < 2:
            raise Refusal(
                f"replicas = {self.replicas}; give at least 2 (--replicas), or full parameters (--full)"
            )
        return self

    @property
    def full(self) -> bool:
        """Whether every parameter is trained."""
        return isinstance(self.adapter, FullSpec)

    @property
    def apart(self) -> tuple[Query, ...]:
        """The held-out queries."""
        return () if self.held_out is None else self.held_out.queries

    @property
    def asked(self) -> tuple[Query, ...]:
        """All queries, those trained on first."""
        return (*self.queries, *self.apart)

    @property
    def looks(self) -> range:
        """Rounds before which the held-out queries are looked at, counted from 0."""
        return range(0, self.rounds if self.held_out else 0, self.held_out.every if self.held_out else 1)

    def stage(self, name: Stage) -> str:
        """12 hex digits that change with any field that the stage's result depends on; see `specs.stages`."""
        return mark(self, name)

    def check_forecast(self) -> None:
        """Refuse a run that no forecast can be made of, before anything is measured.

        Errors: Refusal for weight decay of full parameters, and for an optimiser that acts on parameters where the
            probe is to keep none.
        """
        optimiser = self.rule.optimiser
        decay = getattr(optimiser, "weight_decay", 0)
        if decay and self.full:
            raise Refusal(
                f"weight_decay = {decay} with full parameters pulls them towards zero, which no forecast around the "
                "base model holds; give weight_decay 0 (--optimiser adam has none), or train adapters, whose "
                "zero is the base model"
            )
        if not optimiser.linear and self.probe.coordinates is None:
            clip = "" if optimiser.kind == "adam" else " with clip_norm"
            raise Refusal(
                f"optimiser {optimiser.kind}{clip} acts on parameters, and probe.coordinates is None: "
                "give how many of them are to be simulated (--coordinates 4096)"
            )
