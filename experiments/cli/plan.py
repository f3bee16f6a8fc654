"""How much a run has to do, in words: what can be said of its length before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.specs import RunSpec

PARTS = {
    "probe": ("probe",),
    "forecast": ("probe", "forecast"),
    "train": ("train",),
    "overlay": ("probe", "forecast", "train"),
}
"""The stages that a command goes through."""


def counts(spec: RunSpec) -> dict[str, str]:
    """The size of each stage of a run."""
    probed = len(spec.queries) + (0 if spec.held_out is None else len(spec.held_out.queries))
    made = spec.forecast
    return {
        "probe": f"{_times(probed)}{spec.probe.rollouts:,} rollouts of the base model"
        + ("" if spec.probe.precision is None else " at most"),
        "forecast": f"{made.bootstraps} x {made.seeds} simulated runs of {spec.rounds:,} rounds",
        "train": f"{spec.rounds:,} rounds x {spec.replicas} replicas x {spec.batch * spec.rule.rollouts} rollouts",
    }


def begin_of(name: str, spec: RunSpec) -> str:
    """The line before the first stage: all that is to come."""
    sizes = counts(spec)
    return f"{name}: {'; then '.join(f'{part} ({sizes[part]})' for part in PARTS[name])}"


def plan_of(spec: RunSpec) -> Mapping[str, str]:
    """Of the labels under which stages tell their progress, what they have to do."""
    sizes = counts(spec)
    return {
        "rollouts": sizes["probe"],
        "scores": "one gradient for each token that responses share",
        "simulate": sizes["forecast"],
        "train": sizes["train"],
    }


def _times(queries: int) -> str:
    return "" if queries == 1 else f"{queries} queries x "
