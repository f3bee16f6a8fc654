"""Coarse numbers: how far their policy is from float32, and that what is learned does not drown in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_bridge.models.language_model import load_model
from llm_bridge.network.adapters import Adapters
from llm_bridge.network.rounding import rounding
from llm_bridge.network.specs import AdapterSpec
from theory.trees.prefix_tree import Responses, Tokens

PROMPT = torch.tensor([[3, 10, 4, 11]])
DRAWN: tuple[Tokens, ...] = ((7, 12), (1, 1, 12), (5, 12), (2, 3, 4))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_it_is_the_gap_of_each_response_read_alone(dtype: str) -> None:
    """Of the most drawn three of four responses; float32 is off by rounding alone."""
    coarse, exact = (load_model("tiny-arithmetic", dtype=d).model for d in (dtype, "float32"))

    def logs(model: torch.nn.Module, response: Tokens) -> tuple[float, ...]:
        ids = torch.cat([PROMPT, torch.tensor([response])], dim=1)
        rows = model(input_ids=ids).logits[0, PROMPT.shape[1] - 1 : -1].double().log_softmax(-1)
        return tuple(float(row[token]) for row, token in zip(rows, response, strict=True))

    own = tuple(logs(coarse, y) for y in DRAWN)
    drawn = Responses(DRAWN, own, np.array([1, 9, 4, 2]), np.zeros(4), np.ones(4, dtype=bool))
    gaps = [abs(sum(own[i]) - sum(logs(exact, DRAWN[i]))) for i in (1, 2, 3)]
    found = rounding(exact, PROMPT, drawn, most=3)
    want = {"rounding_mean": np.mean(gaps), "rounding_most": max(gaps), "rounding_responses": 3}
    assert found == pytest.approx(want, abs=1e-5)
    assert (found["rounding_most"] < 1e-5) == (dtype == "float32")


def test_adapters_of_a_coarse_map_are_fine() -> None:
    """A step of a thousandth of what was learned before is kept, and the map adds W x and the adapter's part."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 6, bias=False, dtype=torch.bfloat16)
    blocks = torch.nn.ModuleList([torch.nn.Sequential(linear)])
    adapters = Adapters(blocks, AdapterSpec(rank=2, blocks=1, scale=2.0))
    (pair,) = adapters.fresh(3).values()
    down, up = pair[0], torch.randn_like(pair[1])
    assert down.dtype == up.dtype == torch.float32
    assert not torch.equal(up, up + up / 1000)
    x = torch.randn(3, 5, 8, dtype=torch.bfloat16)
    with adapters.use({"0.0": (down, up)}):
        got = blocks[0](x)
    want = x.float() @ linear.weight.float().T + torch.einsum("rti,rki,rok->rto", x.float(), down, up)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=0.02, atol=0.02)
