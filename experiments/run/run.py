"""A run: probe, forecast, train. Each stage finds its result in the run folder, or makes it there."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from experiments.folder import store
from experiments.folder.probe_cache import cached_probe
from experiments.folder.probe_store import load_probe, save_probe
from experiments.folder.run_folder import RunFolder
from experiments.specs import RunSpec
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.warning import ForecastWarning

if TYPE_CHECKING:
    from experiments.folder.observed import Observed
    from experiments.forecast.network import Network
    from experiments.forecast.relinearise import Relinearised
    from llm_bridge.train import Trainer
    from theory.forecast import Forecast
    from theory.trees.joint_probe import JointProbe

TRAINED = "trained.safetensors"


@dataclass
class Run(RunFolder):
    """The folder of a `RunSpec`, and the stages that fill it: `probe`, `forecast`, `train`; one query or several.

    Arguments: those of `RunFolder`, and
        micro_batch, recompute: see `llm_bridge.train.Trainer` (chunk, recompute): memory against time, the same numbers
            up to rounding.
    Errors: those of `RunFolder`, and Refusal for a micro_batch below 1.
    """

    spec: RunSpec
    micro_batch: int = 16
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.micro_batch < 1:
            raise Refusal(f"micro_batch = {self.micro_batch}; give at least 1 (--micro-batch)")
        super().__post_init__()

    @cached_property
    def network(self) -> Network:
        """The model with its adapters, and the queries in its tokens."""
        from experiments.forecast.network import Network

        return Network(self.spec, self.language_model, lambda *told: self.progress(*told))

    def probe(self) -> JointProbe:
        """The probe: from the folder, from this machine's cache, or measured on the base model; saved in the folder."""
        stage, queries = self.spec.stage("probe"), len(self.spec.asked)
        found = load_probe(self.out, stage, queries)
        if found is None:
            found, kept = cached_probe(stage, queries, self.language_model.fingerprint, self._measured)
            if kept:
                self.progress("kept probe", 1, 1)
            save_probe(self.out, found, stage)
        if self.spec.model.dtype == "bfloat16":
            self.network.tell_rounding(found)
        return found

    def _measured(self) -> JointProbe:
        return self.network.probe()

    def forecast(self) -> Forecast:
        """The forecast: from the folder, or simulated from the probe and saved. Never trains.

        Errors: Refusal from `RunSpec.check_forecast`, before anything is probed.
        """
        from experiments.folder.forecast_store import load_forecast, save_forecast
        from experiments.forecast.correction import RELINEARISED, corrected
        from experiments.forecast.forecast import forecast

        stage = self.spec.stage("forecast")
        found = load_forecast(self.out, stage)
        if found is not None:
            return found
        self.spec.check_forecast()
        made = forecast(self.spec, self.probe(), self.progress)
        if (relinearised := self.relinearised) is not None:
            correction = relinearised.correction()
            store.write_json(self.out / RELINEARISED, {"stage": stage} | correction.numbers())
            made = corrected(made, correction, self.spec.seed)
        save_forecast(self.out, made, stage)
        return made

    @cached_property
    def relinearised(self) -> Relinearised | None:
        """The networks that are probed anew, where the spec asks for some."""
        from experiments.forecast.relinearise import Relinearised

        if self.spec.forecast.relinearise is None:
            return None
        return Relinearised(self.network, self.probe(), self.out)

    def drift(self) -> list[dict[str, Any]] | None:
        """How far the network is from its linearisation where the forecast goes; see `experiments.forecast.drift`.

        None for a rule without, and, with a warning, where it cannot be measured: it stands beside the forecast.
        """
        from experiments.forecast.drift import drift_numbers

        try:
            return drift_numbers(self.network, self.probe(), self.relinearised, self.out)
        except Refusal as reason:
            warnings.warn(f"drift is not measured: {reason}", ForecastWarning, stacklevel=2)
            return None

    def train(self) -> Observed:
        """The run itself: from the folder, or trained. An interrupted run goes on where it stopped."""
        from experiments.folder.observed import load_observed

        found = load_observed(self.out, self.spec)
        if found is None:
            self._train()
            found = load_observed(self.out, self.spec)
            assert found is not None
        return found

    def trained(self) -> Trainer:
        """The replicas after the last round, of a run that is there or is made: kept beside the record, or, where that
        is gone, trained again on the record; on draws of their own where a record does not hold what the rule reads."""
        observed = self.train()
        spec, trainer = self.spec, self.trainer()
        kept = store.load_arrays(self.out / TRAINED, spec.stage("train"), "pt")
        if kept is not None:
            trainer.load_state(kept[0])
            return trainer
        for t in range(spec.rounds):
            if recorded(spec.rule):
                responses = [y for replica in observed.tokens for y in replica[t]]
                trainer.retrace(responses, observed.rewards[:, t].ravel(), observed.query[:, t].ravel())
            else:
                trainer.step()
            self.progress("retrace", t + 1, spec.rounds)
        return trainer

    def trainer(self) -> Trainer:
        """The replicas before the first round."""
        return self.network.trainer(chunk=self.micro_batch, recompute=self.recompute)

    def _train(self) -> None:
        from safetensors.torch import save_file

        from experiments.folder import checkpoint

        stage, trainer = self.spec.stage("train"), self.trainer()
        checkpoint.train(
            self.out, trainer, self.spec.rounds, stage, self.network.rows, self.progress,
            lambda: self.network.look(trainer),
        )  # fmt: skip
        with store.replacing(self.out / TRAINED) as temporary:
            save_file(trainer.state(), temporary, {"stage": stage})


def recorded(rule: Rule) -> bool:
    """Whether a record of responses and what they were paid holds all that the rule's weights read."""
    plain = rule.kl.kind == "none" and rule.entropy.kind == "none" and rule.epochs == 1
    return plain and not rule.signal.helpers
