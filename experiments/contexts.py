"""Several queries in one run: a batch of them per round, others held out; probed, forecast and trained."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors.numpy import save_file

from bandit_sim import forest, simulate
from experiments import checkpoint, store
from experiments.forecast import largest_step, warn_of_step
from experiments.run_folder import Progress, RunFolder
from experiments.scores import ensemble_of_means
from experiments.specs import Count, FileSpec, ForecastSpec, ModelSpec, ProbeSpec, default_adapter
from experiments.stages import question_of, rows_of
from llm_bridge.adapters import AdapterSpec
from llm_bridge.joint_probe import measure_jointly
from llm_bridge.queries import Query
from llm_bridge.train import Trainer
from theory.joint_probe import JointProbe
from theory.response_tree import ResponseTree
from theory.rules.rule import Rule
from theory.rules.spec import Spec

Array = NDArray[np.float64]
KERNELS = ("joint", "apart")
"""The joint kernel; and the same without its blocks between queries, as if no query taught another."""
SETS = ("training", "held_out")


class HeldOut(Spec):
    """Queries that are never trained on: every so many rounds, so many rollouts of each are drawn and verified."""

    queries: Annotated[tuple[Query, ...], Field(min_length=1)]
    every: Count = 5
    rollouts: Count = 4


class ContextsSpec(FileSpec):
    """Several queries, one model, one rule: the batched contextual bandit of arXiv 2601.22532.

    Arguments:
        batch: queries per round, drawn without replacement by each replica for itself.
        held_out: queries whose success is forecast and observed, and that are not trained on.
    Errors: ValidationError for a batch that the queries cannot fill, or a query on both sides.
    """

    queries: Annotated[tuple[Query, ...], Field(min_length=1)]
    batch: Count
    held_out: HeldOut | None = None
    model: ModelSpec = ModelSpec()
    rule: Rule
    adapter: AdapterSpec = Field(default_factory=default_adapter)
    rounds: Count = 40
    replicas: Annotated[int, Field(ge=2)] = 16
    max_tokens: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    probe: ProbeSpec = ProbeSpec(rollouts=512)
    forecast: ForecastSpec = ForecastSpec(bootstraps=8, seeds=128)

    @model_validator(mode="after")
    def _batch_can_be_filled(self) -> ContextsSpec:
        if self.batch > len(self.queries):
            raise ValueError(
                f"batch = {self.batch} of {len(self.queries)} training queries; give 1 to all of them"
            )
        if self.probe.precision is not None:
            raise ValueError(
                f"probe.precision {self.probe.precision:g} changes nothing in a joint probe, whose queries are sampled "
                "equally often; leave it out"
            )
        if self.probe.coordinates is not None:
            raise ValueError(
                f"probe.coordinates {self.probe.coordinates} changes nothing in a joint probe, whose forecast has a "
                "kernel; leave it out"
            )
        both = {q.prompt for q in self.queries} & {q.prompt for q in self.apart}
        if both:
            raise ValueError(f"query {min(both)!r} is trained on and held out; leave it out of one of them")
        return self

    @property
    def apart(self) -> tuple[Query, ...]:
        """The held-out queries."""
        return () if self.held_out is None else self.held_out.queries

    def stage(self, name: Literal["probe", "forecast", "train", "overlay"]) -> str:
        """12 hex digits that change with any field that stage's result depends on."""
        training = {"rule", "rounds", "replicas", "batch"}
        return self.digest({
            "probe": {*training, "forecast"},
            "train": {"probe", "forecast"},
            "forecast": set[str](),
            "overlay": set[str](),
        }[name])  # fmt: skip


@dataclass(frozen=True)
class Foretold:
    """(M, T) or (M, E) draws of the plotted observable for each kernel and set, and the seconds it took.

    The observable is the mean over S replicas: of the round's rewards ("training"), and of the held-out
    rollouts before round 1, 1 + every, ... ("held_out").
    """

    members: dict[tuple[str, str], Array]
    seconds: float


@dataclass(frozen=True)
class Seen:
    """A run: rewards (S, T, B n) of the training rollouts, and (S, E, H, m) of the held-out ones."""

    rewards: Array
    held_out: Array
    seconds: float

    def outcomes(self, name: str) -> Array:
        """(S, T) or (S, E) mean reward of a set."""
        return self.rewards.mean(axis=2) if name == "training" else self.held_out.mean(axis=(2, 3))


@dataclass
class ContextsRun(RunFolder):
    """The folder of several queries, and the stages that fill it, as `experiments.stages.Run` is of one."""

    spec: ContextsSpec

    def probe(self) -> JointProbe:
        """The joint probe: from the folder, or measured on the base model and saved."""
        stage, path = self.spec.stage("probe"), self.out / "gram.safetensors"
        queries = (*self.spec.queries, *self.spec.apart)
        folders = [self.out / "probes" / f"{q:02d}" for q in range(len(queries))]
        if (saved := store.load_arrays(path, stage)) is not None:
            found = [store.load_probe(folder, stage) for folder in folders]
            whole = [probe for probe in found if probe is not None]
            if len(whole) == len(queries):
                return JointProbe(tuple(whole), saved[0]["gram"])
        joint = measure_jointly(
            self.split,
            [question_of(self.language_model, query, self.spec.max_tokens) for query in queries],
            vocabulary=self.language_model.model.config.vocab_size,
            rollouts=self.spec.probe.rollouts,
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
            cut=self.spec.probe.cut,
            leaf_cut=self.spec.probe.leaf_cut,
            sketch=self.spec.probe.sketch,
            progress=self.progress,
        )
        for folder, probe in zip(folders, joint.probes, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            store.save_probe(folder, probe, stage)
        with store.replacing(path) as temporary:
            save_file({"gram": joint.gram}, temporary, {"stage": stage})
        return joint

    def forecast(self) -> Foretold:
        """The forecast: from the folder, or simulated from the joint probe and saved. Never trains."""
        stage, path = self.spec.stage("forecast"), self.out / "forecast.safetensors"
        found = store.load_arrays(path, stage)
        if found is None:
            made = foretell(self.spec, self.probe(), self.progress)
            arrays = {f"{kernel}.{name}": x for (kernel, name), x in made.members.items()}
            with store.replacing(path) as temporary:
                save_file(arrays, temporary, {"stage": stage, "seconds": repr(made.seconds)})
            return made
        arrays, notes = found
        members = {(key.split(".")[0], key.split(".")[1]): x for key, x in arrays.items()}
        return Foretold(members, float(notes["seconds"]))

    def observe(self) -> Seen:
        """The run itself: from the folder, or trained. An interrupted run goes on where it stopped."""
        stage = self.spec.stage("train")
        found = store.read_rows(self.out / "observed.parquet", stage)
        if found is None:
            self._train(stage)
            found = store.read_rows(self.out / "observed.parquet", stage)
            assert found is not None
        return self._seen(found[0], float(found[1]["seconds"]))

    def _train(self, stage: str) -> None:
        spec, model = self.spec, self.language_model
        asked, apart = (
            [question_of(model, query, spec.max_tokens) for query in queries]
            for queries in (spec.queries, spec.apart)
        )
        trainer = Trainer(
            self.split, asked, spec.rule, replicas=spec.replicas, max_tokens=spec.max_tokens,
            batch=spec.batch, held_out=apart, seed=spec.seed,
        )  # fmt: skip
        checkpoint.train(
            self.out, trainer, spec.rounds, stage, lambda turn: rows_of(turn, model, spec.queries),
            self.progress, lambda: self._look(trainer),
        )  # fmt: skip

    def _look(self, trainer: Trainer) -> list[dict[str, Any]]:
        """Held-out rollouts before this round, where it is one that looks."""
        held = self.spec.held_out
        if held is None or trainer.round % held.every:
            return []
        paid = trainer.evaluate(held.rollouts)
        return [
            {
                "replica": s,
                "round": trainer.round + 1,
                "query": len(self.spec.queries) + h,
                "rollout": i,
                "reward": float(reward),
            }
            for (s, h, i), reward in np.ndenumerate(paid)
        ]

    def _seen(self, rows: list[dict[str, Any]], seconds: float) -> Seen:
        spec = self.spec
        training = np.zeros((spec.replicas, spec.rounds, spec.batch * spec.rule.rollouts))
        held = spec.held_out
        looks = 0 if held is None else -(-spec.rounds // held.every)
        paid = np.zeros((spec.replicas, looks, len(spec.apart), 0 if held is None else held.rollouts))
        for row in rows:
            s, t, q, i = row["replica"], row["round"] - 1, row["query"], row["rollout"]
            if q < len(spec.queries):
                training[s, t, i] = row["reward"]
            elif held is not None:
                paid[s, t // held.every, q - len(spec.queries), i] = row["reward"]
        return Seen(training, paid, seconds)


def foretell(spec: ContextsSpec, joint: JointProbe, progress: Progress) -> Foretold:
    """Simulate the rule on the forest of the probed queries, with all blocks of the kernel and without those between.

    Held-out rollouts are drawn from the mean success of the held-out queries: a little more noise than theirs,
    p (1 - p) being concave.

    Errors: ValueError from the engine (for example Adam, which no kernel engine can carry).
    Warns: `ForecastWarning`, as `experiments.forecast.forecast`.
    """
    started, settings = time.perf_counter(), spec.forecast
    step = max(largest_step(probe, spec.rule) for probe in joint.probes[: len(spec.queries)]) / spec.batch
    warn_of_step(step, spec.rule.optimiser.eta)
    drawn = [joint.trees(None if b == 0 else spec.seed + b) for b in range(settings.bootstraps)]
    tokens = max(int(np.ceil(tree.length.max())) for trees, _ in drawn for tree in trees)
    jobs = [("joint", trees, kernel) for trees, kernel in drawn]
    jobs += [("apart", trees, _apart(trees, kernel)) for trees, kernel in drawn[:2]]
    pool = max(settings.seeds, 2 * spec.replicas)
    members: dict[tuple[str, str], list[Array]] = {(k, s): [] for k in KERNELS for s in SETS}
    for done, (name, trees, kernel) in enumerate(jobs):
        arms = forest(trees, kernel, training=len(spec.queries), batch=spec.batch, tokens=tokens)
        looking = ("held_out",) if spec.held_out else ()
        curves = simulate(arms, spec.rule, spec.rounds, pool, spec.seed + done, observe=("reward", *looking))
        share = -(-settings.members // sum(other == name for other, *_ in jobs))
        seed = spec.seed + done
        members[name, "training"].append(ensemble_of_means(curves["reward"], spec.replicas, share, seed))
        if spec.held_out is not None:
            p = np.clip(curves["held_out"][:, :: spec.held_out.every], 0, 1)
            count = spec.held_out.rollouts * len(spec.apart)
            paid = np.random.default_rng(seed).binomial(count, p) / count
            members[name, "held_out"].append(ensemble_of_means(paid, spec.replicas, share, seed))
        progress("simulate", done + 1, len(jobs))
    return Foretold(
        {key: np.concatenate(parts) for key, parts in members.items() if parts},
        time.perf_counter() - started,
    )


def _apart(trees: list[ResponseTree], kernel: NDArray[np.floating]) -> NDArray[np.floating]:
    """The kernel without its blocks between queries."""
    query = np.repeat(np.arange(len(trees)), [len(tree.node) for tree in trees])
    return np.where(query[:, None] == query[None, :], kernel, 0.0)
