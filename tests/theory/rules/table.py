"""The conformance table: one row per rule, with the loss as its paper prints it, written independently.

A printed part works on one group, one response or one list of responses at a time, as the formula in the
paper does; `theory.rules` works on whole arrays. `tests/theory/rules/test_conformance.py` runs every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from tests.theory.rules.signal_table import SIGNAL_ROWS, Rollout, SignalRow
from theory.rules import (
    K3,
    SGD,
    Constant,
    LeaveOneOut,
    NoKL,
    PolicyGradient,
    PPOClip,
    Rule,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.batch import Batch

JAX = SimpleNamespace(array=jnp.asarray, exp=jnp.exp, minimum=jnp.minimum, clip=jnp.clip)
TORCH = SimpleNamespace(array=torch.as_tensor, exp=torch.exp, minimum=torch.minimum, clip=torch.clip)

SIGNALS: list[tuple[Any, SignalRow]] = [(row.spec, row) for row in SIGNAL_ROWS]
LEAVE_ONE_OUT = next(pair for pair in SIGNALS if pair[0] == LeaveOneOut())

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
    signal: SignalRow
    objective: Callable
    aggregation: Callable
    kl: Callable

    def loss(self, ops: Any, logprobs: Any, batch: Batch, memory: dict | None = None) -> Any:
        """The loss as printed, to be descended; a function of `logprobs`, all else NumPy constants."""
        advantages = self.signal.printed(rollouts_of(batch), {} if memory is None else memory)
        trained = batch.mask.any(axis=1) if batch.role is None else batch.mask.any(axis=1) & (batch.role == 0)
        responses = []
        for i, advantage in zip(np.flatnonzero(trained), advantages, strict=True):
            length = int(batch.mask[i].sum())  # the strategies put the real tokens first
            logp = logprobs[i, :length]
            old, ref = ops.array(batch.old_logprobs[i, :length]), ops.array(batch.ref_logprobs[i, :length])
            responses.append(self.kl(ops, logp, ref) - self.objective(ops, logp, old, advantage))
        return self.aggregation(responses) if responses else 0 * logprobs.sum()


def rollouts_of(batch: Batch) -> list[Rollout]:
    """The rollouts that are there, one by one."""
    role = np.zeros(len(batch.rewards), dtype=int) if batch.role is None else batch.role
    return [
        Rollout(float(batch.rewards[i]), int(batch.groups[i]), int(batch.mask[i].sum()), int(role[i]))
        for i in np.flatnonzero(batch.mask.any(axis=1))
    ]


def label(spec: Any) -> str:
    """The kind, and the fields that are not at their default."""
    fields = type(spec).model_fields
    changed = ",".join(f"{k}={v}" for k, v in spec if k != "kind" and v != fields[k].default)
    return f"{spec.kind}({changed})"


def build(signal: Any, objective: Any, aggregation: Any, kl: Any) -> Row:
    """The row of four (specification, printed part) pairs."""
    parts = dict(
        zip(("signal", "objective", "aggregation", "kl"), (signal, objective, aggregation, kl), strict=True)
    )
    rule = Rule(**{field: part[0] for field, part in parts.items()}, optimiser=SGD(eta=0.1), rollouts=2)
    name = " ".join(label(part[0]) for part in parts.values())
    return Row(name, rule, *(part[1] for part in parts.values()))


# Every signal in the plainest rule; every objective, aggregation and KL with leave-one-out.
TABLE: list[Row] = [
    *(build(s, OBJECTIVES[0], AGGREGATIONS[0], KLS[0]) for s in SIGNALS),
    *(
        build(LEAVE_ONE_OUT, objective, aggregation, kl)
        for objective in OBJECTIVES[:2]
        for aggregation in AGGREGATIONS
        for kl in KLS
        if not (objective is OBJECTIVES[0] and aggregation is AGGREGATIONS[0] and kl is KLS[0])
    ),
]
# All parts together, with one signal of every way to read a round.
PRODUCT: list[Row] = [
    build(next(pair for pair in SIGNALS if pair[0].kind == kind), o, a, k)
    for kind in ("raw", "group_mean_std", "batch_mean_std", "greedy", "reward_window")
    for o in OBJECTIVES
    for a in AGGREGATIONS
    for k in KLS
]


def random_batch(
    seed: int, rollouts: int = 6, tokens: int = 4, *, on_policy: bool = False, roles: bool = False
) -> Batch:
    """A batch whose ratios fall on both sides of the clip, with uneven groups and absent rollouts.

    With roles some rollouts only feed baselines; else all are trained on.
    """
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
        rng.choice([0, 0, 0, 0, 1, 2], rollouts) if roles else None,
    )


# --- rounds and states for any row: query indices as groups, a role for every rollout ------------------------

QUERIES = 6  # a batch uses queries 0 to 2, its companion in `stacked` 3 to 5


def round_of(seed: int, *, on_policy: bool = False, roles: bool = False) -> Batch:
    """`random_batch` with query indices as groups and no field left out."""
    batch = random_batch(seed, on_policy=on_policy, roles=roles)
    role = np.zeros(len(batch.rewards), dtype=int) if batch.role is None else batch.role
    return batch._replace(groups=batch.groups // 5 + 1, role=role)


def stacked(first: Batch, second: Batch) -> Batch:
    """Both rounds as one, the groups of the second under labels of their own."""
    second = second._replace(groups=second.groups + QUERIES // 2)
    return Batch(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


# Both halves of the queries have lived through the same.
PAST = [stacked(batch, batch) for batch in (round_of(seed) for seed in (201, 202, 203))]


@cache
def state_of(rule: Rule) -> tuple:
    """The state of a rule after the rounds of `PAST`, in NumPy; () for a rule without memory."""
    state = rule.init(np, QUERIES)
    for batch in PAST:
        state = rule.weights(batch, state)[1]
    return state


def printed_state_of(signal: SignalRow) -> dict:
    """The same in the printed form."""
    memory: dict = {}
    for batch in PAST if signal.memory else ():
        signal.printed(rollouts_of(batch), memory)
    return memory
