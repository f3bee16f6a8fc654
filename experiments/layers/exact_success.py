"""Success of trained replicas of a model that is small enough to enumerate."""

from __future__ import annotations

import numpy as np

from experiments import store
from experiments.contexts import ContextsRun
from experiments.exact import enumerate_model
from experiments.pay import pay_of
from experiments.stages import question_of
from llm_bridge.asked import Question
from llm_bridge.train import Trainer
from theory.rules.rule import Rule


def exact_success(run: ContextsRun) -> np.ndarray:
    """(S,) success of every replica after its last update, by enumeration of its responses to the one query.

    Valid when: the run is finished, and few enough responses are possible.
    """
    spec, model = run.spec, run.language_model
    question = question_of(model, spec.queries[0], spec.max_tokens)
    factors = _trained_again(run, question).factors
    every = enumerate_model(model, spec.queries[0].prompt, question.reward_of, spec.max_tokens, spec.adapter)
    return np.array([
        every.success({name: (down[s : s + 1], up[s : s + 1]) for name, (down, up) in factors.items()})
        for s in range(spec.replicas)
    ])  # fmt: skip


def _trained_again(run: ContextsRun, question: Question) -> Trainer:
    """The replicas after the last round: by the run's record, which costs no sampling, or else by the same draws."""
    spec = run.spec
    trainer = Trainer(
        run.split, [question], spec.rule, replicas=spec.replicas, max_tokens=spec.max_tokens, seed=spec.seed,
        pay=pay_of(spec.verifier),
    )  # fmt: skip
    if not _recorded(spec.rule):
        for _ in trainer.run(spec.rounds):
            pass
        return trainer
    found = store.read_rows(run.out / "observed.parquet", spec.stage("train"))
    assert found is not None
    trained = sorted(
        (row for row in found[0] if row["query"] == 0), key=lambda r: (r["round"], r["replica"], r["rollout"])
    )
    each = spec.replicas * spec.rule.rollouts
    for t in range(spec.rounds):
        rows = trained[t * each : (t + 1) * each]
        trainer.retrace([tuple(row["tokens"]) for row in rows], np.array([row["reward"] for row in rows]))
    return trainer


def _recorded(rule: Rule) -> bool:
    """Whether a record of responses and rewards holds all that the rule's weights read."""
    plain = rule.kl.kind == "none" and rule.entropy.kind == "none" and rule.epochs == 1
    return plain and not rule.signal.helpers
