"""Rows that are run token by token: what `Stage.run` gives, the given state untouched, and no copy without need."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_bridge.models.language_model import load_model
from llm_bridge.network.growing import Growing
from llm_bridge.network.plain import PlainModel
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel, select

TINY = load_model("tiny-arithmetic", dtype="float64")
EAGER = load_model("tiny-arithmetic", dtype="float64")
EAGER.model.set_attn_implementation("eager")
SPLITS = {
    "split": SplitModel(TINY.model, AdapterSpec(blocks=1)),
    "plain": PlainModel(TINY.model, AdapterSpec(blocks=1)),
    "eager": SplitModel(EAGER.model, AdapterSpec(blocks=1)),
}
PROMPTS = torch.tensor([[1, 2, 3], [3, 1, 2]])


@pytest.mark.parametrize("name", SPLITS)
@given(data=st.data())
@settings(max_examples=15)
@torch.no_grad()
def test_steps_are_those_of_a_state_that_is_copied(name: str, data: st.DataObject) -> None:
    """Any rows, in any order, as often as one likes; the state that all begin with is not touched."""
    split = SPLITS[name]
    hidden, past = split.trunk.run(PROMPTS)
    _, deeper = split.head.run(hidden)
    begun = [[x.clone() for pair in state for x in pair] for state in (past, deeper)]
    steps = data.draw(st.integers(1, 4))
    trunk, head = Growing(split.trunk, past, steps), Growing(split.head, deeper, steps)
    now, below, rows = past, deeper, len(PROMPTS)
    for _ in range(steps):
        chosen = st.lists(st.integers(0, rows - 1), min_size=1, max_size=4)
        every = st.just(list(range(rows)))
        at = torch.tensor(data.draw(every | chosen))
        tokens = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=len(at), max_size=len(at))))[
            :, None
        ]
        trunk.select(at)
        head.select(at)
        got = trunk.run(tokens)
        want, now = split.trunk.run(tokens, past=select(now, at))
        torch.testing.assert_close(got, want)
        last, below = split.head.run(want, past=select(below, at))
        torch.testing.assert_close(head.run(got), last)
        rows = len(at)
    for before, state in zip(begun, (past, deeper), strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(before, (x for pair in state for x in pair), strict=True)
        )


@torch.no_grad()
def test_rows_that_stay_are_not_copied() -> None:
    """Keys stay where they are in memory as long as all rows go on, and are elsewhere once one has left."""
    split = SPLITS["split"]
    _, past = split.trunk.run(PROMPTS)
    growing, places = Growing(split.trunk, past, 3), []
    for rows in ([0, 1], [0, 1], [1]):
        growing.select(torch.tensor(rows))
        growing.run(torch.full((len(rows), 1), 4))
        layer = growing._cache.layers[0]
        assert layer.keys is not None
        places.append(layer.keys.data_ptr())
    assert places[0] == places[1] != places[2]
    assert layer.keys.shape[2] == 3
    assert layer.get_seq_length() == PROMPTS.shape[1] + 3


@pytest.mark.parametrize("name", SPLITS)
@torch.no_grad()
def test_a_prompt_that_all_rows_share_is_copied_for_none(name: str) -> None:
    """Four rows of one prompt hold their own token; a model whose attention is not PyTorch's holds all of them."""
    split = SPLITS[name]
    stage = split.head if name == "plain" else split.trunk
    x = PROMPTS[:1, :, None] if name == "plain" else PROMPTS[:1]
    _, past = stage.run(x)
    growing = Growing(stage, past, 1)
    growing.select(torch.zeros(4, dtype=torch.long))
    growing.run(x[:, :1].expand(4, *x[:, :1].shape[1:]))
    (layer, *_) = growing._cache.layers
    assert layer.keys is not None
    assert layer.keys.shape[2] == (1 if name == "split" else PROMPTS.shape[1] + 1)
    assert split.trunk.shares == (name == "split")


@pytest.mark.parametrize("shape", [(1,), (4,), (5,), (15,), (16,), (17,), (7, 3)])
def test_few_rows_have_the_logits_and_the_gradient_that_they_have_among_many(shape: tuple[int, ...]) -> None:
    """From 5 to 15 rows are padded on their way through the output map: nobody sees it."""
    split = SPLITS["split"]
    hidden = torch.randn(*shape, TINY.model.config.hidden_size, dtype=torch.float64, requires_grad=True)
    got, want = split.logits(hidden), split.output(hidden)
    torch.testing.assert_close(got, want)
    (slope,), (own,) = (torch.autograd.grad(x.square().sum(), hidden) for x in (got, want))
    torch.testing.assert_close(slope, own)
