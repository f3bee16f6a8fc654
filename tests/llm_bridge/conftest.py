"""The tiny model, split once for all tests of the bridge."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.adapters import Factors
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.measure import measure
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import Prompt, read_prompt
from theory.trees.probe import Probe


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


@pytest.fixture(scope="session")
def split(tiny: LanguageModel) -> SplitModel:
    return SplitModel(tiny.model, AdapterSpec(rank=2, blocks=1))


@pytest.fixture(scope="session")
def prompt(split: SplitModel, tiny: LanguageModel) -> Prompt:
    return read_prompt(split, tiny.encode_prompt("3+4="))


@pytest.fixture(scope="session")
def question(tiny: LanguageModel) -> Question:
    """3+4=, whose answer is 7."""
    return Question(tiny.encode_prompt("3+4="), lambda t: float(tiny.decode(list(t)) == "7"), tiny.end_tokens)


def probed(
    split: SplitModel, question: Question, *, max_tokens: int = 3, seed: int = 0, **fields: Any
) -> Probe:
    """A probe of 400 rollouts of one query; fields are those of a `ProbeSpec` or arguments of `measure`."""
    more = {name: fields.pop(name) for name in ("keep", "factors", "stream") if name in fields}
    spec = ProbeSpec(**({"rollouts": 400} | fields))
    return measure(split, [question], spec, max_tokens=max_tokens, seed=seed, **more).probes[0]


def shaken(split: SplitModel, replicas: int, seed: int = 0, size: float = 0.3) -> Factors:
    """Factors away from the base model, different in every replica."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (down, size * torch.randn(up.shape, generator=generator, dtype=torch.float64).to(up))
        for name, (down, up) in split.adapters.fresh(replicas).items()
    }
