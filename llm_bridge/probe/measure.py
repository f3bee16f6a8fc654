"""Measure the bandit on a network: each query's rollouts and tree, one score per edge, all scores' inner products."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from llm_bridge.network.adapters import Factors
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.kept_scores import KeptScores
from llm_bridge.probe.scores import atom_scores
from llm_bridge.probe.sketch import Coordinates, Reduction, Sketch
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.probe.survey import PROBE_STREAM, NoCorrectRollout, Progress, survey
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import read_prompt
from theory.refusal import Refusal
from theory.trees.joint_probe import JointProbe
from theory.trees.probe import Probe

LARGEST = 2**25
"""Trained parameters of which whole scores may be kept: 128 MB each in float32, and a probe has hundreds."""


def measure(
    split: SplitModel,
    questions: Sequence[Question],
    spec: ProbeSpec,
    *,
    max_tokens: int,
    seed: int,
    keep: Literal["correct", "all"] = "all",
    factors: Factors | None = None,
    stream: int = PROBE_STREAM,
    progress: Progress | None = None,
) -> JointProbe:
    """Probe Q queries on the base model, or on another network, and multiply all scores with one another.

    Scores of one query are held in memory; those of several in a temporary file (`KeptScores`).

    Arguments:
        questions: Q >= 1 queries in the model's tokens, with verified rewards (0 or 1).
        spec: of each query: rollouts, where the tree is cut, precision, sketch, coordinates.
        max_tokens: longest response.
        seed: draws depend on (seed, query's place, rollout) alone, so that the first query's are those it has alone.
        keep: which responses become leaves; see `theory.trees.prefix_tree.grow`. Wrong paths too, though a raw reward
            never pulls them: what stays in a rest moves as one arm, while its tokens in truth move apart, and the
            forecast comes out too high late (`experiments.studies.approximations.late_errors`).
        factors: those of the network, one replica's (leading axis 1); None is the base model.
        stream: replica number of the draws, as of `uniforms`: another network's are others.
        progress: called as progress(label, done, total) with labels rollouts and scores, and probe of several queries.
    Errors: `NoCorrectRollout` where a query has no correct rollout, naming its place among several: there is nothing
        to forecast it from. Refusal as from `reduction_of`. OSError where the temporary folder has no room.
    """
    started = time.perf_counter()
    reduction = reduction_of(split, spec.sketch, seed)
    picked = None if spec.coordinates is None else Coordinates(spec.coordinates, trained(split), seed)
    theta = split.adapters.fresh(1) if factors is None else factors
    count, own = len(questions), 0 if picked is None else len(picked.places)
    precision = torch.promote_types(next(iter(theta.values()))[0].dtype, torch.float32)
    surveyed, sampled = [], []
    with KeptScores(count, precision) as kept:
        for q, question in enumerate(questions):
            prompt = read_prompt(split, question.prompt)
            try:
                found = survey(
                    split, prompt, question, spec, max_tokens=max_tokens, seed=seed, keep=keep, query=q,
                    factors=factors, stream=stream, progress=progress,
                )  # fmt: skip
            except NoCorrectRollout:
                if count == 1:
                    raise
                raise NoCorrectRollout(spec.rollouts, f"query {q + 1} of {count}: ") from None
            surveyed.append(found)
            scores = atom_scores(
                split,
                prompt,
                theta,
                found[1].atoms,
                reduction=_both(reduction, picked),
                progress=None if progress is None else lambda done, total: progress("scores", done, total),
            )
            first = scores[:, :own]
            sampled.append(first.to(torch.promote_types(first.dtype, torch.float32)).cpu().numpy())
            kept.add(scores[:, own:] if own else scores)
            del scores, first
            if progress is not None and count > 1:
                progress("probe", q + 1, count)
        whole = kept.gram()
    places = pairwise(np.cumsum([0, *(len(layout.atoms) for _, layout, _ in surveyed)]))
    probes = tuple(
        Probe(
            responses,
            layout,
            whole if count == 1 else whole[first:last, first:last],
            meta,
            None if picked is None else sampled[q],
            1.0 if picked is None else picked.share,
        )
        for q, ((responses, layout, meta), (first, last)) in enumerate(zip(surveyed, places, strict=True))
    )
    noted = {"seconds": (time.perf_counter() - started) / count}
    if reduction is not None:
        noted |= {"sketch": reduction.size, "sketch_error": reduction.error}
    return JointProbe(tuple(probe.noting(**noted) for probe in probes), whole)


def trained(split: SplitModel) -> int:
    """How many parameters of one replica are trained."""
    return sum(x.numel() for x in split.adapters.trainable(split.adapters.fresh(1)))


def _both(sketch: Sketch | None, sample_of: Coordinates | None) -> Reduction | None:
    """The sampled coordinates, where there are any, before the sketch or else the whole gradient."""
    if sample_of is None:
        return sketch

    def reduce(grads: Sequence[torch.Tensor]) -> torch.Tensor:
        whole = torch.cat([g.reshape(len(g), -1) for g in grads], dim=1) if sketch is None else sketch(grads)
        return torch.cat([sample_of(grads).to(whole), whole], dim=1)

    return reduce


def reduction_of(split: SplitModel, sketch: int | None, seed: int) -> Sketch | None:
    """The sketch of this many coordinates; none where none is asked for.

    Errors: Refusal for a sketch of as many coordinates as are trained, and for too many trained without one.
    """
    width = trained(split)
    if sketch is not None and sketch >= width:
        raise Refusal(
            f"sketch = {sketch}, but only {width} parameters are trained; give fewer coordinates, or no sketch"
        )
    if sketch is None and width > LARGEST:
        raise Refusal(
            f"{width:,} parameters are trained: a score of each would not fit in memory; give a sketch "
            "(--sketch 16384)"
        )
    return None if sketch is None else Sketch(sketch, seed)
