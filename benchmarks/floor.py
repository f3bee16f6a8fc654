"""How far the dense and kernel engines are from the least their step could cost: `python -m benchmarks.floor`.

The floor of a round is what no implementation can leave out: the largest logit, one exponential per arm, their sum
and the part of it that is correct (the success that is recorded), one multiply-add per logit, and for the kernel engine
the product K c. Random numbers, finding the drawn arm, and weights are not in it. It is compiled like the engine, for
the same number of seeds, and timed in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bandit_sim import Arms, ParticleArms, simulate
from theory.rules.dialects import preset

ROUNDS, SEEDS, TIMES = 100, 64, 5


def median_of(run: Callable[[], object]) -> float:
    """Median seconds of several runs; the first, which compiles, is not counted."""
    run()
    spent = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        run()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def floor(count: int, kernel: np.ndarray | None) -> Callable[[], object]:
    """The bare passes over memory of ROUNDS rounds of SEEDS seeds."""

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
    uniforms = jnp.asarray(np.random.default_rng(0).random((ROUNDS, SEEDS)), jnp.float32)
    matrix = None if kernel is None else jnp.asarray(kernel, jnp.float32)
    return lambda: run(state, matrix, uniforms).block_until_ready()


def main() -> None:
    rule = preset("minimalist", eta=0.1)
    print(f"{SEEDS} seeds, {ROUNDS} rounds, float32, medians of {TIMES}")
    for count in (100, 1000, 10_000):
        arms = Arms.two_class(arms=count, correct=10, p0=0.05)
        spent, least = (
            median_of(lambda arms=arms: simulate(arms, rule, ROUNDS, SEEDS, 0)),
            median_of(floor(count, None)),
        )
        print(
            f"dense   K = {count:6d}  {spent / least:6.2f} x floor   ({1e9 * spent / SEEDS / ROUNDS:9.0f} ns)"
        )
    for count in (100, 500):
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(count, count)).astype(np.float32) / count**0.5
        kernel = scores @ scores.T
        mass, reward = rng.dirichlet(np.ones(count)), (rng.random(count) < 0.1).astype(float)
        arms = ParticleArms(mass, reward, kernel)
        spent, least = (
            median_of(lambda arms=arms: simulate(arms, rule, ROUNDS, SEEDS, 0)),
            median_of(floor(count, kernel)),
        )
        print(
            f"kernel  L = {count:6d}  {spent / least:6.2f} x floor   ({1e9 * spent / SEEDS / ROUNDS:9.0f} ns)"
        )


if __name__ == "__main__":
    main()
