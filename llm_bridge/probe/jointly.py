"""Measure several queries on one base model: a probe of each, and the inner products of scores across them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from llm_bridge.network.split import SplitModel
from llm_bridge.probe.measure import NoCorrectRollout, Progress, noted, reduction_of, survey, trained
from llm_bridge.probe.scores import atom_scores
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import read_prompt
from theory.trees.joint_probe import JointProbe
from theory.trees.probe import Probe

BLOCK = 1024
"""Rows of a Gram block: two of them and their product are all that is in memory."""


def measure_jointly(
    split: SplitModel,
    questions: Sequence[Question],
    *,
    vocabulary: int,
    rollouts: int = 512,
    max_tokens: int = 10,
    seed: int = 0,
    cut: float = 5.0,
    leaf_cut: float = 3.0,
    keep: Literal["correct", "all"] = "all",
    precision: float | None = None,
    sketch: int | None = None,
    progress: Progress | None = None,
) -> JointProbe:
    """Probe every query, and multiply all scores with one another.

    Scores are kept in a temporary file, so that memory is bounded whatever the number of queries; the file needs
    4 bytes per trained parameter and score, or per coordinate of a sketch.

    Arguments: see `llm_bridge.probe.measure.measure`; rollouts and precision are of each query.
    Errors: `NoCorrectRollout`, naming the query's place, where one has no correct rollout: there is nothing to
        forecast it from. OSError where the temporary folder has no room.
    """
    started = time.perf_counter()
    reduction = reduction_of(split, sketch, seed)
    width = sketch or trained(split)
    surveys = []
    with tempfile.TemporaryFile() as file:
        for q, question in enumerate(questions):
            prompt = read_prompt(split, question.prompt)
            try:
                responses, layout, meta = survey(
                    split, prompt, question.reward_of, end_tokens=question.end_tokens, vocabulary=vocabulary,
                    rollouts=rollouts, max_tokens=max_tokens, seed=seed, cut=cut, leaf_cut=leaf_cut, keep=keep,
                    query=q, precision=precision,
                )  # fmt: skip
            except NoCorrectRollout:
                raise NoCorrectRollout(rollouts, f"query {q + 1} of {len(questions)}: ") from None
            scores = atom_scores(split, prompt, split.adapters.fresh(1), layout.atoms, reduction=reduction)
            file.write(scores.float().cpu().numpy().tobytes())
            surveys.append((responses, layout, meta))
            if progress is not None:
                progress("probe", q + 1, len(questions))
        file.flush()
        sizes = [len(layout.atoms) for _, layout, _ in surveys]
        stored = np.memmap(file, dtype=np.float32, mode="c", shape=(sum(sizes), width))  # pyright: ignore[reportArgumentType]
        whole = _gram(stored)
        del stored
    starts = np.cumsum([0, *sizes])
    probes = []
    for q, (responses, layout, meta) in enumerate(surveys):
        own = slice(starts[q], starts[q + 1])
        meta |= {"seconds": (time.perf_counter() - started) / len(surveys), "query": q, **noted(reduction)}
        probes.append(Probe(responses, layout, whole[own, own], meta))
    return JointProbe(tuple(probes), whole)


def _gram(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """(M, M) inner products of stored scores (M, P), block by block, summed over columns in float64."""
    count, width = scores.shape
    whole = np.zeros((count, count))
    for first in range(0, count, BLOCK):
        rows = torch.from_numpy(scores[first : first + BLOCK])
        for other in range(0, first + BLOCK, BLOCK):
            columns = rows if other == first else torch.from_numpy(scores[other : other + BLOCK])
            block = torch.zeros(len(rows), len(columns), dtype=torch.float64)
            for part in range(0, width, 8192):
                block += (rows[:, part : part + 8192] @ columns[:, part : part + 8192].T).double()
            whole[first : first + len(rows), other : other + len(columns)] = block.numpy()
            whole[other : other + len(columns), first : first + len(rows)] = block.numpy().T
    return whole
