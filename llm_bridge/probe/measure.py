"""Measure the bandit on a network: rollouts, verified; their prefix tree; one score per edge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from llm_bridge.network.adapters import Factors
from llm_bridge.network.growing import Growing
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.scores import atom_scores, gram
from llm_bridge.probe.sketch import Coordinates, Reduction, Sketch
from llm_bridge.rollouts.rollouts import Prompt, Rollouts, open_prompt, read_prompt, sample, uniforms
from theory.refusal import Refusal
from theory.trees.prefix_tree import PrefixTree, Responses, Tokens, grow
from theory.trees.probe import Probe

Progress = Callable[[str, int, int], None]
PROBE_STREAM, SCREEN_STREAM = 2**63, 2**63 + 1
"""Replica numbers of the probe's draws and of the screening's: no training replica can have them."""
LARGEST = 2**25
"""Trained parameters of which whole scores may be kept: 128 MB each in float32, and a probe has hundreds."""
BATCH = 256
"""Rollouts sampled at once, and between two looks at the precision reached."""


def measure(
    split: SplitModel,
    prompt_tokens: torch.Tensor,
    reward_of: Callable[[Tokens], float],
    *,
    end_tokens: Sequence[int],
    vocabulary: int,
    rollouts: int = 2048,
    max_tokens: int = 10,
    seed: int = 0,
    cut: float = 5.0,
    leaf_cut: float = 3.0,
    keep: Literal["correct", "all"] = "correct",
    batch: int = BATCH,
    precision: float | None = None,
    sketch: int | None = None,
    coordinates: int | None = None,
    factors: Factors | None = None,
    stream: int = PROBE_STREAM,
    progress: Progress | None = None,
) -> Probe:
    """Probe one query on the base model, or on another network.

    Arguments:
        reward_of: verified reward (0 or 1) of a response given as token ids.
        rollouts: number N of responses sampled, at temperature 1 over the full vocabulary.
        cut, leaf_cut, keep: see `theory.trees.prefix_tree.grow`.
        batch: rollouts sampled at once; each prefix in a batch is computed once.
        precision: stop after the first batch at which p0 is `known_to` it, `rollouts` being the most; None draws all.
        sketch: d, coordinates that scores are sketched to before they are multiplied (`llm_bridge.probe.sketch`); its
            error is in the probe's meta. None multiplies the scores themselves.
        coordinates: parameters of which the probe keeps the scores themselves, for optimisers that no kernel carries.
        factors: those of the network, one replica's (leading axis 1); None is the base model.
        stream: replica number of the draws, as of `uniforms`: another network's are others.
    Errors: `NoCorrectRollout` where none of the N rollouts is correct: there is nothing to forecast from. Refusal
        as from `reduction_of`.
    """
    started = time.perf_counter()
    reduction = reduction_of(split, sketch, seed)
    sample_of = None if coordinates is None else Coordinates(coordinates, trained(split), seed)
    prompt = read_prompt(split, prompt_tokens)
    responses, layout, meta = survey(
        split, prompt, reward_of, end_tokens=end_tokens, vocabulary=vocabulary, rollouts=rollouts,
        max_tokens=max_tokens, seed=seed, cut=cut, leaf_cut=leaf_cut, keep=keep, batch=batch, precision=precision,
        factors=factors, stream=stream, progress=progress,
    )  # fmt: skip
    scores = atom_scores(
        split,
        prompt,
        split.adapters.fresh(1) if factors is None else factors,
        layout.atoms,
        reduction=_both(reduction, sample_of),
        progress=None if progress is None else lambda done, total: progress("scores", done, total),
    )
    meta |= {"seconds": time.perf_counter() - started, **noted(reduction)}
    if sample_of is None:
        return Probe(responses, layout, gram(scores).numpy(), meta)
    sampled, scores = scores[:, : len(sample_of.places)], scores[:, len(sample_of.places) :]
    own = sampled.to(torch.promote_types(sampled.dtype, torch.float32)).cpu().numpy()
    return Probe(responses, layout, gram(scores).numpy(), meta, own, sample_of.share)


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


def noted(reduction: Sketch | None) -> dict[str, object]:
    """What a probe's meta says of its sketch: sketch_error is the standard deviation of an inner product of a vector
    with itself, as a share; of two vectors it is less, as a share of |a| |b|."""
    return {} if reduction is None else {"sketch": reduction.size, "sketch_error": reduction.error}


def survey(
    split: SplitModel,
    prompt: Prompt,
    reward_of: Callable[[Tokens], float],
    *,
    end_tokens: Sequence[int],
    vocabulary: int,
    rollouts: int,
    max_tokens: int,
    seed: int,
    cut: float,
    leaf_cut: float,
    keep: Literal["correct", "all"],
    batch: int = BATCH,
    query: int = 0,
    precision: float | None = None,
    factors: Factors | None = None,
    stream: int = PROBE_STREAM,
    progress: Progress | None = None,
) -> tuple[Responses, PrefixTree, dict[str, object]]:
    """The part of a probe before its scores: rollouts, the tree grown from them, and what was done.

    Arguments: see `measure`; `query` numbers the draws, where several queries are probed with one seed.
    Errors: as `measure`.
    """
    reward_of = cache(reward_of)
    parts = draw_rollouts(
        split,
        prompt,
        rollouts,
        max_tokens,
        end_tokens,
        seed=seed,
        batch=batch,
        query=query,
        factors=factors,
        stream=stream,
        enough=lambda parts: precision is not None and known_to(precision, collect(parts, reward_of)),
        progress=progress,
    )
    responses = collect(parts, reward_of)
    if not np.any(responses.rewards > 0):
        raise NoCorrectRollout(rollouts)
    layout = grow(responses, vocabulary=vocabulary, cut=cut, leaf_cut=leaf_cut, keep=keep)
    meta: dict[str, object] = {
        "rollouts": responses.rollouts,
        "max_tokens": max_tokens,
        "seed": seed,
        "vocabulary": vocabulary,
        "cut": cut,
        "leaf_cut": leaf_cut,
        "keep": keep,
        "tokens": int(sum(part.lengths.sum() for part in parts)) + sum(len(a.tokens) for a in layout.atoms),
    }
    return responses, layout, meta


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
    batch: int,
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


def enumerate_responses(
    split: SplitModel,
    prompt: Prompt,
    reward_of: Callable[[Tokens], float],
    *,
    max_tokens: int,
    end_tokens: Sequence[int],
    vocabulary: int,
) -> Responses:
    """Every response there is, with its exact log probability: for a model small enough to enumerate.

    Counts are set to one; grow the tree with cut = leaf_cut = 0 and keep = "all".
    """
    ends = set(end_tokens)
    opening = open_prompt(split, prompt, None, torch.zeros(1, dtype=torch.long))
    live: list[Tokens] = [()]
    logs: dict[Tokens, tuple[float, ...]] = {(): ()}
    trunk = Growing(split.trunk, prompt.past, max_tokens - 1)
    head, logits = Growing(split.head, opening.past, max_tokens - 1), opening.logits
    whole: list[Tokens] = []
    for t in range(max_tokens):
        table: NDArray[np.float64] = torch.log_softmax(logits.double(), dim=-1).detach().cpu().numpy()
        grown: list[Tokens] = []
        parent: list[int] = []
        for i, prefix in enumerate(live):
            for v in range(vocabulary):
                child = (*prefix, v)
                logs[child] = (*logs[prefix], float(table[i, v]))
                if v in ends or t == max_tokens - 1:
                    whole.append(child)
                else:
                    grown.append(child)
                    parent.append(i)
        if not grown:
            break
        live = grown
        at = torch.tensor(parent)
        with torch.no_grad():
            step = torch.tensor([[prefix[-1]] for prefix in live])
            trunk.select(at)
            head.select(at)
            logits = split.logits(head.run(trunk.run(step))[:, -1])
    return Responses(
        tuple(whole),
        tuple(logs[t] for t in whole),
        np.ones(len(whole), dtype=np.int64),
        np.array([reward_of(t) for t in whole]),
        np.array([t[-1] in ends for t in whole]),
    )
