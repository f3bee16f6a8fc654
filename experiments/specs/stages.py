"""The mark of a stage: 12 hex digits that change with everything its result depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from experiments.specs.file_spec import mark_of

if TYPE_CHECKING:
    from experiments.specs import RunSpec

Stage = Literal["probe", "forecast", "train", "overlay"]
TREE = 3
"""Raised whenever a probe's rollouts make another tree than before: results of older trees are made again."""
AFTER_THE_PROBE = {"rule", "rounds", "replicas", "batch", "pay", "forecast"}
NOT_MATTERING: dict[Stage, set[str]] = {
    # Which of the queries are held out, and how often they are looked at, changes no probe: all are probed alike.
    "probe": {*AFTER_THE_PROBE, "held_out"},
    "forecast": set(),
    "train": {"probe", "forecast"},
    "overlay": set(),
}
"""Fields of a `RunSpec` that do not matter for a stage. Whatever is not named here counts."""


def mark(spec: RunSpec, stage: Stage) -> str:
    """The mark of a stage of a run."""
    data = spec.model_dump(mode="json", exclude=NOT_MATTERING[stage])
    if stage == "probe":
        data["queries"] = [query.model_dump(mode="json") for query in spec.asked]
    if stage != "train":
        data["tree"] = TREE
    return mark_of({"stage": stage} | data)
