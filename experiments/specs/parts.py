"""Parts of a run's spec: which model, what is held out, how much is simulated, where it is probed anew."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules.spec import Count, Spec


class ModelSpec(Spec):
    """Which language model, and how it is held in memory."""

    name: str = "smollm2-135m"
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    source: Literal["auto", "wheel", "hub"] = "auto"


class HeldOut(Spec):
    """Queries that are never trained on.

    Arguments:
        every: rounds from one look at them to the next, the first look being before round 1.
        rollouts: of each query and replica at a look.
    """

    queries: Annotated[tuple[Query, ...], Field(min_length=1)]
    every: Count = 5
    rollouts: Count = 4


class RelineariseSpec(Spec):
    """Where the network is probed anew: `networks` networks, each after these rounds; see `forecast.relinearise`.

    Arguments:
        networks: at least 4, whose mean has an error of finite variance; see `forecast.relinearise.Correction`.
        rollouts: of each of these probes; None is as many as of the base model's.
    """

    rounds: Annotated[tuple[Count, ...], Field(min_length=1)]
    networks: Annotated[int, Field(ge=4)] = 4
    rollouts: Count | None = Field(default=None, exclude_if=lambda rollouts: rollouts is None)

    @model_validator(mode="after")
    def _one_after_the_other(self) -> RelineariseSpec:
        if any(after <= before for before, after in pairwise(self.rounds)):
            raise Refusal(
                f"rounds {', '.join(map(str, self.rounds))} do not increase; give each once, the first one first "
                "(--relinearise 10 --relinearise 20)"
            )
        return self


class ForecastSpec(Spec):
    """How much is simulated: `bootstraps` trees with the probe's noise, `seeds` simulated replicas on each."""

    bootstraps: Count = 16
    seeds: Count = 192
    members: Annotated[int, Field(ge=2)] = 800
    # Left out where there is none, so that records of runs without it keep their hash.
    relinearise: RelineariseSpec | None = Field(default=None, exclude_if=lambda asked: asked is None)
