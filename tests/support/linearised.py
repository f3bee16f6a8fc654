"""A short run on the enumerable model, whose forecast is relinearised."""

from __future__ import annotations

from experiments.specs import ForecastSpec, ModelSpec, ProbeSpec, RelineariseSpec, RunSpec
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.queries.query import Query
from theory.rules import preset


def spec(**changes) -> RunSpec:
    fields = {
        "queries": Query(prompt="7+6=", answer="13", verifier="integer"),
        "model": ModelSpec(name="tiny-arithmetic", dtype="float64"),
        "rule": preset("minimalist", eta=0.01),
        "adapter": AdapterSpec(rank=2, blocks="all"),
        "rounds": 6,
        "replicas": 4,
        "max_tokens": 3,
        "probe": ProbeSpec(rollouts=200),
        "forecast": small(4),
    }
    return RunSpec(**(fields | changes))


def small(*rounds: int, **changes) -> ForecastSpec:
    asked = RelineariseSpec(rounds=rounds) if rounds else None
    return ForecastSpec(**({"bootstraps": 1, "seeds": 16, "members": 20, "relinearise": asked} | changes))
