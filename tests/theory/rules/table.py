"""The conformance table: one row per rule, with the loss as its paper prints it, written independently.

A printed part works on one group, one response or one list of responses at a time, as the formula in the
paper does; `theory.rules` works on whole arrays. `tests/theory/rules/test_conformance.py` runs every row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from theory.rules import (
    K3,
    PRESETS,
    SGD,
    Constant,
    GroupMean,
    GroupMeanStd,
    LeaveOneOut,
    NoKL,
    PolicyGradient,
    PPOClip,
    Raw,
    Rule,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.batch import Batch

JAX = SimpleNamespace(array=jnp.asarray, exp=jnp.exp, minimum=jnp.minimum, clip=jnp.clip)
TORCH = SimpleNamespace(array=torch.as_tensor, exp=torch.exp, minimum=torch.minimum, clip=torch.clip)

# --- signals: the rewards of one group -> its advantages, in Python arithmetic -----------------------------


def raw(r: list[float]) -> list[float]:
    return list(r)


def group_mean(r: list[float]) -> list[float]:
    return [x - statistics.fmean(r) for x in r] if len(r) > 1 else [0.0]


def leave_one_out(r: list[float]) -> list[float]:
    if len(r) == 1:
        return [0.0]
    return [x - statistics.fmean(r[:i] + r[i + 1 :]) for i, x in enumerate(r)]


def grpo(spread: Callable[[list[float]], float], singleton: str = "error") -> Callable:
    """(r - mean) / spread(r), the singleton by its policy."""

    def advantages(r: list[float]) -> list[float]:
        if len(r) == 1:
            return list(r) if singleton == "raw" else [0.0]
        return [(x - statistics.fmean(r)) / spread(r) for x in r]

    return advantages


SIGNALS: list[tuple[Any, Callable]] = [
    (Raw(), raw),
    (GroupMean(), group_mean),
    (GroupMean(singleton="raw"), lambda r: group_mean(r) if len(r) > 1 else r),
    (GroupMean(singleton="zero"), group_mean),
    (LeaveOneOut(), leave_one_out),
    (GroupMeanStd(ddof=1, eps=1e-4), grpo(lambda r: statistics.stdev(r) + 1e-4)),
    (GroupMeanStd(ddof=1, eps=1e-6, singleton="raw"), grpo(lambda r: statistics.stdev(r) + 1e-6, "raw")),
    (GroupMeanStd(ddof=0, eps=1e-8), grpo(lambda r: statistics.pstdev(r) + 1e-8)),
    (
        GroupMeanStd(ddof=1, eps=0.4, eps_place="sqrt(max(var,eps))", singleton="zero"),
        grpo(lambda r: max(statistics.variance(r), 0.4) ** 0.5),
    ),
]

# --- objectives: one response's tokens -> its per-token objective ------------------------------------------


def policy_gradient(ops: Any, logp: Any, old: Any, a: float) -> Any:
    return a * logp


def ppo_clip(low: float, high: float) -> Callable:
    def objective(ops: Any, logp: Any, old: Any, a: float) -> Any:
        rho = ops.exp(logp - old)
        return ops.minimum(rho * a, ops.clip(rho, 1 - low, 1 + high) * a)

    return objective


OBJECTIVES: list[tuple[Any, Callable]] = [
    (PolicyGradient(), policy_gradient),
    (PPOClip(), ppo_clip(0.2, 0.2)),
    (PPOClip(clip_low=0.2, clip_high=0.272), ppo_clip(0.2, 0.272)),
]

# --- aggregations: the per-token values of every response -> one number ------------------------------------


def sequence_sum(responses: list[Any]) -> Any:
    return sum(tokens.sum() for tokens in responses) / len(responses)


def token_mean(responses: list[Any]) -> Any:
    return sum(tokens.sum() for tokens in responses) / sum(len(tokens) for tokens in responses)


def sequence_mean_token_mean(responses: list[Any]) -> Any:
    return sum(tokens.sum() / len(tokens) for tokens in responses) / len(responses)


def constant(divisor: float) -> Callable:
    return lambda responses: sum(tokens.sum() / divisor for tokens in responses) / len(responses)


AGGREGATIONS: list[tuple[Any, Callable]] = [
    (SequenceSum(), sequence_sum),
    (TokenMean(), token_mean),
    (SequenceMeanTokenMean(), sequence_mean_token_mean),
    (Constant(divisor=7), constant(7)),
]

# --- KL terms: one response's tokens -> its per-token loss -------------------------------------------------


def no_kl(ops: Any, logp: Any, ref: Any) -> Any:
    return 0 * logp


def k3(beta: float) -> Callable:
    return lambda ops, logp, ref: beta * (ops.exp(ref - logp) - (ref - logp) - 1)


KLS: list[tuple[Any, Callable]] = [(NoKL(), no_kl), (K3(beta=0.3), k3(0.3))]


@dataclass(frozen=True)
class Row:
    """A rule and the four printed parts of its loss."""

    name: str
    rule: Rule
    signal: Callable
    objective: Callable
    aggregation: Callable
    kl: Callable

    @property
    def grouped(self) -> bool:
        """Whether the signal compares rollouts with each other."""
        return self.rule.signal.kind != "raw"

    def loss(self, ops: Any, logprobs: Any, batch: Batch) -> Any:
        """The loss as printed, to be descended; a function of `logprobs`, all else NumPy constants."""
        there = [i for i in range(len(batch.rewards)) if batch.mask[i].any()]
        advantages: dict[int, float] = {}
        for label in {int(batch.groups[i]) for i in there}:
            rows = [i for i in there if batch.groups[i] == label]
            advantages |= dict(zip(rows, self.signal([float(batch.rewards[i]) for i in rows]), strict=True))
        responses = []
        for i in there:
            length = int(batch.mask[i].sum())  # the strategies put the real tokens first
            logp = logprobs[i, :length]
            old, ref = ops.array(batch.old_logprobs[i, :length]), ops.array(batch.ref_logprobs[i, :length])
            responses.append(self.kl(ops, logp, ref) - self.objective(ops, logp, old, advantages[i]))
        return self.aggregation(responses) if responses else 0 * logprobs.sum()


def build(signal: Any, objective: Any, aggregation: Any, kl: Any) -> Row:
    """The row of four (specification, printed part) pairs."""
    parts = dict(
        zip(("signal", "objective", "aggregation", "kl"), (signal, objective, aggregation, kl), strict=True)
    )
    rule = Rule(**{field: part[0] for field, part in parts.items()}, optimiser=SGD(eta=0.1), rollouts=2)
    settings = [part[0].model_dump_json(exclude_defaults=False) for part in parts.values()]
    name = " ".join(s.translate(str.maketrans("", "", '{}"')).replace("kind:", "") for s in settings)
    return Row(name, rule, *(part[1] for part in parts.values()))


def _printed(spec: Any, table: list[tuple[Any, Callable]]) -> tuple[Any, Callable]:
    return next(row for row in table if row[0] == spec)


# Every signal in the plainest rule; every objective, aggregation and KL with leave-one-out; every preset.
TABLE: list[Row] = [
    *(build(s, OBJECTIVES[0], AGGREGATIONS[0], KLS[0]) for s in SIGNALS),
    *(
        build(SIGNALS[4], objective, aggregation, kl)
        for objective in OBJECTIVES[:2]
        for aggregation in AGGREGATIONS
        for kl in KLS
        if not (objective is OBJECTIVES[0] and aggregation is AGGREGATIONS[0] and kl is KLS[0])
    ),
    *(
        build(
            _printed(rule.signal, SIGNALS),
            _printed(rule.objective, OBJECTIVES),
            (rule.aggregation, constant(3000))
            if name == "dr-grpo"
            else _printed(rule.aggregation, AGGREGATIONS),
            _printed(rule.kl, KLS),
        )
        for name, rule in PRESETS.items()
        if name not in ("minimalist", "rloo")  # in the first block already
    ),
]
PRODUCT: list[Row] = [
    build(s, o, a, k) for s in SIGNALS for o in OBJECTIVES for a in AGGREGATIONS for k in KLS
]


def random_batch(seed: int, rollouts: int = 6, tokens: int = 4, *, on_policy: bool = False) -> Batch:
    """A batch whose ratios fall on both sides of the clip, with uneven groups and absent rollouts."""
    rng = np.random.default_rng(seed)
    logprobs = -rng.exponential(1.0, (rollouts, tokens))
    lengths = rng.integers(0, tokens + 1, rollouts)
    return Batch(
        logprobs,
        logprobs.copy() if on_policy else logprobs + rng.normal(0, 0.4, logprobs.shape),
        logprobs + rng.normal(0, 0.5, logprobs.shape),
        np.where(rng.random() < 0.5, rng.integers(0, 2, rollouts), rng.normal(0, 1, rollouts)).astype(float),
        rng.integers(-1, 2, rollouts) * 5,
        (np.arange(tokens) < lengths[:, None]).astype(float),
    )
