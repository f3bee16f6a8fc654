"""A language model as a world: variants are replicas of the real trainer, which the probe's tree kernel foretells."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from bandit_sim.verifiers import Clean
from experiments import store
from experiments.layers.configuration import OVERLAP, Configuration, Difficulty
from experiments.layers.record import Prediction, Result, fingerprint, hash_of, now
from experiments.layers.steps import Steps, in_steps_of
from experiments.smoothing import default_width, smooth
from experiments.specs import ForecastSpec, ModelSpec, ProbeSpec, RunSpec
from experiments.stages import Run
from experiments.store import Observed
from llm_bridge.queries import Query
from theory.rules.spec import Spec

Count = Annotated[int, Field(ge=1)]
Progress = Callable[[str, int, int], None]


class ModelBudget(Spec):
    """What a model is given.

    Arguments:
        rounds: updates.
        replicas: at one rollout a round; at n there are replicas / n, but `least` at the least.
        most: rollouts a round of a variant that is not left out.
        probe: rollouts of the base model.
        bootstraps, seeds: trees and replicas simulated for the forecast.
    """

    rounds: Count
    replicas: Annotated[int, Field(ge=2)]
    least: Annotated[int, Field(ge=2)]
    most: Count
    probe: Count
    bootstraps: Count
    seeds: Count


class ModelWorld(Spec):
    """A language model, and a query for each difficulty it has one for.

    Arguments:
        model: registry name, hub name or folder.
        step: eta of a variant's 1.0, by optimiser.
        max_tokens: longest response.
        exact: success at the end is found by enumerating every response, for a model small enough.
        query: by difficulty.
        quick, full: budgets.
    """

    kind: Literal["model"]
    model: str
    step: Steps
    max_tokens: Count
    exact: bool = False
    query: dict[Difficulty, Query]
    quick: ModelBudget
    full: ModelBudget

    @model_validator(mode="after")
    def _has_the_query_of_most_layers(self) -> ModelWorld:
        if "medium" not in self.query:
            raise ValueError(f"query of {self.model} holds no medium; most layers stand on it")
        return self

    def takes_part(self, models: str, scale: str) -> bool:
        """Whether a variant that asks for models from the scale `models` on runs here at this scale."""
        return models == "quick" or (models, scale) == ("full", "full")

    def refusal(self, asked: Configuration, scale: Literal["quick", "full"]) -> str | None:
        """Why a variant cannot run here, or None."""
        if asked.queries > 1:
            return "not yet: the trainer takes one query a run"
        if not asked.shared or asked.overlap != OVERLAP:
            return "what a model's responses and queries share is its own"
        if asked.verifier != Clean():
            return f"the trainer pays what the query's verifier says, not {asked.verifier.kind}"
        if asked.rule.signal.helpers:
            return f"the trainer draws no rollouts that it does not train on ({asked.rule.signal.kind})"
        if asked.rule.rollouts > (most := getattr(self, scale).most):
            return f"{asked.rule.rollouts} rollouts a round cost too much at this scale (most = {most})"
        if asked.difficulty not in self.query:
            return f"no query of {self.model} is listed for {asked.difficulty}"
        return None

    def spec(self, asked: Configuration, scale: Literal["quick", "full"]) -> RunSpec:
        budget: ModelBudget = getattr(self, scale)
        return RunSpec(
            query=self.query[asked.difficulty],
            model=ModelSpec(name=self.model),
            rule=in_steps_of(self.step, asked.rule),
            rounds=budget.rounds,
            replicas=max(budget.least, budget.replicas // asked.rule.rollouts),
            max_tokens=self.max_tokens,
            probe=ProbeSpec(rollouts=budget.probe),
            forecast=ForecastSpec(bootstraps=budget.bootstraps, seeds=budget.seeds, members=400),
        )

    def predict(self, asked: Configuration, spec: RunSpec, folder: Path) -> Prediction:
        """The forecast of the tree kernel; without a curve where the rule is one that no kernel carries."""
        run = self._run(spec, folder)
        probe = run.probe()
        try:
            made = run.forecast()
        except ValueError as error:
            return Prediction(hash_of(spec), "tree kernel", f"no forecast: {error}", success=None)
        finally:
            _share_probe(folder, spec)
        width = default_width(spec.rounds)
        low, high = np.quantile(smooth(made.members["kernel"], width), [0.05, 0.95], axis=0)
        return Prediction(
            hash_of(spec),
            f"tree kernel, p0 = {probe.p0:.4f}",
            at=list(range(spec.rounds)),
            success=smooth(made.success["kernel"], width).tolist(),
            low=low.tolist(),
            high=high.tolist(),
            without_sharing=smooth(made.success["tabular"], width).tolist(),
        )

    def observe(self, asked: Configuration, spec: RunSpec, folder: Path) -> Result:
        started, clock = now(), time.perf_counter()
        run = self._run(spec, folder)
        observed = run.observe()
        final = exact_success(run, observed) if self.exact and spec.rule.kl.kind == "none" else None
        return Result(
            hash_of(spec), np.arange(spec.rounds), observed.outcomes, None, final, run.probe().p0,
            spec.rule.rollouts, fingerprint(folder), started, now(), time.perf_counter() - clock,
        )  # fmt: skip

    def _run(self, spec: RunSpec, folder: Path) -> Run:
        kept = _probes(folder) / spec.stage("probe")
        for name in ("probe.safetensors", "probe.json"):
            if (kept / name).exists() and not (folder / "run" / name).exists():
                (folder / "run").mkdir(parents=True, exist_ok=True)
                shutil.copy2(kept / name, folder / "run" / name)
        return Run(spec, folder / "run", model=_model(self.model))


@cache
def _model(name: str) -> Any:
    """One load for all variants of a model."""
    from llm_bridge.models import load_model

    return load_model(name)


def _probes(folder: Path) -> Path:
    """Where the variants of one world leave the probes that they share."""
    return folder.parent / "probes"


def _share_probe(folder: Path, spec: RunSpec) -> None:
    """Leave the probe to the variants of the same query; its summary last, without which none is read."""
    kept = _probes(folder) / spec.stage("probe")
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("probe.safetensors", "probe.json"):
        if not (kept / name).exists():
            with store.replacing(kept / name) as temporary:
                shutil.copy2(folder / "run" / name, temporary)


def exact_success(run: Run, observed: Observed) -> np.ndarray:
    """(S,) success of every replica after its last update, by enumeration of its responses.

    The replicas are trained again on their own record, which costs no sampling.
    """
    from experiments.exact import enumerate_model
    from llm_bridge.train import Trainer

    spec = run.spec
    trainer = Trainer(
        run.split, run.prompt, run.reward_of, spec.rule, replicas=spec.replicas, max_tokens=spec.max_tokens,
        end_tokens=run.end_tokens, seed=spec.seed,
    )  # fmt: skip
    for t in range(spec.rounds):
        responses = [y for replica in observed.tokens for y in replica[t]]
        trainer.retrace(responses, observed.rewards[:, t].ravel())
    every = enumerate_model(
        run.language_model, spec.query.prompt, run.reward_of, spec.max_tokens, spec.adapter
    )
    return np.array([
        every.success({name: (down[s : s + 1], up[s : s + 1]) for name, (down, up) in trainer.factors.items()})
        for s in range(spec.replicas)
    ])  # fmt: skip
