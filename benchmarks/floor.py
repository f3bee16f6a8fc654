"""How far the dense and kernel engines are from the least their step could cost: `python -m benchmarks.floor`.

The floor of a round is what no implementation can leave out: the largest logit, one exponential per arm, their sum
and the part of it that is correct (the success that is recorded), one multiply-add per logit, and for the kernel engine
the product K c. Random numbers, finding the drawn arm, and weights are not in it. It is compiled like the engine, for
the same number of seeds, and timed in the same run, one after the other.

What keeps 100 choices above twice the floor: of the 94 ns that a seed-round cost above the floor's 77 (one core, CPU
time), the walk to the drawn arm took 29, recording the reward 25, random numbers about 5, and the start of some twenty
kernels of XLA on 64 numbers each the rest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bandit_sim import Arms, ParticleArms, simulate
from bandit_sim.engines.engine import AnyArms
from theory.rules.dialects import preset

SEEDS, TIMES = 64, 5
ARM_ROUNDS = 500_000
"""Arms times rounds of a run: long enough that the set-up of a call, about a millisecond, does not count."""


def medians_of(*runs: Callable[[], object]) -> list[float]:
    """Median seconds of each, several times in turns; the first turn, which compiles, is not counted."""
    spent = []
    for _ in range(TIMES + 1):
        spent.append([])
        for run in runs:
            begin = time.perf_counter()
            run()
            spent[-1].append(time.perf_counter() - begin)
    return [statistics.median(times) for times in zip(*spent[1:], strict=True)]


def floor(count: int, kernel: np.ndarray | None, rounds: int) -> Callable[[], object]:
    """The bare passes over memory of `rounds` rounds of SEEDS seeds."""

    @jax.jit
    def run(state: jax.Array, matrix: jax.Array | None, uniforms: jax.Array) -> jax.Array:
        def one_round(theta: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
            mass = jnp.exp(theta - theta.max(axis=1, keepdims=True))
            total, right = mass.sum(axis=1), mass @ reward
            push = mass * (u / total)[:, None]
            step = push if matrix is None else push @ matrix
            return theta - 1e-6 * step, right / total

        return jax.lax.scan(one_round, state, uniforms)[1]

    state = jnp.zeros((SEEDS, count), jnp.float32)
    reward = jnp.asarray(np.arange(count) < count // 10, jnp.float32)
    uniforms = jnp.asarray(np.random.default_rng(0).random((rounds, SEEDS)), jnp.float32)
    matrix = None if kernel is None else jnp.asarray(kernel, jnp.float32)
    return lambda: run(state, matrix, uniforms).block_until_ready()


def cases() -> Iterator[tuple[str, int, AnyArms, np.ndarray | None]]:
    """Engine, choices, arms, and the kernel where there is one."""
    for count in (100, 1000, 10_000):
        yield "dense", count, Arms.two_class(arms=count, correct=10, p0=0.05), None
    for count in (100, 500):
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(count, count)).astype(np.float32) / count**0.5
        mass, reward = rng.dirichlet(np.ones(count)), (rng.random(count) < 0.1).astype(float)
        yield "kernel", count, ParticleArms(mass, reward, scores @ scores.T), scores @ scores.T


def main() -> None:
    rule = preset("minimalist", eta=0.1)
    print(f"{SEEDS} seeds, float32, medians of {TIMES}")
    for engine, count, arms, kernel in cases():
        rounds = max(100, ARM_ROUNDS // count)
        spent, least = medians_of(
            partial(simulate, arms, rule, rounds, SEEDS, 0), floor(count, kernel, rounds)
        )
        each = 1e9 * spent / SEEDS / rounds
        print(
            f"{engine:7s} {count:6d} choices  {spent / least:6.2f} x floor   ({each:9.0f} ns per seed-round)"
        )


if __name__ == "__main__":
    main()
