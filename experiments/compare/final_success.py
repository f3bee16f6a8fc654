"""Success of trained replicas: exact on the correct responses that are known beforehand, sampled beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.compare.exact import enumerate_model
from experiments.run.run import Run
from llm_bridge.probe.masses import masses
from llm_bridge.train import Trainer
from theory.trees.prefix_tree import Responses, Tokens

Array = NDArray[np.float64]
ROLLOUTS, KNOWN, MOST = 8, 64, 16
"""For the queries trained on, and for those held out: rollouts of a replica, and responses scored; most of a query."""


class FinalSuccess(NamedTuple):
    """(S, Q + H) success of each query, those held out last.

    Arguments:
        trained: after the last update.
        base: of the base model by the same uniform numbers: where a replica has not moved, the two are equal.
    """

    trained: Array
    base: Array


def final_success(run: Run, *, exact: bool = False) -> FinalSuccess:
    """Success of every replica of a run, and of the base model, query by query.

        sum_{y known} pi_s(y) + (share of fresh rollouts that are correct and not known)

    Known are the heaviest correct responses of the probe, so that little is left to sampling; unbiased whatever is
    known, since the probe's draws are not the replicas'.

    Arguments:
        exact: know every correct response by enumerating a model that is small enough; nothing is sampled.
    """
    spec = run.spec
    sets = [range(len(spec.queries)), range(len(spec.queries), len(spec.queries) + len(spec.apart))]
    known = _all_correct(run) if exact else _heaviest(run, sets)
    trained, base = run.trained(), run.trainer()
    base.round = trained.round  # the same draws
    return FinalSuccess(*(
        np.concatenate([_success(who, own, known, not exact) for own in sets if own], axis=1)
        for who in (trained, base)
    ))  # fmt: skip


def _success(trainer: Trainer, queries: range, known: Sequence[Sequence[Tokens]], sampled: bool) -> Array:
    exact = np.stack(
        [
            masses(trainer.split, trainer.asked[q].prompt, trainer.factors, trainer.replicas, known[q]).sum(
                axis=1
            )
            for q in queries
        ],
        axis=1,
    )
    if not sampled:
        return exact
    each = max(1, ROLLOUTS // len(queries))
    tokens, rewards = trainer.respond(queries, each)
    asked = np.tile(np.repeat(queries, each), trainer.replicas)
    beyond = np.array([float(y not in known[q]) for q, y in zip(asked, tokens, strict=True)])
    return exact + (rewards * beyond).reshape(trainer.replicas, len(queries), each).mean(axis=2)


def _heaviest(run: Run, sets: Sequence[range]) -> list[list[Tokens]]:
    """The heaviest correct responses that the probe found of each query."""
    count = [min(MOST, KNOWN // len(own)) for own in sets for _ in own]
    return [_correct(probe.responses)[:most] for probe, most in zip(run.probe().probes, count, strict=True)]


def _all_correct(run: Run) -> list[list[Tokens]]:
    """Every correct response of each query of a model that can be enumerated."""
    spec, model = run.spec, run.language_model
    found: list[list[Tokens]] = []
    for query, question in zip(spec.asked, run.network.questions, strict=True):
        every = enumerate_model(model, query.prompt, question.reward_of, spec.max_tokens, spec.adapter)
        found.append(_correct(every.responses))
    return found


def _correct(responses: Responses) -> list[Tokens]:
    """Correct responses, the likeliest first."""
    right = np.flatnonzero(responses.rewards > 0)
    return [responses.tokens[i] for i in right[np.argsort(-responses.mass[right], kind="stable")]]
