"""Observables: what a simulation records of a round, by name. A row of `OBSERVABLES` adds one.

Reading the table needs no JAX: help texts are made from it. Computing goes by `Seen.xp`, which is `jax.numpy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from theory.refusal import Refusal

if TYPE_CHECKING:
    import jax

    from bandit_sim.engines.engine import Engine
    from bandit_sim.rounds.step import Carry, Draws, Push

VIRTUAL = 16
"""Rounds drawn (and thrown away) for one estimate of a direction's signal and noise."""


class Seen(NamedTuple):
    """One round of one seed, as an observable may look at it.

    Arguments:
        engine, arms: the bandit.
        carry: the state before the round's update.
        draws: the round's rollouts.
        trained: (n,) which of them are there and trained on: no helper of the signal is.
        push: their weights and direction.
        again: draws a virtual round from the same policy with a key of its own, and gives its direction (D,).
    """

    engine: Engine
    arms: Any
    carry: Carry
    draws: Draws
    trained: jax.Array
    push: Push
    again: Callable[[jax.Array], jax.Array]

    @property
    def xp(self) -> Any:
        """`jax.numpy`, loaded by whoever simulates."""
        import jax.numpy as xp

        return xp

    @property
    def probability(self) -> jax.Array:
        """(A,) probability that a rollout of the round is this choice; held-out queries have none."""
        pi = self.xp.exp(self.engine.log_probabilities(self.arms, self.carry.state))
        return self.engine.frequency(self.arms).astype(pi.dtype) * pi

    @property
    def truth(self) -> jax.Array:
        """(A,) true reward of every choice."""
        return self.xp.asarray(self.arms.reward, self.carry.state.dtype)


class Observable(NamedTuple):
    """A number per round and seed.

    Arguments:
        summary: what it is, as help texts say it.
        value: (seen, memory) -> () what is recorded.
        start: (engine, arms, state) -> memory before the first round; None for an observable without memory.
        remember: (seen, memory) -> memory after the round; called in every round, recorded or not.
    """

    summary: str
    value: Callable[[Seen, Any], jax.Array]
    start: Callable[[Engine, Any, jax.Array], Any] | None = None
    remember: Callable[[Seen, Any], Any] | None = None


def success(seen: Seen, memory: Any) -> jax.Array:
    """p = sum_a pi_a r_a of the true rewards, before the round's update; exact."""
    return seen.engine.success(seen.arms, seen.carry.state)


def held_out(seen: Seen, memory: Any) -> jax.Array:
    """Mean success of the held-out queries before the round's update; exact. Needs arms that have some."""
    return seen.engine.held_out(seen.arms, seen.carry.state)


def reward(seen: Seen, memory: Any) -> jax.Array:
    """Mean paid reward of the round's rollouts."""
    there = seen.draws.present
    return seen.xp.sum(seen.xp.where(there, seen.draws.rewards, 0)) / there.sum().astype(
        seen.draws.rewards.dtype
    )


def outcome(seen: Seen, memory: Any) -> jax.Array:
    """Mean true reward of the round's rollouts that are trained on: what a log of outcomes shows, whatever was paid."""
    truth = seen.xp.where(seen.trained, seen.truth[seen.draws.choices], 0)
    return seen.xp.sum(truth) / seen.trained.sum().astype(truth.dtype)


def entropy(seen: Seen, memory: Any) -> jax.Array:
    """H = -sum_a pi_a log pi_a in nats, mean over the round's queries; exact."""
    return seen.engine.entropy(seen.arms, seen.carry.state, seen.draws.queries)


def winner_share(seen: Seen, memory: Any) -> jax.Array:
    """Largest share of one correct choice in the correct mass, max pi_a / sum pi_a over r_a > 0."""
    right = seen.xp.where(seen.truth > 0, seen.probability, 0)
    return right.max() / seen.xp.maximum(right.sum(), seen.xp.finfo(right.dtype).tiny)


def best_gap(seen: Seen) -> jax.Array:
    """max_a r_a - p: what a round loses against the best choice, per rollout, in expectation."""
    return seen.truth.max() - seen.engine.success(seen.arms, seen.carry.state)


def gradient_norm(seen: Seen, memory: Any) -> jax.Array:
    """Euclidean norm of the round's direction, before eta and the optimiser."""
    return seen.xp.linalg.norm(seen.push.direction)


def signal_and_noise(seen: Seen) -> tuple[jax.Array, jax.Array]:
    """|E g|^2 and tr Cov g of the round's direction g, from `VIRTUAL` rounds drawn from the same policy.

    Both are unbiased (|mean|^2 - tr/m for the first, so a single value may be negative). The ratio of one round is
    not: take the ratio of the means over seeds.
    """
    import jax

    xp = seen.xp
    g = jax.vmap(seen.again)(xp.arange(VIRTUAL, dtype=xp.uint32))
    mean = g.mean(axis=0)
    noise = xp.sum((g - mean) ** 2) / (VIRTUAL - 1)
    return xp.sum(mean**2) - noise / VIRTUAL, noise


def zero_signal(seen: Seen, memory: Any) -> jax.Array:
    """Share of the round's queries whose rollouts all got weight zero."""
    xp = seen.xp
    idle = xp.all(seen.push.weights == 0, axis=1) | ~seen.draws.present
    same = seen.draws.queries[:, None] == seen.draws.queries[None, :]
    quiet = xp.all(idle[None, :] | ~same, axis=1)
    # Every query has as many rollouts, so the share of rollouts is the share of queries.
    there = seen.draws.present
    return xp.sum(quiet & there).astype(seen.carry.state.dtype) / there.sum().astype(seen.carry.state.dtype)


def _pulled(seen: Seen, before: jax.Array) -> jax.Array:
    """(A,) which choices have ever had a weight."""
    moved = seen.xp.any(seen.push.weights != 0, axis=1) & (seen.draws.choices >= 0)
    return before.at[seen.xp.maximum(seen.draws.choices, 0)].max(moved)


OBSERVABLES: dict[str, Observable] = {
    "success": Observable("success probability", success),
    "held_out": Observable("mean success of the held-out queries", held_out),
    "reward": Observable("mean paid reward of the round", reward),
    "outcome": Observable("mean true reward of the round", outcome),
    "entropy": Observable("entropy of the policy in nats", entropy),
    "winner_share": Observable("largest share of one correct arm in the correct mass", winner_share),
    "gradient_norm": Observable("length of the round's direction", gradient_norm),
    # Signal-to-noise of the direction is the ratio of these two, each averaged over seeds first.
    "signal": Observable(
        "squared length of the expected direction", lambda seen, _: signal_and_noise(seen)[0]
    ),
    "noise": Observable("variance of the direction", lambda seen, _: signal_and_noise(seen)[1]),
    "zero_signal": Observable("share of queries whose rollouts all got weight zero", zero_signal),
    "distinct": Observable(
        "number of correct arms that ever got a weight, before the round",
        lambda seen, pulled: seen.xp.sum(pulled & (seen.truth > 0)).astype(seen.carry.state.dtype),
        start=lambda engine, arms, state: np.zeros(np.shape(arms.reward), bool),
        remember=_pulled,
    ),
    "regret": Observable(
        "sum over the rounds before of max r - p, per rollout",
        lambda seen, lost: lost,
        start=lambda engine, arms, state: np.zeros((), state.dtype),
        remember=lambda seen, lost: lost + best_gap(seen),
    ),
}
CLASS_MASS = "class_mass"
CLASS_MASS_SUMMARY = "probability of every class of equal true reward"
"""Recorded as one metric per class, see `class_masses`."""
SUMMARIES = {name: row.summary for name, row in OBSERVABLES.items()} | {CLASS_MASS: CLASS_MASS_SUMMARY}
"""Everything that `observe` may name, in words."""


def check_names(observe: Sequence[str], has: Sequence[str], who: str, instead: str = "") -> tuple[str, ...]:
    """The names without repetition.

    Errors: Refusal for none, an unknown one, or one that `who` (which has `has`) does not record; `instead` says
    who does.
    """
    for name in observe:
        if name not in (*has, *SUMMARIES):
            raise Refusal(f"observe: {name!r} is unknown; choose {', '.join(has)}")
        if name not in has:
            raise Refusal(f"observe: {name!r} is not recorded by {who}; {instead}")
    if not observe:
        raise Refusal("observe is empty; name at least one observable, such as 'success'")
    return tuple(dict.fromkeys(observe))


@cache  # the same levels give the same functions, so that compiled code is found again
def class_masses(levels: tuple[float, ...]) -> dict[str, Observable]:
    """One observable per level of true reward: the total probability of its choices."""

    def mass_of(level: float) -> Observable:
        return Observable(
            CLASS_MASS_SUMMARY,
            lambda seen, _: seen.xp.sum(seen.xp.where(seen.truth == level, seen.probability, 0)),
        )

    return {f"class_mass/{level:g}": mass_of(level) for level in levels}
