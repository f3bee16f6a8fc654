"""Where simulated replicas end up, in the coordinates of the scores: theta = theta_0 + sum_e alpha_e g(e)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bandit_sim.arms.tree import TreeArms
from bandit_sim.engines import tree_kernel
from bandit_sim.rounds.keys import root_key
from bandit_sim.rounds.step import Carry, ascend, batch_of, check_pair, draw, knobs_of, luck_of, push, start
from theory.pay import Clean, PaySpec
from theory.refusal import Refusal
from theory.rules.displaceable import displaceable
from theory.rules.rule import Rule


def displacement(
    arms: TreeArms,
    rule: Rule,
    rounds: int,
    seeds: int,
    key: int | jax.Array,
    *,
    pay: PaySpec | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """alpha and f = K alpha, (S, E) each, of replicas after `rounds` updates, in the arms' order of edges.

    A pull moves the parameters along  sum_e c_e g(e), so a network can be put where the simulation has gone. Of a
    forest these are all its edges, see `bandit_sim.arms.forest.edge_order`; a held-out query's alpha is 0.

    Arguments: as those of `bandit_sim.simulate`; the draws are its, so seed s ends where it would end there.
    Errors: Refusal for counts below 1, or an optimiser that no kernel engine carries.
    Source: design of this project, section 2 (relinearise).
    Valid when: the optimiser is linear in the gradient, and no entropy bonus or moving reference is asked for.
    """
    for name, count in (("rounds", rounds), ("seeds", seeds)):
        if count < 1:
            raise Refusal(f"{name} = {count}; give at least 1")
    check_pair(tree_kernel, rule)
    if not displaceable(rule):
        raise Refusal(
            f"entropy {rule.entropy.kind}, kl refresh {rule.kl.refresh}, epochs {rule.epochs}: give a rule without "
            "bonus, moving reference and further epochs"
        )
    pay = Clean() if pay is None else pay
    alpha = _alpha(arms, rule, pay, rounds, root_key(key), jnp.arange(seeds, dtype=jnp.uint32))
    alpha = np.asarray(alpha, np.float64)
    kernel = np.asarray(arms.kernel, np.float64)
    return alpha, alpha * kernel if kernel.ndim == 1 else alpha @ kernel.T


@partial(jax.jit, static_argnames=("rule", "pay", "rounds"))
def _alpha(
    arms: TreeArms, rule: Rule, pay: PaySpec, rounds: int, root: jax.Array, seeds: jax.Array
) -> jax.Array:
    engine: Any = tree_kernel
    kernel = jnp.asarray(arms.kernel)
    # With the identity for a kernel, whose diagonal this is, a direction is the push c itself.
    bare = replace(arms, kernel=jnp.ones(kernel.shape[0], kernel.dtype))
    knobs = knobs_of(rule, kernel.dtype)

    def one_seed(seed: jax.Array) -> jax.Array:
        seed_key = jax.random.fold_in(root, seed)
        begin = start(engine, rule, arms, knobs)

        def one_round(held: tuple[jax.Array, Any, Any], number: jax.Array) -> tuple[Any, None]:
            alpha, optimiser, memory = held
            state = begin.state + tree_kernel.metric(arms, alpha)
            luck = luck_of(engine, rule, pay, arms, seed_key, number, state.dtype)
            draws = draw(engine, rule, pay, arms, state, luck, knobs)
            carry = Carry(state, optimiser, memory, begin.reference, None)
            batch = batch_of(engine, rule, arms, carry, draws)
            pushed, memory = push(engine, rule, bare, state, memory, batch, draws)
            alpha, optimiser = ascend(rule, alpha, optimiser, pushed.direction, knobs)
            return (alpha, optimiser, memory), None

        held = (jnp.zeros_like(begin.state), begin.optimiser, begin.memory)
        return jax.lax.scan(one_round, held, jnp.arange(rounds, dtype=jnp.uint32))[0][0]

    return jax.vmap(one_seed)(seeds)
