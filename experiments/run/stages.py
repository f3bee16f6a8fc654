"""The stages of a run: probe, forecast, train. Each finds its result in the run folder, or makes it there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.folder import checkpoint
from experiments.folder.forecast_store import load_forecast, save_forecast
from experiments.folder.observed import Observed, load_observed
from experiments.folder.probe_cache import probe_of
from experiments.folder.probe_store import load_probe, save_probe
from experiments.folder.run_folder import TrainingFolder
from experiments.folder.store import write_json
from experiments.forecast.forecast import Forecast, forecast
from experiments.forecast.relinearise import RELINEARISED, Networks, corrected
from experiments.specs.run_spec import RunSpec
from llm_bridge.models.language_model import LanguageModel
from llm_bridge.network.adapters import Factors
from llm_bridge.network.specs import FullSpec
from llm_bridge.probe.measure import PROBE_STREAM, measure
from llm_bridge.probe.scores import displaced
from llm_bridge.queries.query import Query
from llm_bridge.rewards.verifiers import score, verify
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import read_prompt
from llm_bridge.train import Round, Trainer
from theory.refusal import Refusal
from theory.trees.prefix_tree import Tokens
from theory.trees.probe import Probe


@dataclass
class Run(TrainingFolder):
    """The folder of one query, and the stages that fill it."""

    spec: RunSpec

    @cached_property
    def question(self) -> Question:
        return question_of(self.language_model, self.spec.query, self.spec.max_tokens)

    @property
    def prompt(self) -> torch.Tensor:
        return self.question.prompt

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return self.question.end_tokens

    def reward_of(self, tokens: Tokens) -> float:
        return self.question.reward_of(tokens)

    def probe(self) -> Probe:
        """The probe: from the folder, from this machine's cache, or measured on the base model; saved in the folder."""
        probe = probe_of(self, self.spec.stage("probe"), self.measured, save_probe, load_probe)
        self.tell_rounding([probe])
        return probe

    def measured(
        self, factors: Factors | None = None, rollouts: int | None = None, stream: int = PROBE_STREAM
    ) -> Probe:
        """A probe of the base model, or of another network; see `llm_bridge.probe.measure.measure`."""
        started = time.perf_counter()
        probe = measure(
            self.split,
            self.prompt,
            self.reward_of,
            end_tokens=self.end_tokens,
            vocabulary=self.language_model.model.config.vocab_size,
            rollouts=rollouts or self.spec.probe.rollouts,
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
            cut=self.spec.probe.cut,
            leaf_cut=self.spec.probe.leaf_cut,
            precision=self.spec.probe.precision,
            sketch=self.spec.probe.sketch,
            coordinates=self.spec.probe.coordinates,
            # Wrong paths too, though a raw reward never pulls them: what stays in a rest moves as one arm, while
            # its tokens in truth move apart, and the forecast comes out too high late (`late_errors`).
            keep="all",
            factors=factors,
            stream=stream,
            progress=self.progress,
        )
        probe.meta["seconds"] = time.perf_counter() - started
        probe.meta["model"] = self.language_model.fingerprint
        if factors is None:
            self.note_rounding([self.prompt], [probe])
        return probe

    def displaced(self, probe: Probe, shares: NDArray[np.floating], base: Factors | None = None) -> Factors:
        """Factors of networks moved along the scores of a probe's atoms; see `llm_bridge.probe.scores.displaced`."""
        return displaced(
            self.split,
            read_prompt(self.split, self.prompt),
            probe.layout.atoms,
            shares,
            base=base,
            progress=lambda done, total: self.progress("displace", done, total),
        )

    def forecast(self) -> Forecast:
        """The forecast: from the folder, or simulated from the probe and saved. Never trains."""
        stage = self.spec.stage("forecast")
        found = load_forecast(self.out, stage)
        if found is not None:
            return found
        decay = getattr(self.spec.rule.optimiser, "weight_decay", 0)
        if decay and isinstance(self.spec.adapter, FullSpec):
            raise Refusal(
                f"weight_decay = {decay} with full parameters pulls them towards zero, which no forecast around the "
                "base model holds; give weight_decay 0 (--optimiser adam has none), or train adapters, whose "
                "zero is the base model"
            )
        if not self.spec.rule.optimiser.linear and self.spec.probe.coordinates is None:
            raise Refusal(
                f"optimiser {self.spec.rule.optimiser.kind} acts on parameters, and probe.coordinates is None: "
                "give how many of them are to be simulated (--coordinates 4096)"
            )
        probe = self.probe()
        made = forecast(
            probe,
            self.spec.rule,
            rounds=self.spec.rounds,
            replicas=self.spec.replicas,
            spec=self.spec.forecast,
            seed=self.spec.seed,
            progress=self.progress,
        )
        if (networks := self.networks()) is not None:
            correction = networks.correction(self.progress)
            write_json(self.out / RELINEARISED, {"stage": stage} | correction.numbers())
            made = corrected(made, correction, self.spec.seed)
        save_forecast(self.out, made, probe.p0, stage)
        return made

    def networks(self) -> Networks | None:
        """The networks that are probed anew, where the spec asks for some."""
        if self.spec.forecast.relinearise is None:
            return None
        return Networks(self.spec, self.probe(), self.out, self.measured, self.displaced)

    def observe(self) -> Observed:
        """The run itself: from the folder, or trained. An interrupted run goes on where it stopped."""
        stage = self.spec.stage("train")
        found = load_observed(self.out, stage)
        if found is not None:
            return found
        if self.spec.rule.signal.helpers:
            raise Refusal(
                f"signal {self.spec.rule.signal.kind} draws rollouts that are not trained on; a run of one query is "
                "compared round by round with its record, which does not hold them: run `onearm contexts`, or choose a "
                "signal without extra or greedy rollouts"
            )
        trainer = Trainer(
            self.split,
            [self.question],
            self.spec.rule,
            replicas=self.spec.replicas,
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
            chunk=self.micro_batch,
            recompute=self.recompute,
        )
        checkpoint.train(self.out, trainer, self.spec.rounds, stage, self._rows, self.progress)
        observed = load_observed(self.out, stage)
        assert observed is not None
        return observed

    def _rows(self, turn: Round) -> list[dict[str, Any]]:
        return rows_of(turn, self.language_model, [self.spec.query])


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
    return verify(query, model.decode(list(tokens)))


def rows_of(turn: Round, model: LanguageModel, queries: Sequence[Query]) -> list[dict[str, Any]]:
    """A round as rows of `observed.COLUMNS`; a rollout's number counts all of its replica's."""
    per_replica = len(turn.tokens) // (1 + int(turn.replica.max()))
    return [
        {
            "replica": int(turn.replica[i]),
            "round": turn.number + 1,
            "query": int(turn.query[i]),
            "rollout": i % per_replica,
            "tokens": list(tokens),
            "text": model.decode(list(tokens)),
            "outcome": outcome(model, queries[turn.query[i]], tokens),
            "reward": float(turn.rewards[i]),
            "logprob": float(turn.logprob[i]),
        }
        for i, tokens in enumerate(turn.tokens)
    ]
