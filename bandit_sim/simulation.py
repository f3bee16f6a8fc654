"""Simulate many seeds of a bandit under an update rule, exactly; several rules at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.arms.lazy_tree import LazyTree
from bandit_sim.classes.by_class import ClassEngine, simulate_classes
from bandit_sim.classes.lazy_tree import simulate_lazily
from bandit_sim.engines.engine import AnyArms
from bandit_sim.engines.registry import engine_for
from bandit_sim.rounds.keys import root_key
from bandit_sim.rounds.observe import (
    CLASS_MASS,
    OBSERVABLES,
    SUMMARIES,
    Observable,
    check_names,
    class_masses,
)
from bandit_sim.rounds.scan import Plan, run_seeds
from bandit_sim.rounds.settings import Device, DType, Observe, Progress, Settings
from bandit_sim.rounds.step import Knobs, check_decay, check_pair
from theory.curves import Curves
from theory.pay import PaySpec, check_pay
from theory.refusal import Refusal
from theory.rules.rule import Rule

_NUMBERS_PER_BATCH = 2**22


def simulate(
    arms: AnyArms | ArmClasses | LazyTree,
    rule: Rule,
    rounds: int,
    seeds: int | range,
    key: int | jax.Array,
    *,
    observe: Observe = ("success", "reward"),
    every: int = 1,
    pay: PaySpec | None = None,
    engine: ClassEngine = "auto",
    dtype: DType | None = None,
    devices: Sequence[Device] | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Curves:
    """Curves of independent replicas of the bandit: state += eta * direction(w), w = rule(draws, rewards).

    Arguments:
        arms: what is pulled; the kind of arms picks the engine.
        rule: the update rule; `rule.rollouts` arms are pulled per round and query.
        rounds: number T of updates.
        seeds: number S of replicas, or the range of replica numbers (a block of a larger run, the same bits).
        key: integer or JAX key; draw (seed, round, rollout) has a key of its own.
        observe: names of `bandit_sim.rounds.observe.OBSERVABLES`, or "class_mass".
        every: record rounds 0, every, 2 every, ... only; the others are simulated all the same.
        pay: what a pull is paid; default the true reward.
        engine: for arms in classes "lumped", "event" or the cheaper of the two; other arms have one engine each.
        dtype: "float32" or "float64" for the whole simulation; default float64 for arms in classes, else that of
            the arms as JAX takes them (float32 unless jax_enable_x64).
        devices: devices to share the seeds of a batch; default the first alone.
        chunk: replicas between two calls of `progress`, rounded up to whole batches; default one batch. The
            arms alone set a batch's shape: memory is bounded, code is compiled once for any number of seeds,
            and no choice of chunk or seeds changes a bit.
        progress: called as progress(done, S) after each chunk.

    Returns: one metric (S, ceil(T / every)) per name of `observe`, in column i as it was before the update of
        round i * every; `curves.at` holds these round numbers.
    Errors: Refusal for counts below 1, an unknown observable, or Adam with a kernel engine.
    Valid when: the arms describe the policy.
    """
    settings = Settings(rounds, seeds, key, observe, every, pay, dtype, devices, chunk, progress)
    if isinstance(arms, ArmClasses):
        return simulate_classes(arms, rule, settings, engine)
    if engine != "auto":
        raise Refusal(
            f'engine = {engine!r} with {type(arms).__name__}; these arms have one engine, give "auto"'
        )
    if isinstance(arms, LazyTree):
        return simulate_lazily(arms, rule, settings)
    (curves,) = _grid([(arms, rule)], settings)
    return curves


def simulate_grid(
    cases: Sequence[tuple[AnyArms, Rule]],
    rounds: int,
    seeds: int | range,
    key: int | jax.Array,
    *,
    observe: Observe = ("success", "reward"),
    every: int = 1,
    pay: PaySpec | None = None,
    dtype: DType | None = None,
    devices: Sequence[Device] | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> list[Curves]:
    """Several cases in one compiled call; each gives what `simulate` gives it alone, with the same draws.

    Arguments:
        cases: pairs (arms, rule). Arms are of one kind and shape; rules differ in eta and rollouts alone.
        others: as in `simulate`; the seeds of all cases share their keys (paired comparisons).
    Errors: Refusal naming the case and the field that differs.
    """
    return _grid(cases, Settings(rounds, seeds, key, observe, every, pay, dtype, devices, chunk, progress))


def _grid(cases: Sequence[tuple[AnyArms, Rule]], settings: Settings) -> list[Curves]:
    """What `simulate_grid` does."""
    if not cases:
        raise Refusal("cases is empty; give at least one (arms, rule)")
    block, pay = settings.block, settings.paid
    engine = engine_for(cases[0][0])
    rule = _common_rule([rule for _, rule in cases])
    check_pair(engine, rule)
    for arms, case_rule in cases:
        check_pay(pay, arms.reward, arms.flip)
        check_decay(arms, case_rule, settings.rounds)
    devices = list(settings.devices) if settings.devices is not None else jax.devices()[:1]
    with settings.precision():
        structure, stacked = _stack([arms for arms, _ in cases], settings.dtype)
        rewards = np.concatenate([np.ravel(a.reward) for a, _ in cases])
        plan = Plan(
            engine=engine,
            rule=rule,
            pay=pay,
            observe=_observables(settings.observe, rewards),
            every=settings.every,
            records=len(settings.at),
            structure=structure,
        )
        one = jax.tree.unflatten(structure, [x[0] for x in stacked])
        kind = jax.eval_shape(engine.init, one).dtype
        knobs = Knobs(
            jnp.asarray([r.optimiser.eta for _, r in cases], kind),
            jnp.asarray([r.rollouts for _, r in cases], jnp.int32),
        )
        size = _batch(len(cases) * np.shape(cases[0][0].reward)[0]) * len(devices)
        mesh = Mesh(np.array(devices), ("seeds",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        root, stacked, knobs = jax.device_put((root_key(settings.key), stacked, knobs), everywhere)
        report = size * -(-(settings.chunk or size) // size)
        parts: list[dict[str, np.ndarray]] = []
        for first in range(0, len(block), size):
            numbers = (np.arange(first, first + size) * block.step + block.start).astype(np.uint32)
            shared = jax.device_put(numbers, NamedSharding(mesh, PartitionSpec("seeds")))
            seen = run_seeds(plan, stacked, knobs, root, shared)
            parts.append({name: np.asarray(x, np.float64) for name, x in seen.items()})
            done = min(first + size, len(block))
            if done % report == 0 or done == len(block):
                settings.told(done)
    return [
        Curves(
            {name: np.concatenate([p[name][i] for p in parts])[: len(block)] for name in parts[0]},
            at=settings.at,
        )
        for i in range(len(cases))
    ]


def _batch(choices: int) -> int:
    """Seeds per compiled call: 64, or fewer where the arms are so many that memory would suffer."""
    return max(1, min(64, _NUMBERS_PER_BATCH // choices))


def _common_rule(rules: Sequence[Rule]) -> Rule:
    """The rule that all are, but for eta (a knob; here 1) and rollouts (here the most of any)."""
    most = max(rules, key=lambda rule: rule.rollouts)
    for i, rule in enumerate(rules):
        same = {
            "optimiser": most.optimiser.model_copy(update={"eta": rule.optimiser.eta}) == rule.optimiser,
            **{
                field: getattr(most, field) == getattr(rule, field)
                for field in type(most).model_fields
                if field not in ("optimiser", "rollouts")
            },
        }
        different = [field for field, equal in same.items() if not equal]
        if different:
            raise Refusal(
                f"cases[{i}]: its rule has another {different[0]} than the others; one grid varies arms, eta and "
                "rollouts alone, so make a grid of each"
            )
    return most.model_copy(update={"optimiser": most.optimiser.model_copy(update={"eta": 1.0})})


def _stack(arms: Sequence[AnyArms], dtype: DType | None) -> tuple[Any, list[jax.Array]]:
    """The structure of the arms, and their arrays with a leading axis over the cases, in one dtype."""
    shapes = [[np.shape(x) for x in jax.tree.leaves(a)] for a in arms]
    for i, a in enumerate(arms):
        if jax.tree.structure(a) != jax.tree.structure(arms[0]) or shapes[i] != shapes[0]:
            raise Refusal(
                f"cases[{i}]: its arms are {type(a).__name__} of shapes {shapes[i]}, the first are "
                f"{type(arms[0]).__name__} of {shapes[0]}; one grid needs arms of one kind, shape and static fields"
            )

    def join(*leaves: Any) -> jax.Array:
        joined = jnp.stack([jnp.asarray(x) for x in leaves])
        floats = jnp.issubdtype(joined.dtype, jnp.floating)
        return joined.astype(dtype) if floats and dtype is not None else joined

    leaves = zip(*(jax.tree.leaves(a) for a in arms), strict=True)
    return jax.tree.structure(arms[0]), [join(*same) for same in leaves]


def _observables(observe: Observe, rewards: np.ndarray) -> tuple[tuple[str, Observable], ...]:
    rows: dict[str, Observable] = {}
    for name in check_names(observe, [*SUMMARIES], "the engine of these arms"):
        if name == CLASS_MASS:
            rows |= class_masses(tuple(float(x) for x in np.unique(rewards)))
        else:
            rows[name] = OBSERVABLES[name]
    return tuple(rows.items())
