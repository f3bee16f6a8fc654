"""What a run by cohorts can record, by name."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bandit_sim.engines._blocks import Floats
from bandit_sim.engines._rows import Classes, fold, look_up, total
from bandit_sim.engines.cohorts import Cohorts, arms_in

NAMES = ("success", "reward", "entropy", "winner_share", "distinct", "class_mass")


def check_observe(observe: Sequence[str]) -> tuple[str, ...]:
    for name in observe:
        if name not in NAMES:
            raise ValueError(f"observe holds {name!r}; choose from {', '.join(NAMES)}")
    if not observe:
        raise ValueError("observe is empty; give at least one name, such as 'success'")
    return tuple(dict.fromkeys(observe))


def keys_of(observe: Sequence[str], classes: int) -> tuple[str, ...]:
    """The names of the recorded arrays: one a class for class_mass."""
    per_class = [f"class_mass/{c}" for c in range(classes)]
    return tuple(k for name in observe for k in (per_class if name == "class_mass" else [name]))


def in_order(found: dict[str, Floats], order: NDArray[np.intp]) -> dict[str, Floats]:
    """The arrays by the caller's class numbers, where class j of the run is the caller's order[j]."""
    names = {f"class_mass/{j}": f"class_mass/{c}" for j, c in enumerate(order)}
    renamed = {names.get(name, name): values for name, values in found.items()}
    return {name: renamed[name] for name in found}


def read(name: str, classes: Classes, cohorts: Cohorts) -> jax.Array:
    """(S,) an observable of the policy; see `lumped.run` for what each one is."""
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
        case "distinct":
            slot = jnp.arange(mass.shape[0])[:, None] >= classes.logit.shape[0]
            good = look_up(classes.truth, cohorts.kind) > 0
            return _sum(jnp.where(slot & good, cohorts.change, 0))
    raise ValueError(f"no observable {name!r}")


def _sum(parts: jax.Array) -> jax.Array:
    """Over rows; the barrier keeps products and sums apart, so that every buffer size rounds alike."""
    return total(jax.lax.optimization_barrier(parts))
