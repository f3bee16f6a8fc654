"""A rule's weights for many seeds at once; cheaply where they depend on the rewards alone."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from theory.refusal import Refusal
from theory.rules.batch import Batch
from theory.rules.entropy import ExactEntropy
from theory.rules.optimiser import SGD
from theory.rules.rule import Rule

How = Literal["table", "rewards", "full"]
ELEMENTWISE = ("sgd", "adam")


class Table(NamedTuple):
    """Weights of rewards that take two values: value (n + 1, 2), [k, r] = weight of a rollout with reward
    (low, high)[r] when k of the n rollouts have the high one; paid (C,) is each class's reward.
    """

    low: Any
    high: Any
    value: Any
    paid: Any


def check_rule(rule: Rule) -> None:
    """Reject what a run by cohorts cannot carry."""
    if reason := cannot_carry(rule):
        raise Refusal(reason)


def cannot_carry(rule: Rule) -> str:
    """Why a run by cohorts cannot carry a rule; empty where it can."""
    if rule.optimiser.kind not in ELEMENTWISE or rule.optimiser.clip_norm is not None:
        return (
            f"optimiser {rule.optimiser!r} is not elementwise, so arms alike would not stay alike; use one of "
            f"{', '.join(ELEMENTWISE)} without clip_norm, or the dense engine"
        )
    for name, found in {
        f"epochs = {rule.epochs}": rule.epochs > 1,
        f"the extra or greedy rollouts of signal {rule.signal.kind}": bool(rule.signal.helpers),
        "an exact entropy bonus": isinstance(rule.entropy, ExactEntropy),
        "a reference that moves (kl refresh)": rule.kl.refresh is not None,
    }.items():
        if found:
            return f"arms in classes do not carry {name}; use the dense engine"
    return ""


def plain_sgd(rule: Rule) -> bool:
    """Whether the optimiser is theta <- theta + eta g and nothing else: quiet rounds then change nothing."""
    return rule.optimiser == SGD(eta=rule.optimiser.eta)


def how_to_weigh(rule: Rule, paid: NDArray[np.float64] | None) -> How:
    """ "table" for rewards of at most two values and weights of rewards alone; "rewards"; else "full".

    Arguments:
        paid: (C,) the reward that each class is always paid; None where it is random.
    """
    if rule.reads_logprobs:
        return "full"
    stateless = not jax.tree.leaves(rule.init(np))
    return "table" if paid is not None and len(np.unique(paid)) <= 2 and stateless else "rewards"


def table_of(rule: Rule, paid: NDArray[np.float64]) -> Table:
    """The weights for paid (C,) of at most two values; 0 and 1 fill in where there is only one."""
    values = np.unique(paid)
    if len(values) == 1:
        values = np.array([0.0, 1.0]) if values[0] in (0.0, 1.0) else np.array([values[0], values[0] + 1])
    n = rule.rollouts
    value = np.zeros((n + 1, 2))
    for k in range(n + 1):
        rewards = np.where(np.arange(n) < k, values[1], values[0])
        weights = rule.weights(_batch(rewards, np.zeros(n), np.zeros(n)), rule.init(np))[0][:, 0]
        value[k] = weights[-1], weights[0]  # of a low and of a high rollout; unused where there is none
    return Table(values[0], values[1], value, paid)


def weigh_by_table(table: Table, rewards: jax.Array) -> jax.Array:
    """(n, S) weights for rewards (n, S)."""
    high = (rewards == table.high).astype(jnp.int32)
    if rewards.shape[0] == 1:
        return jnp.where(high == 1, table.value[1, 1], table.value[0, 0])
    return table.value.reshape(-1)[2 * high.sum(axis=0) + high]


def weigh(
    rule: Rule, rewards: jax.Array, logs: jax.Array, reference: jax.Array, memory: Any
) -> tuple[jax.Array, Any]:
    """(n, S) weights and the rule's state, whose leaves have the seeds last."""

    def one_seed(rewards: Any, logs: Any, reference: Any, memory: Any) -> tuple[Any, Any]:
        weights, memory = rule.weights(_batch(rewards, logs, reference), memory)
        return weights[:, 0], memory

    return jax.vmap(one_seed, in_axes=-1, out_axes=-1)(rewards, logs, reference, memory)


def _batch(rewards: Any, logs: Any, reference: Any) -> Batch:
    """One query, one token a response."""
    xp: Any = jnp if isinstance(rewards, jax.Array) else np
    column, groups = logs[:, None], xp.zeros(rewards.shape, dtype=xp.int32)
    return Batch(column, column, reference[:, None], rewards, groups, xp.ones_like(column))
