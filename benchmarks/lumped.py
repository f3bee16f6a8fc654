"""Speed of the lumped, event and birth engines as ratios to three other ways, in one run.

    python -m benchmarks.lumped            # the table, and the memory of the 10^12-arm run

The other ways: a plain JAX loop over all arms, as a theorist would write it; our dense engine; a NumPy loop, one
replica at a time.

Every entry is the median of five, the entries taken in turns, so that a busy machine slows all alike. A seed-round is
one round of one replica. Compilation is not counted.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bandit_sim import Arms, simulate
from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import event, lumped
from theory.rules import Rule

REPEATS, CORRECT, P0 = 5, 4, 0.05
MEMORY_ROUNDS, MEMORY_SEEDS = 10_000, 1_024


def rule_of(signal: str, rollouts: int, eta: float) -> Rule:
    spec = {"signal": {"kind": signal}, "optimiser": {"kind": "sgd", "eta": eta}, "rollouts": rollouts}
    return Rule.model_validate(spec)


RAW, GROUP = rule_of("raw", 1, 1.0), rule_of("group_mean_std", 8, 0.1)


def classes(arms: int, correct: int = CORRECT, p0: float = P0) -> ArmClasses:
    return ArmClasses.two_class(arms=arms, correct=correct, p0=p0)


def numpy_loop(rule: Rule, rounds: int) -> None:
    """One replica, as one writes it: softmax, `choice`, one update of all K logits."""
    arms, rng = classes(1000).expand(), np.random.default_rng(0)
    theta, n = arms.logits.copy(), rule.rollouts
    for _ in range(rounds):
        pi = np.exp(theta - theta.max())
        pi /= pi.sum()
        chosen = rng.choice(1000, size=n, p=pi)
        reward = arms.reward[chosen]
        if rule.signal.kind == "raw":
            weight = reward / n
        else:
            weight = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-6) / n
        gradient = -weight.sum() * pi
        np.add.at(gradient, chosen, weight)
        theta += rule.optimiser.eta * gradient


@partial(jax.jit, static_argnames=("signal", "rollouts", "rounds"))
def _plain(
    logits: jax.Array, reward: jax.Array, eta: float, keys: jax.Array, signal: str, rollouts: int, rounds: int
) -> jax.Array:
    def one_round(theta: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_pi = jax.nn.log_softmax(theta)
        pi = jnp.exp(log_pi)
        chosen = jax.random.categorical(key, log_pi, shape=(rollouts,))
        paid = reward[chosen]
        advantage = paid if signal == "raw" else (paid - paid.mean()) / (paid.std(ddof=1) + 1e-6)
        weight = advantage / rollouts
        gradient = jnp.zeros_like(theta).at[chosen].add(weight) - weight.sum() * pi
        return theta + eta * gradient, pi @ reward

    def one_seed(key: jax.Array) -> jax.Array:
        return jax.lax.scan(one_round, logits, jax.random.split(key, rounds))[1]

    return jax.vmap(one_seed)(keys)


def plain(rule: Rule, arms: int, rounds: int, seeds: int) -> None:
    """Every arm has its logit; nothing is made faster than JAX makes it."""
    with jax.enable_x64(True):
        every = Arms.two_class(arms=arms, correct=CORRECT, p0=P0)
        logits, reward = jnp.asarray(every.logits), jnp.asarray(every.reward)
        keys = jax.random.split(jax.random.key(0), seeds)
        eta, signal = rule.optimiser.eta, rule.signal.kind
        _plain(logits, reward, eta, keys, signal, rule.rollouts, rounds).block_until_ready()


def dense(rule: Rule, arms: int, rounds: int, seeds: int) -> None:
    with jax.enable_x64(True):
        expanded = Arms.two_class(arms=arms, correct=CORRECT, p0=P0)
        simulate(expanded, rule, rounds, seeds, 0)


def sparse(rule: Rule, arms: int, rounds: int, seeds: int, correct: int = CORRECT) -> None:
    lumped.run(classes(arms, correct), rule, [0, rounds - 1], seeds, 0)


def eventful(rounds: int, seeds: int) -> None:
    """A step so small that p stays near 1e-6: about ten successes in 10^7 rounds."""
    event.run(classes(10**18, CORRECT, 1e-6), rule_of("raw", 1, 0.01), [0, rounds - 1], seeds, 0)


Entry = tuple[Callable[[], object], int]
ENTRIES: dict[str, Entry] = {
    "NumPy loop, raw, K=1e3": (lambda: numpy_loop(RAW, 2_000), 2_000),
    "NumPy loop, n=8, K=1e3": (lambda: numpy_loop(GROUP, 1_000), 1_000),
    "plain JAX, raw, K=1e3": (lambda: plain(RAW, 1_000, 200, 64), 200 * 64),
    "plain JAX, n=8, K=1e3": (lambda: plain(GROUP, 1_000, 50, 64), 50 * 64),
    "plain JAX, n=8, K=1e6": (lambda: plain(GROUP, 10**6, 1, 2), 1 * 2),
    "dense, raw, K=1e3": (lambda: dense(RAW, 1_000, 200, 64), 200 * 64),
    "dense, n=8, K=1e3": (lambda: dense(GROUP, 1_000, 100, 64), 100 * 64),
    "dense, n=8, K=1e6": (lambda: dense(GROUP, 10**6, 1, 4), 1 * 4),
    "lumped, raw, K=1e3": (lambda: sparse(RAW, 1_000, 2_000, 4_096), 2_000 * 4_096),
    "lumped, raw, K=1e18": (lambda: sparse(RAW, 10**18, 2_000, 4_096), 2_000 * 4_096),
    "lumped, raw, 1,000 correct, K=1e18": (lambda: sparse(RAW, 10**18, 500, 2_048, 1_000), 500 * 2_048),
    "one correct arm, raw, K=1e18": (lambda: sparse(RAW, 10**18, 10_000, 8_192, 1), 10_000 * 8_192),
    "lumped, n=8, K=1e6": (lambda: sparse(GROUP, 10**6, 500, 2_048), 500 * 2_048),
    "lumped, n=8, K=1e18": (lambda: sparse(GROUP, 10**18, 500, 2_048), 500 * 2_048),
    "event, raw, p0=1e-6": (lambda: eventful(10**7, 4_096), 10**7 * 4_096),
}
# Four correct arms are few enough to have rows of their own (`listed`); a thousand are not, and go by cohorts, whose
# number grows with the run. (what, entry, the case at K = 1e3 or the bases, target against JAX, target against NumPy)
WORK = [
    ("lumped raw n=1, K=1e18", "lumped, raw, K=1e18", "raw, K=1e3", 500, 2_000),
    ("the same, 1,000 correct", "lumped, raw, 1,000 correct, K=1e18", "raw, K=1e3", None, None),
    ("one correct arm, raw", "one correct arm, raw, K=1e18", "raw, K=1e3", 4_000, 20_000),
    ("lumped mean-std n=8, K=1e18", "lumped, n=8, K=1e18", "n=8, K=1e3", 40, 300),
    ("lumped mean-std n=8, K=1e6", "lumped, n=8, K=1e6", "n=8, K=1e6", 40_000, None),
    ("event raw, effective rounds", "event, raw, p0=1e-6", "raw, K=1e3", 1_000_000, 4_000_000),
]
WAYS = ("plain JAX", "dense", "NumPy loop")


def measure() -> dict[str, float]:
    """Nanoseconds per seed-round, medians."""
    spent: dict[str, list[float]] = {name: [] for name in ENTRIES}
    for run, _ in ENTRIES.values():
        run()
    for _ in range(REPEATS):
        for name, (run, count) in ENTRIES.items():
            begin = time.perf_counter()
            run()
            spent[name].append((time.perf_counter() - begin) / count * 1e9)
    return {name: statistics.median(values) for name, values in spent.items()}


def memory() -> None:
    """The run whose peak memory the parent reports."""
    lumped.run(classes(10**12), RAW, [0, 1_000, MEMORY_ROUNDS - 1], MEMORY_SEEDS, 0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**20)


def main() -> None:
    if sys.argv[1:] == ["memory"]:
        memory()
        return
    cost, row = measure(), "{:30s} {:11s}" + 5 * " {:>12s}"
    for name, value in cost.items():
        print(f"{name:36s} {value:14.4g} ns per seed-round", flush=True)
    print(
        "\nHow many times as fast as each way. The targets against JAX were set against an unoptimised dense loop."
    )
    print(row.format("work", "case", WAYS[0], WAYS[1], "target", WAYS[2], "target"))
    for what, entry, case, *targets in WORK:
        jax_target, numpy_target = ("-" if target is None else f"{target:,}" for target in targets)
        plain, dense, loop = (
            f"{cost[base] / cost[entry]:,.0f}" if (base := f"{way}, {case}") in cost else "-" for way in WAYS
        )
        print(row.format(what, case, plain, dense, jax_target, loop, numpy_target))
    growth = cost["lumped, raw, K=1e18"] / cost["lumped, raw, K=1e3"]
    print(f"cost of K=1e18 over K=1e3, lumped raw: {growth:.2f} (target at most 1.20)")
    command = [sys.executable, "-m", "benchmarks.lumped", "memory"]
    peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(
        f"peak memory, K=1e12, {MEMORY_ROUNDS:,} rounds x {MEMORY_SEEDS:,} seeds, raw: {peak:.0f} MiB (target < 1024)"
    )


if __name__ == "__main__":
    main()
