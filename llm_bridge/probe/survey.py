"""The part of a probe before its scores: rollouts, verified, and the prefix tree grown from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch

from llm_bridge.network.adapters import Factors
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.spec import BATCH, ProbeSpec
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import Prompt, Rollouts, open_prompt, sample, uniforms
from theory.refusal import Refusal
from theory.trees.prefix_tree import PrefixTree, Responses, Tokens, grow
from theory.trees.probe import Probe
from theory.trees.probe_record import ProbeRecord

Progress = Callable[[str, int, int], None]
PROBE_STREAM, SCREEN_STREAM = 2**63, 2**63 + 1
"""Replica numbers of the probe's draws and of the screening's: no training replica can have them."""


def survey(
    split: SplitModel,
    prompt: Prompt,
    question: Question,
    spec: ProbeSpec,
    *,
    max_tokens: int,
    seed: int,
    keep: Literal["correct", "all"] = "all",
    query: int = 0,
    factors: Factors | None = None,
    stream: int = PROBE_STREAM,
    progress: Progress | None = None,
) -> tuple[Responses, PrefixTree, ProbeRecord]:
    """Rollouts of one query, the tree grown from them, and what was done.

    Arguments: see `llm_bridge.probe.measure.measure`, and
        prompt: the question's, read.
        query: numbers the draws, where several queries are probed with one seed.
    Errors: `NoCorrectRollout` where none of the rollouts is correct.
    """
    reward_of = cache(question.reward_of)
    precision = spec.precision
    parts = draw_rollouts(
        split,
        prompt,
        spec.rollouts,
        max_tokens,
        question.end_tokens,
        seed=seed,
        query=query,
        factors=factors,
        stream=stream,
        enough=lambda parts: precision is not None and known_to(precision, collect(parts, reward_of)),
        progress=progress,
    )
    responses = collect(parts, reward_of)
    if not np.any(responses.rewards > 0):
        raise NoCorrectRollout(spec.rollouts)
    cuts = {"cut": spec.cut, "leaf_cut": spec.leaf_cut, "keep": keep}
    layout = grow(responses, vocabulary=split.vocabulary, **cuts)
    record = ProbeRecord(
        rollouts=responses.rollouts,
        max_tokens=max_tokens,
        seed=seed,
        query=query,
        vocabulary=split.vocabulary,
        tokens=int(sum(part.lengths.sum() for part in parts)) + sum(len(a.tokens) for a in layout.atoms),
        **cuts,
    )
    return responses, layout, record


def known_to(precision: float, responses: Responses) -> bool:
    """Whether the 95% interval of p0 is narrow enough: (high - low) / 2 <= precision p0.

    Looking after every batch and stopping at the first yes favours moments at which the estimate is high, since the
    width is relative to it: on power-law synthetic queries p0 comes out high by less than a tenth of the half-width
    asked for, and the interval still covers (`tests/llm_bridge/test_precision.py`). A fixed number has no such bias.
    """
    probe = Probe(responses, PrefixTree((), (), (), ()), np.zeros((0, 0)))
    low, high = probe.p0_interval()
    return bool((high - low) / 2 <= precision * probe.p0)


class NoCorrectRollout(Refusal):
    """None of the probe's rollouts was correct: p0 is at most 1 - 0.05^(1/N) with 95% confidence."""

    def __init__(self, rollouts: int, query: str = "") -> None:
        self.rollouts, self.upper = rollouts, 1 - 0.05 ** (1 / rollouts)
        super().__init__(
            f"{query}no correct rollout among {rollouts}: p0 is below {self.upper:.2g} (95%), and there is nothing to "
            f"forecast from. Raise --probe-rollouts, raise --max-tokens if answers are cut off, check --answer "
            f"and --verifier, or choose an easier query or a stronger model"
        )


def draw_rollouts(
    split: SplitModel,
    prompt: Prompt,
    count: int,
    max_tokens: int,
    end_tokens: Sequence[int],
    *,
    seed: int,
    batch: int = BATCH,
    query: int = 0,
    factors: Factors | None = None,
    stream: int = PROBE_STREAM,
    enough: Callable[[list[Rollouts]], bool] = lambda parts: False,
    progress: Progress | None = None,
) -> list[Rollouts]:
    """`count` rollouts of a network in batches, fewer where `enough` says so of the batches so far.

    (query, rollout) names the draws, as in `uniforms`, in a stream of the probe's own. Arguments: see `measure`.
    """
    opening = open_prompt(split, prompt, factors, torch.zeros(1, dtype=torch.long))
    parts: list[Rollouts] = []
    if progress is not None:
        progress("rollouts", 0, count)
    for done in range(0, count, batch):
        index = range(done, min(done + batch, count))
        draws = np.stack([uniforms(seed, stream, 0, query, i, max_tokens) for i in index])
        rows = torch.zeros(len(index), dtype=torch.long)
        parts.append(sample(split, prompt, opening, factors, rows, draws, [end_tokens]))
        if progress is not None:
            progress("rollouts", index.stop, count)
        if enough(parts):
            break
    return parts


def collect(parts: Sequence[Rollouts], reward_of: Callable[[Tokens], float]) -> Responses:
    """The distinct responses among rollouts, each verified once."""
    seen: dict[Tokens, list[float]] = {}
    counts: dict[Tokens, int] = {}
    ended: dict[Tokens, bool] = {}
    for part in parts:
        for row, logs, length, closed in zip(
            part.tokens, part.logprobs, part.lengths, part.ended, strict=True
        ):
            tokens = tuple(int(x) for x in row[:length])
            counts[tokens] = counts.get(tokens, 0) + 1
            seen.setdefault(tokens, [float(x) for x in logs[:length]])
            ended[tokens] = bool(closed)
    order = sorted(seen)
    return Responses(
        tuple(order),
        tuple(tuple(seen[t]) for t in order),
        np.array([counts[t] for t in order]),
        np.array([reward_of(t) for t in order]),
        np.array([ended[t] for t in order]),
    )
