"""How a model is probed, as data; what reads it needs no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.spec import Count, Spec

BATCH = 256
"""Rollouts sampled at once, and between two looks at the precision reached."""


class ProbeSpec(Spec):
    """How each query is probed: N rollouts; where the tree is cut (expected visits of the N).

    Arguments:
        rollouts: N, sampled at temperature 1 over the full vocabulary.
        cut, leaf_cut: see `theory.trees.prefix_tree.grow`.
        precision: relative half-width of p0's 95% interval at which the probe may stop early, after whole batches,
            `rollouts` being the most; None draws all.
        sketch: coordinates that each score is sketched to before the kernel is made of them (`llm_bridge.probe.sketch`;
            its error is in the probe's meta); None multiplies the scores themselves.
        coordinates: parameters of which the scores themselves are kept, for an optimiser that acts on parameters.
    Errors: Refusal for a precision that could stop nothing.
    """

    rollouts: Count = 2048
    cut: Annotated[float, Field(ge=0)] = 5.0
    leaf_cut: Annotated[float, Field(ge=0)] = 3.0
    # Left out where there is none, so that older probes keep their hash.
    precision: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, exclude_if=lambda precision: precision is None
    )

    sketch: Count | None = Field(default=None, exclude_if=lambda sketch: sketch is None)

    coordinates: Count | None = Field(default=None, exclude_if=lambda coordinates: coordinates is None)

    @model_validator(mode="after")
    def _stoppable(self) -> ProbeSpec:
        if self.precision is not None and self.rollouts <= BATCH:
            raise Refusal(
                f"precision {self.precision:g} changes nothing in {self.rollouts} rollouts, which are one batch of at "
                f"most {BATCH}; raise rollouts (--probe-rollouts), or leave precision out"
            )
        return self
