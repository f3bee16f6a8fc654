"""Specifications: everything that determines a run, as data."""

from __future__ import annotations

import hashlib
import json
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import Field, model_validator

from experiments.forecast.relinearisable import refusal
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.queries.query import Query
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.rules.spec import Count, Spec

F = TypeVar("F", bound="FileSpec")
SHALLOW = ("tiny-arithmetic",)
TREE = 3
"""Raised whenever a probe's rollouts make another tree than before: results of older trees are made again."""


class ModelSpec(Spec):
    """Which language model, and how it is held in memory."""

    name: str = "smollm2-135m"
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    source: Literal["auto", "wheel", "hub"] = "auto"


class RelineariseSpec(Spec):
    """Where the network is probed anew: `networks` networks, each after these rounds; see `forecast.relinearise`.

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
    # Left out where there is none, so that older forecasts keep their hash.
    relinearise: RelineariseSpec | None = Field(default=None, exclude_if=lambda asked: asked is None)


def default_adapter(fields: dict[str, Any]) -> AdapterSpec:
    """Of a spec's model: the last 4 blocks, or all where the model of the registry has fewer."""
    model = fields.get("model")
    return AdapterSpec(blocks="all") if model is not None and model.name in SHALLOW else AdapterSpec()


class FileSpec(Spec):
    """A spec that a run folder is named by: spec.toml."""

    def write(self, path: Path) -> None:
        write_toml(path, self)

    @classmethod
    def read(cls: type[F], path: Path) -> F:
        """Errors: Refusal naming the file and the field."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except (tomllib.TOMLDecodeError, Refusal) as error:
            raise Refusal(f"{path}: {error}") from error

    def differences(self, other: FileSpec) -> list[str]:
        """Fields in which two specs differ, as 'field: old -> new'."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key}: {mine.get(key)} -> {theirs.get(key)}"
            for key in sorted(mine | theirs)
            if mine.get(key) != theirs.get(key)
        ]

    def digest(self, leave_out: set[str]) -> str:
        """12 hex digits that change with any field but those left out."""
        data = self.model_dump(mode="json", exclude=leave_out) | {"tree": TREE}
        return mark_of(data)


class TrainingSpec(FileSpec):
    """A model trained under a rule, probed and forecast before: what runs of one query and of several share."""

    model: ModelSpec = ModelSpec()
    rule: Rule
    adapter: AdapterSpec | FullSpec = Field(default_factory=default_adapter)
    rounds: Count = 80
    replicas: Count = 32
    max_tokens: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    probe: ProbeSpec = ProbeSpec()
    forecast: ForecastSpec = ForecastSpec()

    @model_validator(mode="after")
    def _coordinates_are_read(self) -> TrainingSpec:
        if self.probe.coordinates is not None and self.rule.optimiser.linear:
            raise Refusal(
                f"probe.coordinates = {self.probe.coordinates} with optimiser {self.rule.optimiser.kind}, which the "
                "kernel carries; leave coordinates out (--coordinates), or choose adam (--optimiser adam)"
            )
        return self

    @model_validator(mode="after")
    def _relinearised_on_the_way(self) -> TrainingSpec:
        asked = self.forecast.relinearise
        if asked is None:
            return self
        if reason := refusal(self.rule):
            raise Refusal(f"forecast.relinearise: {reason}, or leave relinearise out (--relinearise)")
        if asked.rounds[-1] >= self.rounds:
            raise Refusal(
                f"forecast.relinearise after round {asked.rounds[-1]} of {self.rounds} changes nothing; give rounds "
                f"from 1 to {self.rounds - 1} (--relinearise), or more rounds"
            )
        return self

    @model_validator(mode="after")
    def _replicas_there_is_room_for(self) -> TrainingSpec:
        full = isinstance(self.adapter, FullSpec)
        if full and self.replicas != 1:
            raise Refusal(
                f"replicas = {self.replicas} with full parameters, of which only one copy is held; give 1 "
                "(--replicas 1), and another seed for another run"
            )
        if full and self.model.dtype == "bfloat16":
            raise Refusal(
                "model.dtype is bfloat16 with full parameters, which lose steps that are small beside a weight; give "
                "float32 (--dtype float32), or train adapters, which are in float32 beside a model in bfloat16"
            )
        if not full and self.replicas < 2:
            raise Refusal(
                f"replicas = {self.replicas}; give at least 2 (--replicas), or full parameters (--full)"
            )
        return self


class RunSpec(TrainingSpec):
    """One query, one model, one rule: what `onearm overlay` forecasts, trains and compares."""

    query: Query

    def stage(self, name: Literal["probe", "forecast", "train", "overlay"]) -> str:
        """12 hex digits that change with any field that stage's result depends on."""
        fields = {
            "probe": {"query", "model", "adapter", "max_tokens", "seed", "probe"},
            "forecast": {
                "query",
                "model",
                "adapter",
                "max_tokens",
                "seed",
                "probe",
                "rule",
                "rounds",
                "replicas",
                "forecast",
            },
            "train": {"query", "model", "adapter", "max_tokens", "seed", "rule", "rounds", "replicas"},
            "overlay": None,
        }[name]
        data = self.model_dump(mode="json", include=fields)
        if name != "train":
            data["tree"] = TREE
        return mark_of(data)


def mark_of(data: Any) -> str:
    """12 hex digits of the SHA-256 of JSON-able data; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def write_toml(path: Path, spec: Spec) -> None:
    """A spec as TOML, which has no null: fields that are None are left out."""
    path.write_text(tomli_w.dumps(_without_none(spec.model_dump(mode="json"))))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return flat
