"""Several queries in one run: a batch of them per round, others held out; probed, forecast and trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from experiments.folder import checkpoint, store
from experiments.folder.joint_store import load_joint, save_joint
from experiments.folder.probe_cache import probe_of
from experiments.folder.run_folder import TrainingFolder
from experiments.forecast.contexts_forecast import Array, Foretold, foretell
from experiments.run.stages import question_of, rows_of
from experiments.specs.contexts_spec import ContextsSpec
from llm_bridge.probe.jointly import measure_jointly
from llm_bridge.train import Trainer
from theory.rules.rule import Rule
from theory.trees.joint_probe import JointProbe
from theory.trees.prefix_tree import Tokens

OBSERVED, TRAINED = "observed.parquet", "trained.safetensors"
ENDS = "ends"
"""Name of the ends of a forecast among its arrays."""


@dataclass(frozen=True)
class Seen:
    """A run: verified outcomes, whatever was paid: (S, T, B n) of the training rollouts, (S, E, H, m) held out."""

    training: Array
    held_out: Array
    seconds: float

    def outcomes(self, name: str) -> Array:
        """(S, T) or (S, E) mean outcome of a set."""
        return self.training.mean(axis=2) if name == "training" else self.held_out.mean(axis=(2, 3))


@dataclass
class ContextsRun(TrainingFolder):
    """The folder of several queries, and the stages that fill it, as `experiments.run.stages.Run` is of one."""

    spec: ContextsSpec

    def probe(self) -> JointProbe:
        """The joint probe: from the folder, from this machine's cache, or measured on the base model; saved."""
        probed = self.spec.probed
        load = partial(load_joint, queries=len(probed.queries))
        joint = probe_of(self, probed.stage("probe"), self.measured, save_joint, load)
        self.tell_rounding(joint.probes)
        return joint

    def measured(self) -> JointProbe:
        """The joint probe of the base model; see `llm_bridge.probe.jointly.measure_jointly`."""
        asked = [question_of(self.language_model, q, self.spec.max_tokens) for q in self.spec.probed.queries]
        joint = measure_jointly(
            self.split,
            asked,
            vocabulary=self.language_model.model.config.vocab_size,
            rollouts=self.spec.probe.rollouts,
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
            cut=self.spec.probe.cut,
            leaf_cut=self.spec.probe.leaf_cut,
            precision=self.spec.probe.precision,
            sketch=self.spec.probe.sketch,
            progress=self.progress,
        )
        self.note_rounding([question.prompt for question in asked], joint.probes)
        return joint

    def forecast(self) -> Foretold:
        """The forecast: from the folder, or simulated from the joint probe and saved. Never trains."""
        stage, path = self.spec.stage("forecast"), self.out / "forecast.safetensors"
        found = store.load_arrays(path, stage)
        if found is None:
            made = foretell(self.spec, self.probe(), self.progress)
            arrays = {f"{kernel}.{name}": x for (kernel, name), x in made.members.items()}
            arrays |= {f"{ENDS}.{name}": x for name, x in made.ends.items()}
            with store.replacing(path) as temporary:
                save_file(arrays, temporary, {"stage": stage, "seconds": repr(made.seconds)})
            return made
        arrays, notes = found
        named = {(key.split(".")[0], key.split(".")[1]): x for key, x in arrays.items()}
        ends = {name: named.pop((ENDS, name)) for kind, name in list(named) if kind == ENDS}
        return Foretold(named, ends, float(notes["seconds"]))

    def observe(self) -> Seen:
        """The run itself: from the folder, or trained. An interrupted run goes on where it stopped."""
        stage = self.spec.stage("train")
        found = store.read_rows(self.out / OBSERVED, stage)
        if found is None:
            self._train(stage)
            found = store.read_rows(self.out / OBSERVED, stage)
            assert found is not None
        return self._seen(found[0], float(found[1]["seconds"]))

    def trained(self) -> Trainer:
        """The replicas after the last round, of a run that is there or is made: kept beside the record, or, where that
        is gone, trained again on the record; on draws of their own where a record does not hold what the rule reads."""
        self.observe()
        stage, trainer = self.spec.stage("train"), self.trainer()
        kept = store.load_arrays(self.out / TRAINED, stage, "pt")
        if kept is not None:
            trainer.load_state(kept[0])
            return trainer
        rounds = self._rounds(stage) if recorded(self.spec.rule) else None
        for t in range(self.spec.rounds):
            if rounds is None:
                trainer.step()
            else:
                trainer.retrace(*rounds[t])
            self.progress("retrace", t + 1, self.spec.rounds)
        return trainer

    def trainer(self) -> Trainer:
        """The replicas before the first round."""
        spec, model = self.spec, self.language_model
        asked, apart = (
            [question_of(model, query, spec.max_tokens) for query in queries]
            for queries in (spec.queries, spec.apart)
        )
        return Trainer(
            self.split, asked, spec.rule, replicas=spec.replicas, max_tokens=spec.max_tokens,
            batch=spec.batch, held_out=apart, seed=spec.seed, pay=spec.pay,
            chunk=self.micro_batch, recompute=self.recompute,
        )  # fmt: skip

    def _rounds(self, stage: str) -> list[tuple[list[Tokens], Array, NDArray[np.int64]]]:
        """The record, round by round: responses, what they were paid, and the query of each, replica by replica."""
        found = store.read_rows(self.out / OBSERVED, stage)
        assert found is not None, "observe() has written it"
        rounds: list[list[dict[str, Any]]] = [[] for _ in range(self.spec.rounds)]
        for row in found[0]:
            if row["query"] < len(self.spec.queries):
                rounds[row["round"] - 1].append(row)
        for rows in rounds:
            rows.sort(key=lambda row: (row["replica"], row["rollout"]))
        return [
            (
                [tuple(row["tokens"]) for row in rows],
                np.array([row["reward"] for row in rows]),
                np.array([row["query"] for row in rows]),
            )
            for rows in rounds
        ]

    def _train(self, stage: str) -> None:
        trainer = self.trainer()
        checkpoint.train(
            self.out, trainer, self.spec.rounds, stage,
            lambda turn: rows_of(turn, self.language_model, self.spec.queries), self.progress,
            lambda: self._look(trainer),
        )  # fmt: skip
        with store.replacing(self.out / TRAINED) as temporary:
            save_torch(trainer.state(), temporary, {"stage": stage})

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
                training[s, t, i] = row["outcome"] or 0.0  # None: unparsable, which is wrong
            elif held is not None:
                paid[s, t // held.every, q - len(spec.queries), i] = row["reward"]
        return Seen(training, paid, seconds)


def recorded(rule: Rule) -> bool:
    """Whether a record of responses and what they were paid holds all that the rule's weights read."""
    plain = rule.kl.kind == "none" and rule.entropy.kind == "none" and rule.epochs == 1
    return plain and not rule.signal.helpers
