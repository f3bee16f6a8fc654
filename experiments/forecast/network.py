"""The network of a run: its model with the adapters, and its queries in the model's tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.folder.run_folder import Progress
from experiments.forecast.coarse import rounding_of
from experiments.specs import RunSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.adapters import Factors
from llm_bridge.network.plain import PlainModel, open_model
from llm_bridge.network.rounding import rounding
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.masses import masses
from llm_bridge.probe.measure import PROBE_STREAM, measure
from llm_bridge.probe.scores import displaced
from llm_bridge.queries.query import Query
from llm_bridge.rewards.verifiers import score
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import Prompt, read_prompt
from llm_bridge.train import Policy, Round, Trainer, response_logits
from theory.trees.joint_probe import JointProbe
from theory.warning import ForecastWarning

Array = NDArray[np.float64]


class PlainPathWarning(ForecastWarning):
    """The model is run whole for every token, since its layout is not known."""


class RoundingWarning(ForecastWarning):
    """The model's numbers are coarse, and its policy is not that of its weights."""


class Network:
    """The model of a run, which can be probed, moved, read and trained.

    Arguments:
        spec: of the run.
        model: the language model.
        progress: called as progress(label, done, total).
    Warns: `PlainPathWarning`, where the model is run whole because it cannot be split.
    """

    def __init__(self, spec: RunSpec, model: LanguageModel, progress: Progress) -> None:
        self.spec, self.model, self.progress = spec, model, progress
        self._told = False

    @cached_property
    def split(self) -> SplitModel:
        split = open_model(self.model.model, self.spec.adapter)
        if isinstance(split, PlainModel):
            warnings.warn(PlainPathWarning(split.reason), stacklevel=3)
        return split

    @cached_property
    def questions(self) -> list[Question]:
        """All queries in the model's tokens, those trained on first."""
        return [question_of(self.model, query, self.spec.max_tokens) for query in self.spec.asked]

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Their prompts, read by the trunk."""
        return [read_prompt(self.split, question.prompt) for question in self.questions]

    def probe(
        self, factors: Factors | None = None, rollouts: int | None = None, stream: int = PROBE_STREAM
    ) -> JointProbe:
        """A probe of the base model, or of other parameters; see `llm_bridge.probe.measure`.

        Arguments:
            factors: of one replica (leading axis 1); None is the base model.
            rollouts: of each query, in place of those of the spec.
            stream: replica number of the draws.
        """
        asked = self.spec.probe
        joint = measure(
            self.split,
            self.questions,
            asked if rollouts is None else asked.model_copy(update={"rollouts": rollouts}),
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
            factors=factors,
            stream=stream,
            progress=self.progress,
        )
        apart = self._rounding(joint) if factors is None else [{} for _ in joint.probes]
        noted = [
            probe.noting(model=self.model.fingerprint, **own)
            for probe, own in zip(joint.probes, apart, strict=True)
        ]
        return replace(joint, probes=tuple(noted))

    def _rounding(self, joint: JointProbe) -> list[dict[str, float]]:
        """How far a model in bfloat16 is from float32, query by query.

        Warns: `RoundingWarning`, where there is no memory for the model in float32.
        """
        nothing: list[dict[str, float]] = [{} for _ in joint.probes]
        if self.model.dtype is not torch.bfloat16:
            return nothing
        m = self.spec.model
        try:
            # On the processor: the device may have no room for both.
            exact = load_model(m.name, source=m.source).model
            return [
                rounding(exact, question.prompt, probe.responses)
                for question, probe in zip(self.questions, joint.probes, strict=True)
            ]
        except (RuntimeError, MemoryError) as error:
            reason = f"how far bfloat16 is from float32 could not be measured: {error}"
            warnings.warn(RoundingWarning(reason), stacklevel=2)
            return nothing

    def tell_rounding(self, joint: JointProbe) -> None:
        """Say once how far a model in bfloat16 is from float32. Warns: `RoundingWarning`, where it is in bfloat16."""
        found = rounding_of(joint)
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

    def displaced(
        self, joint: JointProbe, shares: NDArray[np.floating], base: Factors | None = None
    ) -> Factors:
        """Factors of S networks moved along the scores of a probe's atoms; see `llm_bridge.probe.scores.displaced`.

        Arguments:
            shares: (S, M) how far each moves along the score of each atom, query by query.
            base: the parameters that were probed; None is the base model.
        """
        ends = np.cumsum([0, *(len(probe.layout.atoms) for probe in joint.probes)])
        parts = [
            (prompt, probe.layout.atoms, shares[:, first:last])
            for prompt, probe, (first, last) in zip(self.prompts, joint.probes, pairwise(ends), strict=True)
        ]
        return displaced(
            self.split,
            parts,
            base=base,
            progress=lambda done, total: self.progress("displace", done, total),
        )

    def kept(self, joint: JointProbe, factors: Factors | None, networks: int) -> Array:
        """(S, Q) probability that each of S networks gives the correct responses that are leaves of the probe's trees.

        Arguments:
            factors: of the S networks; None is the base model, S = 1.
        """
        own = self.split.adapters.fresh(1) if factors is None else factors
        probes = joint.probes[: len(self.spec.queries)]
        columns = [
            masses(self.split, prompt, own, networks, probe.kept).sum(axis=1)
            if probe.kept
            else np.zeros(networks)
            for prompt, probe in zip(self.prompts, probes, strict=False)
        ]
        return np.stack(columns, axis=1)

    def trainer(self, *, chunk: int = 16, recompute: bool = False) -> Trainer:
        """The replicas of the run before the first round."""
        spec, training = self.spec, len(self.spec.queries)
        return Trainer(
            self.split, self.questions[:training], spec.rule, replicas=spec.replicas, max_tokens=spec.max_tokens,
            batch=spec.batch, held_out=self.questions[training:], seed=spec.seed, pay=spec.pay,
            chunk=chunk, recompute=recompute,
        )  # fmt: skip

    def student(self, replicas: int, policy: Policy = response_logits) -> Trainer:
        """Replicas that are trained on the run's record, not on rollouts of their own."""
        spec = self.spec
        return Trainer(
            self.split, self.questions[: len(spec.queries)], spec.rule, replicas=replicas,
            max_tokens=spec.max_tokens, batch=spec.batch, policy=policy,
        )  # fmt: skip

    def rows(self, turn: Round) -> list[dict[str, Any]]:
        """A round as rows of `observed.COLUMNS`; a rollout's number counts all of its replica's."""
        per_replica = len(turn.tokens) // (1 + int(turn.replica.max()))
        return [
            {
                "replica": int(turn.replica[i]),
                "round": turn.number + 1,
                "query": int(turn.query[i]),
                "rollout": i % per_replica,
                "tokens": list(tokens),
                "text": self.model.decode(list(tokens)),
                "outcome": outcome(self.model, self.spec.queries[turn.query[i]], tokens),
                "reward": float(turn.rewards[i]),
                "logprob": float(turn.logprob[i]),
            }
            for i, tokens in enumerate(turn.tokens)
        ]

    def look(self, trainer: Trainer) -> list[dict[str, Any]]:
        """Rows of the held-out rollouts before this round, where it is one that looks."""
        held, first = self.spec.held_out, len(self.spec.queries)
        if held is None or trainer.round % held.every:
            return []
        return [
            {
                "replica": s,
                "round": trainer.round + 1,
                "query": first + h,
                "rollout": i,
                "reward": float(reward),
            }
            for (s, h, i), reward in np.ndenumerate(trainer.evaluate(held.rollouts))
        ]


def question_of(model: LanguageModel, query: Query, max_tokens: int) -> Question:
    """The query in the model's tokens; an unparsable answer (outcome None) is paid like a wrong one.

    Errors: Refusal where prompt and response do not fit into the model's context.
    """
    return Question(
        model.encode_prompt(query.prompt, max_tokens),
        lambda response: float(score([outcome(model, query, response)])[0]),
        model.ends(query.stop),
    )


def outcome(model: LanguageModel, query: Query, tokens: Sequence[int]) -> float | None:
    """What the query's verifier says of a response: 1, 0, or None where it cannot be parsed."""
    return query.outcome(model.decode(list(tokens)))
