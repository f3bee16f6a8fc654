"""What is trained: low-rank adapters, or every parameter. As data, which loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from theory.refusal import Refusal
from theory.rules.spec import Count, Spec


class AdapterSpec(Spec):
    """W x + (scale / rank) B A x on every linear map of the last `blocks` blocks, or of all (LoRA, arXiv 2106.09685).

    A is drawn once from the spec's seed, uniform on +-1/sqrt(inputs), and is the same for every replica; B
    starts at zero, so that the adapted model is the base model and only B has a gradient there.

    trained: "up" trains B alone (LoRA-FA, arXiv 2308.03303): each map is then linear in its parameters, and
        the kernel measured at the base model stays valid for long. "both" trains A too, whose own kernel is
        zero at the base model and grows with |B|^2: no forecast from the base model can see it.

    Valid when: the model keeps its blocks in a list and its maps are `torch.nn.Linear`, or GPT-2's transposed
    `Conv1D`.
    """

    rank: Count = 8
    blocks: Count | Literal["all"] = 4
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 8.0
    seed: int = 0
    trained: Literal["up", "both"] = "up"

    def of(self, depth: int) -> int:
        """How many of a model's `depth` blocks are adapted. Errors: Refusal for more than there are."""
        blocks = depth if self.blocks == "all" else self.blocks
        if blocks > depth:
            raise Refusal(
                f"adapter.blocks is {blocks}, but the model has {depth} blocks; give at most {depth}, or all "
                "(--adapter-blocks all)"
            )
        return blocks


class FullSpec(Spec):
    """Every parameter of the model is trained, W itself and no B A beside it.

    Valid when: one replica is trained at a time; its kernel has as many terms as the model has parameters, so
    that a probe of more than a small model needs a sketch (`llm_bridge.probe.sketch`).
    """

    trained: Literal["full"] = "full"

    def of(self, depth: int) -> int:
        """How many of a model's `depth` blocks are trained: all."""
        return depth
