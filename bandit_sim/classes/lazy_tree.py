"""Lazy token tree: the engine `tree` on a buffer of the prefixes that training has moved.

A prefix off the buffer has its base logits, computed from its hash when a rollout comes by; a rollout with a
non-zero weight brings its prefixes into being. Draws and base logits do not depend on the buffer, so that a
seed whose buffer overflows is replayed in a larger one, and no size of buffer changes the law of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit_sim.arms.lazy_tree import LazyTree
from bandit_sim.engines.prefixes import Buffer, grow, success, walk
from bandit_sim.engines.sampling import choose, fine_uniform
from bandit_sim.engines.tree import token_uniform
from bandit_sim.rounds.keys import rollout_keys, root_key
from bandit_sim.rounds.observe import check_names
from bandit_sim.rounds.optimiser import realise
from bandit_sim.rounds.settings import Settings
from bandit_sim.rounds.step import REWARD_STREAM, ascend, knobs_of
from theory.curves import Curves
from theory.pay import Clean, PaySpec, check_pay
from theory.refusal import Refusal
from theory.rules.batch import Batch
from theory.rules.rule import Rule

OBSERVE = ("success", "reward", "length", "nodes")
_SEEDS = 64
"""Seeds of one compiled call, at most."""


def simulate_lazily(arms: LazyTree, rule: Rule, settings: Settings) -> Curves:
    """What `simulate` does with a lazy tree. Errors: Refusal for devices, which it does not share."""
    if settings.devices is not None:
        raise Refusal("devices: a lazy tree runs on the first device; leave devices out")

    def one_part(seeds: range) -> dict[str, NDArray[np.float64]]:
        return run(arms, rule, settings.at, seeds, settings.key, pay=settings.pay, observe=settings.observe)

    with settings.precision():
        return settings.in_parts(settings.chunk or _SEEDS, one_part)


def run(
    arms: LazyTree,
    rule: Rule,
    at: ArrayLike,
    seeds: int | range,
    key: int | jax.Array,
    *,
    pay: PaySpec | None = None,
    observe: Sequence[str] = ("success", "reward"),
    nodes: int = 64,
) -> dict[str, NDArray[np.float64]]:
    """Each observable as (seeds, len(at)), before the update of the rounds `at`; see `simulate` for the others.

    Arguments:
        at: increasing round numbers; the rounds between are simulated all the same.
        observe: "success" (exact; needs a list of correct responses), "reward" (mean paid reward of the
            round's rollouts), "length" (their mean length in tokens), "nodes" (prefixes that exist).
        nodes: prefixes of the first buffer; a seed that needs more starts again in one four times as large.
    Errors: Refusal naming the field; for weight decay, which would move prefixes that do not exist.
    """
    rounds = np.atleast_1d(np.asarray(at))
    if not len(rounds) or rounds[0] < 0 or np.any(np.diff(rounds) <= 0):
        raise Refusal(f"at = {rounds}; give increasing round numbers from 0")
    observe = check_names(observe, OBSERVE, "a lazy tree", "list the tree (TokenTree), whose engine has it")
    if "success" in observe and arms.correct is None:
        raise Refusal(
            "observe: 'success' needs the list `correct`; of a reward function only 'reward' is known"
        )
    if getattr(rule.optimiser, "weight_decay", 0):
        raise Refusal(
            "weight_decay moves prefixes that do not exist; set it to 0, or list the tree (TokenTree)"
        )
    for name, found in {
        f"signal {rule.signal.kind}, which draws helpers,": bool(rule.signal.helpers),
        f"epochs = {rule.epochs}": rule.epochs > 1,
        "entropy exact": rule.entropy.kind == "exact",
        "kl refresh": rule.kl.refresh is not None,
    }.items():
        if found:
            raise Refusal(f"a lazy tree does not carry {name}; list the tree (TokenTree), or leave it out")
    if nodes < 1:
        raise Refusal(f"nodes = {nodes}; give at least 1")
    pay = Clean() if pay is None else pay
    if arms.pays is None:
        check_pay(pay, [0.0, 1.0])
    recorded = np.zeros(rounds[-1] + 1, bool)
    recorded[rounds] = True
    block = np.array(range(seeds) if isinstance(seeds, int) else seeds, np.uint32)
    out = {name: np.zeros((len(block), len(rounds))) for name in observe}
    left = np.arange(len(block))
    while len(left):
        overflown = []
        for first in range(0, len(left), _SEEDS):
            rows = left[first : first + _SEEDS]
            noted, overflow = _run(
                arms, rule, pay, tuple(observe), nodes, recorded, root_key(key), block[rows]
            )
            for name in observe:
                out[name][rows] = np.asarray(noted[name])[:, rounds]
            overflown.append(rows[np.asarray(overflow)])
        left, nodes = np.concatenate(overflown), 4 * nodes
    return out


def _token(key: jax.Array, logs: jax.Array, position: jax.Array) -> jax.Array:
    """() the token that a rollout with this key draws at a position."""
    return choose(token_uniform(key, position, logs.dtype)[None], logs)[0]


@partial(jax.jit, static_argnames=("rule", "pay", "observe", "nodes"))
def _run(
    arms: LazyTree,
    rule: Rule,
    pay: PaySpec,
    observe: tuple[str, ...],
    nodes: int,
    recorded: jax.Array,
    root: jax.Array,
    seeds: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Each observable as (seeds, rounds), and whether a seed's buffer overflowed."""
    law = jnp.asarray(arms.law)
    dtype, symbols = law.dtype, law.shape[1]
    knobs = knobs_of(rule, dtype)

    def one_seed(seed: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        seed_key = jax.random.fold_in(root, seed)

        def one_round(
            held: tuple[Buffer, Any, Any], now: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[Buffer, Any, Any], dict[str, jax.Array]]:
            buffer, moments, memory = held
            round, wanted = now
            keys = rollout_keys(seed_key, round, 1, rule.rollouts, rule.rollouts)
            walks = jax.vmap(lambda k: walk(arms, buffer, partial(_token, k)))(keys)
            length = walks.mask.sum(axis=1)
            truth = jax.vmap(lambda tokens, size: arms.truth(tokens, size, dtype))(walks.tokens, length)
            uniform = jnp.zeros_like(truth)
            if pay.random:
                uniform = fine_uniform(jax.vmap(lambda k: jax.random.fold_in(k, REWARD_STREAM))(keys), dtype)
            paid = pay.pay(uniform, truth, length, jnp.zeros_like(truth))
            logs = walks.of_tokens(walks.logs)
            groups = jnp.zeros(rule.rollouts, jnp.int32)
            batch = Batch(logs, logs, walks.of_tokens(walks.base_logs), paid, groups, walks.mask)
            weights, memory = rule.weights(batch, memory)
            noted = {
                "reward": paid.mean(),
                "length": length.mean(),
                "nodes": buffer.used.astype(dtype),
            }
            if "success" in observe:
                zero = jnp.zeros((), dtype)
                noted["success"] = jax.lax.cond(wanted, lambda: success(arms, buffer), lambda: zero)
            buffer, at = grow(buffer, walks.tokens, weights)
            push = jax.nn.one_hot(walks.tokens, symbols, dtype=dtype) - jnp.exp(walks.logs)
            direction = jnp.zeros_like(buffer.change).at[at].add(weights[..., None] * push, mode="drop")
            change, moments = ascend(rule, buffer.change, moments, direction, knobs)
            return (buffer._replace(change=change), moments, memory), {name: noted[name] for name in observe}

        change = jnp.zeros((nodes, symbols), dtype)
        empty = Buffer(change, jnp.full((nodes, symbols), -1, jnp.int32), jnp.int32(1), jnp.zeros((), bool))
        begin = (empty, realise(rule.optimiser, knobs.eta).init(change), rule.init(jnp))
        numbers = jnp.arange(recorded.shape[0], dtype=jnp.uint32)
        (buffer, _, _), noted = jax.lax.scan(one_round, begin, (numbers, recorded))
        return noted, buffer.overflow

    return jax.vmap(one_seed)(seeds)
