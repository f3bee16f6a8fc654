"""Probabilities of given responses under replicas: all of them sum to one, and each is its own tokens' product."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_bridge.network.split import SplitModel
from llm_bridge.probe.enumerate import enumerate_responses
from llm_bridge.probe.masses import CHUNK, masses
from llm_bridge.rollouts.rollouts import Prompt
from tests.llm_bridge.conftest import shaken
from theory.trees.prefix_tree import Responses


@pytest.fixture(scope="module")
def every(split: SplitModel, tiny, prompt: Prompt) -> Responses:
    return enumerate_responses(
        split, prompt, lambda response: 0.0, max_tokens=2, end_tokens=tiny.end_tokens,
    )  # fmt: skip


def test_all_responses_of_every_replica_sum_to_one(split, prompt, every) -> None:
    found = masses(split, prompt, shaken(split, 3), 3, every.tokens)
    assert found.shape == (3, len(every.tokens)) and len(every.tokens) > CHUNK
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-9)
    assert np.ptp(found, axis=0).max() > 1e-3, "replicas differ"


def test_of_the_base_model_they_are_the_enumerated_ones(split, prompt, every) -> None:
    (found,) = masses(split, prompt, split.adapters.fresh(1), 1, every.tokens)
    np.testing.assert_allclose(found, every.mass, rtol=1e-9)


def test_a_replica_is_the_same_alone_and_beside_others(split, prompt, every) -> None:
    factors = shaken(split, 3)
    together = masses(split, prompt, factors, 3, every.tokens[::7])
    for s in range(3):
        own = {name: (down[s : s + 1], up[s : s + 1]) for name, (down, up) in factors.items()}
        np.testing.assert_allclose(
            masses(split, prompt, own, 1, every.tokens[::7])[0], together[s], rtol=1e-9
        )


def test_no_response_has_no_mass(split, prompt) -> None:
    assert masses(split, prompt, shaken(split, 2), 2, []).shape == (2, 0)
    assert torch.is_grad_enabled()
