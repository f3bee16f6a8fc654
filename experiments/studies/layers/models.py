"""A language model as a world: variants are replicas of the real trainer, which the probe's tree kernel forecasts."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from bandit_sim import simulate
from experiments.compare.final_success import final_success
from experiments.forecast.bandits import tabular_arms
from experiments.run.run import Run
from experiments.scoring.smoothing import default_width, smooth
from experiments.specs import ForecastSpec, HeldOut, ModelSpec, ProbeSpec, RunSpec
from experiments.studies.layers.configuration import OVERLAP, Configuration, Difficulty
from experiments.studies.layers.record import RESULT, End, Prediction, Result, fingerprint, hash_of, now
from experiments.studies.layers.steps import Seed, Steps, in_steps_of
from llm_bridge.queries.query import Query
from theory.pay import no_pay_on_text
from theory.refusal import Refusal
from theory.rules.spec import Count, Spec

Some = Annotated[int, Field(ge=0)]
"""Of sets of queries, by their names in a run of several: as a prediction calls success on them."""
LOOKS, LOOKED = 4, 4
"""Looks at the held-out queries in a run, and rollouts of each and replica at one."""


class ModelBudget(Spec):
    """What a model is given.

    Arguments:
        rounds: updates.
        replicas: at one rollout a round; at n there are replicas / n, but `least` at the least.
        most: rollouts of a query and round of a variant that is not left out.
        queries: training queries of a variant with several, the first of the spectrum; 0 leaves these out.
        held_out: held-out queries, the first of the list; 0 looks at none.
        probe: rollouts of the base model for each query.
        bootstraps, seeds: trees and replicas simulated for the forecast.
    """

    rounds: Count
    replicas: Annotated[int, Field(ge=2)]
    least: Annotated[int, Field(ge=2)]
    most: Count
    queries: Some
    held_out: Some
    probe: Count
    bootstraps: Count
    seeds: Count


class ModelWorld(Spec):
    """A language model, and a query for each difficulty it has one for.

    Arguments:
        seed: of every draw; another seed, other runs.
        model: registry name, hub name or folder.
        step: eta of a variant's 1.0, by optimiser.
        max_tokens: longest response.
        exact: the model is small enough to enumerate: success at the end has no noise of sampling.
        query: by difficulty.
        spectrum: training queries of a variant with several.
        held_out: queries never trained on.
        unlike: queries of another kind, looked at in their place where a variant's queries have nothing in common.
        quick, full: budgets.
    """

    kind: Literal["model"]
    seed: Seed
    model: str
    step: Steps
    max_tokens: Count
    exact: bool = False
    query: dict[Difficulty, Query]
    spectrum: tuple[Query, ...] = ()
    held_out: tuple[Query, ...] = ()
    unlike: tuple[Query, ...] = ()
    quick: ModelBudget
    full: ModelBudget

    @model_validator(mode="after")
    def _has_the_queries_it_is_to_run(self) -> ModelWorld:
        if "medium" not in self.query:
            raise Refusal(f"query of {self.model} holds no medium; most layers stand on it")
        for scale, budget in (("quick", self.quick), ("full", self.full)):
            for field, there in (("queries", self.spectrum), ("held_out", self.held_out)):
                if getattr(budget, field) > len(there):
                    raise Refusal(f"{scale}.{field} = {getattr(budget, field)}, but {len(there)} are listed")
        return self

    def takes_part(self, models: str, scale: str) -> bool:
        """Whether a variant that asks for models from the scale `models` on runs here at this scale."""
        return models == "quick" or (models, scale) == ("full", "full")

    def refusal(self, asked: Configuration, scale: Literal["quick", "full"]) -> str | None:
        """Why a variant cannot run here, or None."""
        budget: ModelBudget = getattr(self, scale)
        if not asked.shared or asked.overlap not in (OVERLAP, 0.0):
            return "what a model's responses and queries share is its own"
        if asked.overlap == 0.0 and not self.unlike:
            return f"no queries of another kind are listed for {self.model} (unlike)"
        if (reason := no_pay_on_text(asked.pay)) is not None:
            return reason
        if asked.rule.drawn > budget.most:
            return f"{asked.rule.drawn} rollouts a round cost too much at this scale (most = {budget.most})"
        if asked.difficulty not in self.query:
            return f"no query of {self.model} is listed for {asked.difficulty}"
        if asked.queries > 1 and not budget.queries:
            return "several queries are left to --full"
        if asked.queries > 1 and asked.batch * budget.queries % asked.queries:
            return (
                f"a batch of {asked.batch} in {asked.queries} is no whole number of {budget.queries} queries"
            )
        return None

    def spec(self, asked: Configuration, scale: Literal["quick", "full"]) -> RunSpec:
        """The run. Of several queries this world has fewer than the simulator: the batch is the same share of them."""
        budget: ModelBudget = getattr(self, scale)
        several = asked.queries > 1
        queries = self.spectrum[: budget.queries] if several else (self.query[asked.difficulty],)
        apart = (self.unlike if asked.overlap == 0.0 else self.held_out)[: budget.held_out]
        return RunSpec(
            queries=queries,
            batch=asked.batch * len(queries) // asked.queries,
            held_out=HeldOut(queries=apart, every=max(1, budget.rounds // LOOKS), rollouts=LOOKED)
            if apart
            else None,
            model=ModelSpec(name=self.model),
            rule=in_steps_of(self.step, asked.rule),
            pay=asked.pay,
            rounds=budget.rounds,
            replicas=max(budget.least, budget.replicas // asked.rule.drawn),
            max_tokens=self.max_tokens,
            seed=self.seed,
            probe=ProbeSpec(rollouts=budget.probe),
            forecast=ForecastSpec(bootstraps=budget.bootstraps, seeds=budget.seeds, members=400),
        )

    def predict(self, asked: Configuration, spec: RunSpec, folder: Path) -> Prediction:
        """The forecast of the joint tree kernel; without a curve where the rule is one that no kernel carries."""
        run = self._run(spec, folder)
        joint = run.probe()
        name = "tree kernel, p0 = " + ", ".join(f"{probe.p0:.4f}" for probe in joint.probes)
        try:
            made = run.forecast()
        except Refusal as error:
            return Prediction(hash_of(spec), name, f"no forecast: {error}")
        width = default_width(spec.rounds)
        members = smooth(made.members["kernel", "training"], width)
        low, high = np.quantile(members, [0.05, 0.95], axis=0)
        alone = None
        if len(spec.queries) == 1:
            arms, seeds = tabular_arms(joint.probes[0]), spec.forecast.seeds
            seen = simulate(arms, spec.rule, spec.rounds, seeds, spec.seed, pay=spec.pay)
            alone = smooth(seen.mean("success"), width).tolist()
        held_out = made.members["kernel", "held_out"].mean(axis=0).tolist() if spec.held_out else None
        return Prediction(
            hash_of(spec), name, None, list(range(spec.rounds)), members.mean(axis=0).tolist(), low.tolist(),
            high.tolist(), held_out, alone,
            {name: list(made.ends(name)) for name in made.sets},
        )  # fmt: skip

    def run(self, asked: Configuration, spec: RunSpec, folder: Path) -> Result:
        started, clock = now(), time.perf_counter()
        run = self._run(spec, folder)
        seen, joint = run.train(), run.probe()
        p0 = float(np.mean([probe.p0 for probe in joint.probes[: len(spec.queries)]]))
        return Result(
            hash_of(spec), np.arange(spec.rounds), seen.success("training"),
            seen.success("held_out") if spec.held_out else None, p0, spec.rule.rollouts * spec.batch,
            fingerprint(folder), started, now(), time.perf_counter() - clock,
        )  # fmt: skip

    def end(self, spec: RunSpec, folder: Path) -> End:
        """Success of the trained replicas of a run that is there, or is made."""
        clock = time.perf_counter()
        found = final_success(self._run(spec, folder), exact=self.exact)
        n = len(spec.queries)
        (success, held_out), (base, held_out_base) = (
            (x[:, :n].mean(axis=1), x[:, n:].mean(axis=1) if spec.apart else None) for x in found
        )
        seconds = time.perf_counter() - clock
        return End(success, base, held_out, held_out_base, fingerprint(folder, RESULT), seconds)

    def _run(self, spec: RunSpec, folder: Path) -> Run:
        """The run's folder; variants of the same queries find one probe in the machine's cache."""
        return Run(spec, folder / "run", model=_model(self.model))


@cache
def _model(name: str) -> Any:
    """One load for all variants of a model."""
    from llm_bridge.models.language_model import load_model

    return load_model(name)
