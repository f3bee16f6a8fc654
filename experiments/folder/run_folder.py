"""A run folder with its model: what screenings, runs of one query and runs of several have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.folder import store
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.plain import PlainModel, open_model
from llm_bridge.network.rounding import rounding
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.network.split import SplitModel
from theory.refusal import Refusal
from theory.trees.probe import Probe
from theory.warning import ForecastWarning

Progress = Callable[[str, int, int], None]


class PlainPathWarning(ForecastWarning):
    """The model is run whole for every token, since its layout is not known."""


class RoundingWarning(ForecastWarning):
    """The model's numbers are coarse, and its policy is not that of its weights."""


@dataclass
class RunFolder:
    """The folder of a spec; its model is loaded only when a stage needs it.

    Arguments:
        spec: what is run: a `FileSpec` with the field model; for `split`, with adapter too.
        out: the folder.
        progress: called as progress(label, done, total).
        model: a loaded model to use instead of loading `spec.model` (several runs can share one).
    Errors: Refusal for a folder that holds another spec, or cannot be written.
    """

    spec: Any
    out: Path
    progress: Progress = lambda label, done, total: None
    model: LanguageModel | None = None

    def __post_init__(self) -> None:
        store.open_folder(self.out, self.spec)

    @cached_property
    def language_model(self) -> LanguageModel:
        if self.model is not None:
            return self.model
        m = self.spec.model
        return load_model(m.name, device=m.device, dtype=m.dtype, source=m.source)

    @cached_property
    def split(self) -> SplitModel:
        return split_of(self.language_model, self.spec.adapter)


@dataclass
class TrainingFolder(RunFolder):
    """The folder of a `TrainingSpec`.

    Arguments: those of `RunFolder`, and
        micro_batch, recompute: see `Trainer` (chunk, recompute): memory against time, the same numbers up to rounding.
    Errors: those of `RunFolder`, and Refusal for a micro_batch below 1.
    """

    micro_batch: int = 16
    recompute: bool = False
    _told: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.micro_batch < 1:
            raise Refusal(f"micro_batch = {self.micro_batch}; give at least 1 (--micro-batch)")
        super().__post_init__()

    def note_rounding(self, prompts: Sequence[Tensor], probes: Sequence[Probe]) -> None:
        """How far a model in bfloat16 is from float32, into the meta of each prompt's probe.

        Warns: `RoundingWarning`, where there is no memory for the model in float32.
        """
        if self.language_model.dtype is not torch.bfloat16:
            return
        m = self.spec.model
        try:
            # On the processor: the device may have no room for both.
            exact = load_model(m.name, source=m.source).model
            for prompt, probe in zip(prompts, probes, strict=True):
                probe.meta.update(rounding(exact, prompt, probe.responses))
        except (RuntimeError, MemoryError) as error:
            reason = f"how far bfloat16 is from float32 could not be measured: {error}"
            warnings.warn(RoundingWarning(reason), stacklevel=2)

    def tell_rounding(self, probes: Sequence[Probe]) -> None:
        """Say once how far a model in bfloat16 is from float32. Warns: `RoundingWarning`, where it is in bfloat16."""
        found = rounding_of(probes)
        if found and not self._told:
            self._told = True
            warnings.warn(
                RoundingWarning(
                    "in bfloat16 log probabilities of responses differ from those in float32 by "
                    f"{found['rounding_mean']:.2g} nats on average, {found['rounding_most']:.2g} at most: it is "
                    "another policy; --dtype float32 is the model's own"
                ),
                stacklevel=3,
            )


def rounding_of(probes: Sequence[Probe]) -> dict[str, float]:
    """rounding_mean and rounding_most of the probes of a model in bfloat16, taken together; else nothing."""
    found = [{k: v for k, v in probe.meta.items() if k.startswith("rounding")} for probe in probes]
    if not all(found):
        return {}
    mean, most = ([float(str(gaps[name])) for gaps in found] for name in ("rounding_mean", "rounding_most"))
    return {"rounding_mean": float(np.mean(mean)), "rounding_most": max(most)}


def split_of(model: LanguageModel, adapter: AdapterSpec | FullSpec) -> SplitModel:
    """The model with its adapters. Warns: `PlainPathWarning`, where it is run whole because it cannot be split."""
    split = open_model(model.model, adapter)
    if isinstance(split, PlainModel):
        warnings.warn(PlainPathWarning(split.reason), stacklevel=3)
    return split
