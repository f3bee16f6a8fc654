"""The tiny model, split once for all tests of the bridge."""

from __future__ import annotations

import pytest
import torch

from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.adapters import Factors
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.rollouts import Prompt, read_prompt


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


@pytest.fixture(scope="session")
def split(tiny: LanguageModel) -> SplitModel:
    return SplitModel(tiny.model, AdapterSpec(rank=2, blocks=1))


@pytest.fixture(scope="session")
def prompt(split: SplitModel, tiny: LanguageModel) -> Prompt:
    return read_prompt(split, tiny.encode_prompt("3+4="))


def shaken(split: SplitModel, replicas: int, seed: int = 0, size: float = 0.3) -> Factors:
    """Factors away from the base model, different in every replica."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (down, size * torch.randn(up.shape, generator=generator, dtype=torch.float64).to(up))
        for name, (down, up) in split.adapters.fresh(replicas).items()
    }
