"""The stages of a run: probe, forecast, train. Each finds its result in the run folder, or makes it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from experiments import store
from experiments.forecast import Forecast, forecast
from experiments.specs import RunSpec
from experiments.store import Observed
from llm_bridge.asked import Question
from llm_bridge.models import LanguageModel, load_model
from llm_bridge.probe import measure
from llm_bridge.split import SplitModel
from llm_bridge.train import Round, Trainer
from llm_bridge.verifiers import score, verify
from theory.prefix_tree import Tokens
from theory.probe import Probe

Progress = Callable[[str, int, int], None]
CHECKPOINT_EVERY = 10


@dataclass
class Run:
    """One run folder and what it takes to fill it; the model is loaded only when a stage needs it.

    Arguments:
        spec: what is run.
        out: the run folder.
        progress: called as progress(label, done, total).
        model: a loaded model to use instead of loading `spec.model` (several runs can share one).
    """

    spec: RunSpec
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
        return SplitModel(self.language_model.model, self.spec.adapter)

    @cached_property
    def prompt(self) -> torch.Tensor:
        return self.language_model.encode_prompt(self.spec.query.prompt, self.spec.max_tokens)

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        return self.language_model.ends(self.spec.query.stop)

    def outcome_of(self, tokens: Tokens) -> float | None:
        return verify(self.spec.query, self.language_model.decode(list(tokens)))

    def reward_of(self, tokens: Tokens) -> float:
        """An unparsable answer (outcome None) is paid like a wrong one."""
        return float(score([self.outcome_of(tokens)])[0])

    @property
    def question(self) -> Question:
        return Question(self.prompt, self.reward_of, self.end_tokens)

    def probe(self) -> Probe:
        """The probe: from the folder, or measured on the base model and saved."""
        stage = self.spec.stage("probe")
        found = store.load_probe(self.out, stage)
        if found is not None:
            return found
        started = time.perf_counter()
        probe = measure(
            self.split,
            self.prompt,
            self.reward_of,
            end_tokens=self.end_tokens,
            vocabulary=self.language_model.model.config.vocab_size,
            rollouts=self.spec.probe.rollouts,
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
            cut=self.spec.probe.cut,
            leaf_cut=self.spec.probe.leaf_cut,
            precision=self.spec.probe.precision,
            # Wrong paths too, though a raw reward never pulls them: what stays in a rest moves as one arm, while
            # its tokens in truth move apart, and the forecast comes out too high late (`late_errors`).
            keep="all",
            progress=self.progress,
        )
        probe.meta["seconds"] = time.perf_counter() - started
        probe.meta["model"] = self.language_model.fingerprint
        store.save_probe(self.out, probe, stage)
        return probe

    def forecast(self) -> Forecast:
        """The forecast: from the folder, or simulated from the probe and saved. Never trains."""
        stage = self.spec.stage("forecast")
        found = store.load_forecast(self.out, stage)
        if found is not None:
            return found
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
        store.save_forecast(self.out, made, probe.p0, stage)
        return made

    def observe(self) -> Observed:
        """The run itself: from the folder, or trained. An interrupted run goes on where it stopped."""
        stage = self.spec.stage("train")
        found = store.load_observed(self.out, stage)
        if found is not None:
            return found
        trainer = Trainer(
            self.split,
            [self.question],
            self.spec.rule,
            replicas=self.spec.replicas,
            max_tokens=self.spec.max_tokens,
            seed=self.spec.seed,
        )
        rows, seconds = self._resume(trainer, stage)
        try:
            for turn in trainer.run(self.spec.rounds):
                rows.extend(self._rows(turn))
                seconds += turn.seconds
                self.progress("train", trainer.round, self.spec.rounds)
                if trainer.round % CHECKPOINT_EVERY == 0:
                    self._checkpoint(trainer, rows, stage, seconds)
        except BaseException:
            if trainer.whole and rows and rows[-1]["round"] == trainer.round:
                self._checkpoint(trainer, rows, stage, seconds)
            raise
        notes = {"stage": stage, "seconds": repr(seconds)}
        store.write_observed(self.out / "observed.parquet", rows, notes)
        for path in self._checkpoints():
            path.unlink(missing_ok=True)
        observed = store.load_observed(self.out, stage)
        assert observed is not None
        return observed

    def _rows(self, turn: Round) -> list[dict[str, Any]]:
        n = self.spec.rule.rollouts
        return [
            {
                "replica": i // n,
                "round": turn.number + 1,
                "rollout": i % n,
                "tokens": list(tokens),
                "text": self.language_model.decode(list(tokens)),
                "outcome": self.outcome_of(tokens),
                "reward": float(turn.rewards[i]),
                "logprob": float(turn.logprob[i]),
            }
            for i, tokens in enumerate(turn.tokens)
        ]

    def _checkpoints(self) -> list[Path]:
        return sorted([*self.out.glob("checkpoint-*.safetensors"), *self.out.glob("checkpoint-*.parquet")])

    def _checkpoint(self, trainer: Trainer, rows: list[dict[str, Any]], stage: str, seconds: float) -> None:
        """State and rows under the round's number; older ones go only when both new ones are there."""
        old, name = self._checkpoints(), f"checkpoint-{trainer.round:06d}"
        with store.replacing(self.out / f"{name}.safetensors") as temporary:
            save_file(trainer.state(), temporary, {"stage": stage})
        store.write_observed(self.out / f"{name}.parquet", rows, {"stage": stage, "seconds": repr(seconds)})
        for path in old:
            if path.stem != name:
                path.unlink(missing_ok=True)

    def _resume(self, trainer: Trainer, stage: str) -> tuple[list[dict[str, Any]], float]:
        """Rows and seconds of the newest whole checkpoint, loaded into the trainer; nothing where there is none."""
        for path in sorted(self.out.glob("checkpoint-*.parquet"), reverse=True):
            found = store.read_rows(path, stage)
            state = path.with_suffix(".safetensors")
            if found is None or not state.exists():
                continue
            try:
                tensors = load_file(state)
            except SafetensorError:
                continue  # half-written: an older checkpoint is worth more than its newest part
            trainer.load_state(tensors)
            rows, notes = found
            self.progress("train", trainer.round, self.spec.rounds)
            return rows, float(notes["seconds"])
        return [], 0.0
