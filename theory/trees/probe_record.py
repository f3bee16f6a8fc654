"""What a probe says of itself: how it was measured, and at which cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from theory.refusal import Refusal


@dataclass(frozen=True)
class ProbeRecord:
    """How one query's probe was measured; the defaults are those of a tree that leaves nothing out.

    Arguments:
        rollouts: number N of responses sampled.
        max_tokens: longest response.
        seed, query: names of the draws.
        vocabulary: tokens that the model chooses from.
        cut, leaf_cut, keep: see `theory.trees.prefix_tree.grow`, which makes the same tree of them again.
        tokens: sampled, and read for the scores.
        seconds: of several queries measured together, this one's share.
        model: fingerprint of the weights.
        sketch: coordinates that scores were sketched to; None is the scores themselves.
        sketch_error: standard deviation of an inner product of a vector with itself, as a share; of two vectors it is
            less, as a share of |a| |b|.
        rounding_mean, rounding_most: distance from the same weights in float32 [nats of a whole response], over the
            `rounding_responses` drawn most often; of a model in bfloat16 alone.
    """

    rollouts: int = 0
    max_tokens: int = 0
    seed: int = 0
    vocabulary: int = 0
    cut: float = 0.0
    leaf_cut: float = 0.0
    keep: Literal["correct", "all"] = "all"
    tokens: int = 0
    seconds: float = 0.0
    query: int = 0
    model: str | None = None
    sketch: int | None = None
    sketch_error: float | None = None
    rounding_mean: float | None = None
    rounding_most: float | None = None
    rounding_responses: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that hold something, JSON-able."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProbeRecord:
        """What `to_json` wrote. Errors: Refusal for a field that no record has."""
        if unknown := sorted(set(data) - {field.name for field in fields(cls)}):
            raise Refusal(
                f"a probe's record has no field {unknown[0]!r}: the probe is of another version of onearm; "
                "measure it again in another folder"
            )
        return cls(**data)
