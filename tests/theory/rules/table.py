"""The conformance table: one row per rule, with the loss as its paper prints it, written independently.

A printed part works on one group, one response or one list of responses at a time, as the formula in the
paper does; `theory.rules` works on whole arrays. `tests/theory/rules/test_conformance.py` runs every row.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tests.theory.rules.signal_table import SIGNAL_ROWS, Rollout, SignalRow
from theory.rules import (
    CISPO,
    GMPO,
    GSPO,
    K1,
    K2,
    K3,
    SGD,
    Constant,
    ExactEntropy,
    KAbs,
    LeaveOneOut,
    MicroBatchTokenMean,
    NoEntropy,
    NoKL,
    PolicyGradient,
    PPOClip,
    Rule,
    SampledEntropy,
    SequenceClip,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.batch import Batch

JAX = SimpleNamespace(
    array=jnp.asarray,
    exp=jnp.exp,
    minimum=jnp.minimum,
    maximum=jnp.maximum,
    clip=jnp.clip,
    prod=jnp.prod,
    held=jax.lax.stop_gradient,
)
TORCH = SimpleNamespace(
    array=torch.as_tensor,
    exp=torch.exp,
    minimum=torch.minimum,
    maximum=torch.maximum,
    clip=torch.clip,
    prod=torch.prod,
    held=torch.detach,
)
NUMPY = SimpleNamespace(exp=np.exp)

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


def dual_clip(low: float, high: float, c: float) -> Callable:
    single = ppo_clip(low, high)

    def objective(ops: Any, logp: Any, old: Any, a: float) -> Any:
        value = single(ops, logp, old, a)
        return ops.maximum(value, 0 * logp + c * a) if a < 0 else value

    return objective


def cispo(low: float, high: float) -> Callable:
    return lambda ops, logp, old, a: ops.held(ops.clip(ops.exp(logp - old), 1 - low, 1 + high)) * a * logp


def gspo(low: float, high: float) -> Callable:
    """The response's value on each of its tokens: the mean over tokens is the paper's."""

    def objective(ops: Any, logp: Any, old: Any, a: float) -> Any:
        s = ops.prod(ops.exp(logp - old)) ** (1 / len(logp))
        return 0 * logp + ops.minimum(s * a, ops.clip(s, 1 - low, 1 + high) * a)

    return objective


def sequence_clip(low: float, high: float) -> Callable:
    """The response's value in equal parts on its tokens: the sum over tokens is the response's."""

    def objective(ops: Any, logp: Any, old: Any, a: float) -> Any:
        ratio = ops.prod(ops.exp(logp - old))
        return (0 * logp + ops.minimum(ratio * a, ops.clip(ratio, 1 - low, 1 + high) * a)) / len(logp)

    return objective


def gmpo(low: float, high: float) -> Callable:
    """sgn(A) prod_t |min(rho A, clip(rho) A)|^(1/length), the clip in the log; on each token."""

    def objective(ops: Any, logp: Any, old: Any, a: float) -> Any:
        rho = ops.exp(logp - old)
        worst = ops.minimum(rho * a, ops.clip(rho, math.exp(-low), math.exp(high)) * a)
        return 0 * logp + (math.copysign(1, a) * ops.prod(abs(worst)) ** (1 / len(logp)) if a else 0)

    return objective


OBJECTIVES: list[tuple[Any, Callable]] = [
    (PolicyGradient(), policy_gradient),
    (PPOClip(), ppo_clip(0.2, 0.2)),
    (PPOClip(clip_low=0.2, clip_high=0.272), ppo_clip(0.2, 0.272)),
    (PPOClip(dual_clip=1.4), dual_clip(0.2, 0.2, 1.4)),
    (CISPO(clip_high=0.28), cispo(1.0, 0.28)),
    (CISPO(clip_low=0.1, clip_high=0.3), cispo(0.1, 0.3)),
    (GSPO(), gspo(3e-4, 4e-4)),
    (GSPO(clip_low=0.2, clip_high=0.3), gspo(0.2, 0.3)),
    (SequenceClip(clip_high=0.5), sequence_clip(0.2, 0.5)),
    (GMPO(), gmpo(0.4, 0.4)),
    (GMPO(clip_low=0.1, clip_high=0.2), gmpo(0.1, 0.2)),
]

# --- aggregations: the per-token values of every response -> one number ------------------------------------


def sequence_sum(responses: list[Any]) -> Any:
    return sum(tokens.sum() for tokens in responses) / len(responses)


def token_mean(responses: list[Any]) -> Any:
    return sum(tokens.sum() for tokens in responses) / sum(len(tokens) for tokens in responses)


def micro_batches(size: int) -> Callable:
    """The mean over runs of `size` responses of each run's mean over tokens."""

    def mean(responses: list[Any]) -> Any:
        runs = [responses[i : i + size] for i in range(0, len(responses), size)]
        return sum(token_mean(run) for run in runs) / len(runs)

    return mean


def sequence_mean_token_mean(responses: list[Any]) -> Any:
    return sum(tokens.sum() / len(tokens) for tokens in responses) / len(responses)


def constant(divisor: float) -> Callable:
    return lambda responses: sum(tokens.sum() / divisor for tokens in responses) / len(responses)


AGGREGATIONS: list[tuple[Any, Callable]] = [
    (SequenceSum(), sequence_sum),
    (TokenMean(), token_mean),
    (SequenceMeanTokenMean(), sequence_mean_token_mean),
    (Constant(divisor=7), constant(7)),
    (MicroBatchTokenMean(micro_batch=2), micro_batches(2)),
]

# --- KL terms: one response's tokens -> its per-token loss, or what is taken off its reward ----------------


def no_kl(ops: Any, logp: Any, ref: Any) -> Any:
    return 0 * logp


def k1(beta: float) -> Callable:
    return lambda ops, logp, ref: beta * (logp - ref)


def k2(beta: float) -> Callable:
    return lambda ops, logp, ref: beta * 0.5 * (logp - ref) ** 2


def k3(beta: float) -> Callable:
    return lambda ops, logp, ref: beta * (ops.exp(ref - logp) - (ref - logp) - 1)


def kabs(beta: float) -> Callable:
    return lambda ops, logp, ref: beta * abs(logp - ref)


@dataclass(frozen=True)
class InReward:
    """The printed estimator, summed over the response's tokens and taken off its reward."""

    per_token: Callable


KLS: list[tuple[Any, Any]] = [
    (NoKL(), no_kl),
    (K3(beta=0.3), k3(0.3)),
    (K1(beta=0.3), k1(0.3)),
    (K2(beta=0.3), k2(0.3)),
    (KAbs(beta=0.3), kabs(0.3)),
    (K1(beta=0.2, place="reward"), InReward(k1(0.2))),
    (K2(beta=0.2, place="reward"), InReward(k2(0.2))),
    (K3(beta=0.2, place="reward"), InReward(k3(0.2))),
    (KAbs(beta=0.2, place="reward"), InReward(kabs(0.2))),
]

# --- entropy: a response's tokens, and those of the others of its group -> its tokens' bonus ---------------


def no_entropy(ops: Any, logp: Any, old: Any, others: list[Any]) -> Any:
    return 0 * logp


def sampled_entropy(beta: float, centred: bool) -> Callable:
    def bonus(ops: Any, logp: Any, old: Any, others: list[Any]) -> Any:
        tokens = [-float(x) for other in others for x in other]
        centre = statistics.fmean(tokens) if centred and tokens else 0.0
        return beta * ops.exp(logp - old) * ops.held(-logp - centre)

    return bonus


ENTROPIES: list[tuple[Any, Callable]] = [
    (NoEntropy(), no_entropy),
    (SampledEntropy(beta=0.4), sampled_entropy(0.4, False)),
    (SampledEntropy(beta=0.4, centre="group"), sampled_entropy(0.4, True)),
    (ExactEntropy(beta=0.4), no_entropy),  # its gradient is not of the sampled tokens
]


@dataclass(frozen=True)
class Row:
    """A rule and the five printed parts of its loss."""

    name: str
    rule: Rule
    signal: SignalRow
    objective: Callable
    aggregation: Callable
    kl: Any
    entropy: Callable

    def loss(self, ops: Any, logprobs: Any, batch: Batch, memory: dict | None = None) -> Any:
        """The loss as printed, to be descended; a function of `logprobs`, all else NumPy constants."""
        there = [int(i) for i in np.flatnonzero(batch.mask.any(axis=1))]
        lengths = {i: int(batch.mask[i].sum()) for i in there}  # the strategies put the real tokens first
        real = {i: [x[i, :n] for x in batch[:3]] for i, n in lengths.items()}
        paid = batch.rewards.astype(float)
        if isinstance(self.kl, InReward):
            for i in there:
                paid[i] -= self.kl.per_token(NUMPY, *real[i][1:]).sum()
        rollouts = rollouts_of(batch._replace(rewards=paid))
        advantages = self.signal.printed(rollouts, {} if memory is None else memory)
        trained = [i for i, rollout in zip(there, rollouts, strict=True) if rollout.role == 0]
        responses, bonuses = [], []
        for i, advantage in zip(trained, advantages, strict=True):
            logp, old, ref = logprobs[i, : lengths[i]], *map(ops.array, real[i][1:])
            pull = 0 * logp if isinstance(self.kl, InReward) else self.kl(ops, logp, ref)
            responses.append(pull - self.objective(ops, logp, old, advantage))
            others = [real[j][0] for j in trained if batch.groups[j] == batch.groups[i] and j != i]
            bonuses.append(self.entropy(ops, logp, old, others))
        if not trained:
            return 0 * logprobs.sum()
        return self.aggregation(responses) - token_mean(bonuses)  # the bonus is per token in every rule


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


def build(signal: Any, objective: Any, aggregation: Any, kl: Any, entropy: Any = ENTROPIES[0]) -> Row:
    """The row of five (specification, printed part) pairs."""
    names = ("signal", "objective", "aggregation", "kl", "entropy")
    parts = dict(zip(names, (signal, objective, aggregation, kl, entropy), strict=True))
    rule = Rule(**{field: part[0] for field, part in parts.items()}, optimiser=SGD(eta=0.1), rollouts=2)
    name = " ".join(label(part[0]) for part in parts.values())
    return Row(name, rule, *(part[1] for part in parts.values()))


PLAIN, CLIP = OBJECTIVES[:2]
SUM, TOKEN_MEAN = AGGREGATIONS[:2]
# One signal of every way to read a round, for the products.
SOME = [
    next(pair for pair in SIGNALS if pair[0].kind == kind)
    for kind in ("raw", "group_mean_std", "batch_mean_std", "greedy", "reward_window")
]

# Every signal in the plainest rule; every objective, aggregation, KL and bonus with leave-one-out.
TABLE: list[Row] = [
    *(build(s, PLAIN, SUM, KLS[0]) for s in SIGNALS),
    *(build(LEAVE_ONE_OUT, objective, SUM, KLS[0]) for objective in OBJECTIVES[1:]),
    *(build(LEAVE_ONE_OUT, CLIP, aggregation, KLS[1]) for aggregation in AGGREGATIONS),
    *(build(LEAVE_ONE_OUT, CLIP, SUM, kl) for kl in KLS[2:]),
    *(build(LEAVE_ONE_OUT, CLIP, TOKEN_MEAN, KLS[0], entropy) for entropy in ENTROPIES[1:]),
]
# Any two parts meet somewhere, and every objective meets every aggregation and KL at once.
PRODUCT: list[Row] = [
    *(build(s, o, SUM, KLS[0]) for s in SOME for o in OBJECTIVES),
    *(build(s, CLIP, a, KLS[0]) for s in SOME for a in AGGREGATIONS),
    *(build(s, CLIP, SUM, k) for s in SOME for k in KLS),
    *(build(s, CLIP, SUM, KLS[0], e) for s in SOME for e in ENTROPIES),
    *(build(LEAVE_ONE_OUT, CLIP, SUM, k, e) for k in KLS for e in ENTROPIES),
    *(build(LEAVE_ONE_OUT, o, a, k) for o in OBJECTIVES for a in AGGREGATIONS for k in KLS),
    *(build(LEAVE_ONE_OUT, o, TOKEN_MEAN, KLS[0], e) for o in OBJECTIVES for e in ENTROPIES),
    *(build(LEAVE_ONE_OUT, CLIP, a, KLS[0], e) for a in AGGREGATIONS for e in ENTROPIES),
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
    """The state of a rule's signal after the rounds of `PAST`, in NumPy; () for a rule without memory."""
    state = rule.init(np, QUERIES)
    for batch in PAST:  # as they were paid: a KL in the reward joins with the round under test
        state = rule.signal.advance(batch.cleaned(), state)[1]
    return state


def printed_state_of(signal: SignalRow) -> dict:
    """The same in the printed form."""
    memory: dict = {}
    for batch in PAST if signal.memory else ():
        signal.printed(rollouts_of(batch), memory)
    return memory
