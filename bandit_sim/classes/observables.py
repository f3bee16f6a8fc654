"""What a run by cohorts can record: names and meanings of `bandit_sim.rounds.observe`, read off classes and cohorts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bandit_sim.classes.blocks import Floats
from bandit_sim.classes.cohorts import Cohorts, Pulled, arms_in, net, own_of
from bandit_sim.classes.rows import Classes, fold, look_up, total
from bandit_sim.rounds.observe import VIRTUAL, check_names
from theory.refusal import Refusal

SAMPLED = ("signal", "noise")
"""What takes rounds drawn from the same policy and thrown away."""
NAMES = (
    "success", "reward", "entropy", "winner_share", "distinct", "class_mass", "regret", "gradient_norm", "zero_signal",
)  # fmt: skip
"""What every engine of arms in classes records."""


class Seen(NamedTuple):
    """One round of S seeds, as an observable may look at it.

    Arguments:
        cohorts: the policy before the round's update.
        rewards, pulled, weight: (n, S) the round's rollouts.
        touched: (R, S) arms of each row that ever got a weight, before the round.
        lost: (S,) regret before the round; zero where nobody asks.
        again: pulls (m n, S) and weights of m = `VIRTUAL` rounds drawn from the same policy, round by round.
    """

    cohorts: Cohorts
    rewards: jax.Array
    pulled: Pulled
    weight: jax.Array
    touched: jax.Array
    lost: jax.Array
    again: Callable[[], tuple[Pulled, jax.Array]]


def check_observe(observe: Sequence[str], has: Sequence[str] = (*NAMES, *SAMPLED)) -> tuple[str, ...]:
    """Errors: Refusal for a name that the engine does not record, naming the one that does."""
    lacks = [name for name in observe if name not in has]
    instead = (
        "use the lumped engine, which draws the rounds that it takes"
        if lacks and lacks[0] in SAMPLED
        else "arms in classes are one query; use Contexts with held-out queries"
    )
    who = "the event engine" if lacks and lacks[0] in SAMPLED else "the engines of arms in classes"
    return check_names(observe, has, who, instead)


def keys_of(observe: Sequence[str], classes: int) -> tuple[str, ...]:
    """The names of the recorded arrays: one a class for class_mass."""
    per_class = [f"class_mass/{c}" for c in range(classes)]
    return tuple(k for name in observe for k in (per_class if name == "class_mass" else [name]))


def in_order(found: dict[str, Floats], order: NDArray[np.intp]) -> dict[str, Floats]:
    """The arrays by the caller's class numbers, where class j of the run is the caller's order[j]."""
    names = {f"class_mass/{j}": f"class_mass/{c}" for j, c in enumerate(order)}
    renamed = {names.get(name, name): values for name, values in found.items()}
    return {name: renamed[name] for name in found}


def touched_in(classes: Classes, cohorts: Cohorts) -> jax.Array:
    """(R, S) touched arms of each row: those of the slots, which start empty."""
    slot = jnp.arange(cohorts.logit.shape[0])[:, None] >= classes.logit.shape[0]
    return jnp.where(slot, cohorts.change, 0)


def distinct(classes: Classes, cohorts: Cohorts, touched: jax.Array) -> jax.Array:
    """(S,) arms of positive reward among those touched (R, S)."""
    return _sum(jnp.where(look_up(classes.truth, cohorts.kind) > 0, touched, 0))


def best_gap(classes: Classes, cohorts: Cohorts) -> jax.Array:
    """(S,) max r - p: what a round loses, per rollout, in expectation; exact."""
    short = classes.truth.max() - look_up(classes.truth, cohorts.kind)
    return _sum(cohorts.mass * short) / total(cohorts.mass)


def push_square(classes: Classes, cohorts: Cohorts, pulled: Pulled, weight: jax.Array) -> jax.Array:
    """(S,) |sum_i w_i (1[a_i] - pi)|^2 over all arms: those pulled one by one, the others by row."""
    share = net(weight) / total(cohorts.mass)
    index = jnp.arange(cohorts.logit.shape[0], dtype=weight.dtype)[:, None]

    def one(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        square, alone = found
        own, first = own_of(pulled, weight, i)
        square = square + jnp.where(first, (own - share * pulled.unit[i]) ** 2, 0)
        return square, alone + jnp.where(first & (pulled.row[i] == index), 1, 0).astype(weight.dtype)

    begin = jnp.zeros_like(share), jnp.zeros_like(cohorts.logit)
    square, alone = jax.lax.fori_loop(0, weight.shape[0], one, begin)
    rest = jnp.maximum(arms_in(classes, cohorts) - alone, 0)
    return square + total(rest * (share * cohorts.unit) ** 2)


def signal_and_noise(classes: Classes, seen: Seen) -> tuple[jax.Array, jax.Array]:
    """(S,) unbiased |E g|^2 and tr Cov g, as `bandit_sim.rounds.observe.signal_and_noise`."""
    pulled, weight = seen.again()
    mean = push_square(classes, seen.cohorts, pulled, weight) / VIRTUAL**2
    n = weight.shape[0] // VIRTUAL

    def square(m: jax.Array) -> jax.Array:
        one = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, m * n, n), (pulled, weight))
        return push_square(classes, seen.cohorts, *one)

    squares = jax.lax.map(square, jnp.arange(VIRTUAL, dtype=jnp.int32)).sum(axis=0)
    noise = (squares - VIRTUAL * mean) / (VIRTUAL - 1)
    return mean - noise / VIRTUAL, noise


def read(name: str, classes: Classes, seen: Seen) -> jax.Array:
    """(S,) an observable of the round."""
    match name:
        case "reward":
            return seen.rewards.mean(axis=0)
        case "distinct":
            return distinct(classes, seen.cohorts, seen.touched)
        case "regret":
            return seen.lost
        case "gradient_norm":
            return jnp.sqrt(push_square(classes, seen.cohorts, seen.pulled, seen.weight))
        case "zero_signal":
            return jnp.all(seen.weight == 0, axis=0).astype(seen.weight.dtype)
        case "signal":
            return signal_and_noise(classes, seen)[0]
        case "noise":
            return signal_and_noise(classes, seen)[1]
    return of_policy(name, classes, seen.cohorts)


def of_policy(name: str, classes: Classes, cohorts: Cohorts) -> jax.Array:
    """(S,) an observable of the policy alone; see `lumped.run` for what each one is."""
    norm, mass = total(cohorts.mass), cohorts.mass
    kind_name, _, index = name.partition("/")
    match kind_name:
        case "success":
            return _sum(mass * look_up(classes.truth, cohorts.kind)) / norm
        case "class_mass":
            return _sum(jnp.where(cohorts.kind == int(index), mass, 0)) / norm
        case "entropy":
            held = arms_in(classes, cohorts)
            depth = jnp.where(held > 0, mass * (cohorts.logit - cohorts.top), 0)
            return jnp.log(norm) - _sum(depth) / norm
        case "winner_share":
            held, good = arms_in(classes, cohorts), look_up(classes.truth, cohorts.kind) > 0
            right = jnp.where(good & (held > 0), cohorts.unit, 0)
            best = fold(lambda best, _, u: jnp.maximum(best, u), jnp.zeros_like(norm), right)
            whole = _sum(jnp.where(good, mass, 0))
            return best / jnp.where(whole > 0, whole, 1)
    raise Refusal(f"no observable {name!r}")


def _sum(parts: jax.Array) -> jax.Array:
    """Over rows; the barrier keeps products and sums apart, so that every buffer size rounds alike."""
    return total(jax.lax.optimization_barrier(parts))
