"""Optimisers and schedules: the printed formula, optax and torch agree step by step, replica by replica."""

from __future__ import annotations

from itertools import product
from math import cos, pi
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim.rounds.optimiser import realise
from llm_bridge.network.optimiser import Ascent, clip_each_replica
from theory.rules import SGD, Adam, ConstantRate, CosineDecay, LinearDecay
from theory.rules.optimiser import Optimiser
from theory.rules.schedule import Schedule

STEPS = 50
SCHEDULES = [
    ConstantRate(),
    ConstantRate(warmup=7),
    LinearDecay(steps=40),
    LinearDecay(steps=40, warmup=5, final=0.1),
    CosineDecay(steps=60),
    CosineDecay(steps=30, warmup=5, final=0.2),
]
KINDS = [
    SGD(eta=0.1),
    SGD(eta=0.1, momentum=0.9),
    SGD(eta=0.1, momentum=0.9, nesterov=True),
    Adam(eta=0.1),
    Adam(eta=0.1, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1),
]
SPECS = [
    kind.model_copy(update={"schedule": schedule, "clip_norm": clip})
    for kind, schedule, clip in product(KINDS, SCHEDULES, [None, 3.0])
]


def label(spec: Optimiser) -> str:
    return spec.model_dump_json().translate(str.maketrans("", "", '{}"'))


def directions(seed: int = 0, replicas: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Directions of two parameters (replicas, 2, 3) and (replicas, 4); norms on both sides of the clip, some 0."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.0, 0.1, 1.0, 5.0], (STEPS, replicas), p=[0.2, 0.2, 0.4, 0.2])
    return [
        (s[:, None, None] * rng.normal(0, 1, (replicas, 2, 3)), s[:, None] * rng.normal(0, 1, (replicas, 4)))
        for s in scale
    ]


def printed_factor(schedule: Schedule, t: int) -> float:
    """The factor as the trainers print it, one step in Python arithmetic."""
    if t < schedule.warmup:
        return t / schedule.warmup
    if schedule.kind == "constant":
        return 1.0
    done = min(1.0, (t - schedule.warmup) / (schedule.steps - schedule.warmup))
    left = 1 - done if schedule.kind == "linear" else 0.5 * (1 + cos(pi * done))
    return schedule.final + (1 - schedule.final) * left


def printed(spec: Optimiser, start: list[np.ndarray], given: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Flattened parameters of one replica after each step, from the formulas of the specs' docstrings."""
    theta, path = np.concatenate([x.ravel() for x in start]), []
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, parts in enumerate(given):
        g = np.concatenate([x.ravel() for x in parts])
        norm = np.sqrt(g @ g)
        if spec.clip_norm is not None and norm > spec.clip_norm:
            g = g * spec.clip_norm / norm
        rate = spec.eta * printed_factor(spec.schedule, t)
        if isinstance(spec, SGD):
            m = spec.momentum * m + g
            theta = theta + rate * (g + spec.momentum * m if spec.nesterov else m)
        else:
            m = spec.beta1 * m + (1 - spec.beta1) * g
            v = spec.beta2 * v + (1 - spec.beta2) * g**2
            m_hat, v_hat = m / (1 - spec.beta1 ** (t + 1)), v / (1 - spec.beta2 ** (t + 1))
            theta = theta + rate * (m_hat / (np.sqrt(v_hat) + spec.eps) - spec.weight_decay * theta)
        path.append(theta)
    return path


def by_optax(spec: Optimiser, start: list[np.ndarray], given: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The same by optax, uncompiled: compiling sixty specifications would take longer than running them."""
    with jax.enable_x64(True):
        rule, theta, path = realise(spec), [jnp.asarray(x) for x in start], []
        state = rule.init(theta)
        for parts in given:
            change, state = rule.update([-jnp.asarray(x) for x in parts], state, theta)
            theta = optax.apply_updates(theta, change)
            path.append(np.concatenate([np.asarray(x).ravel() for x in theta]))
        return path


def by_torch(spec: Optimiser, start: list[np.ndarray], given: list[tuple]) -> list[list[np.ndarray]]:
    """Flattened parameters of every replica after each step, all replicas in one batch of tensors."""
    parameters = [torch.tensor(x, requires_grad=True) for x in start]
    ascent, path = Ascent(spec, parameters), []
    for parts in given:
        ascent.clear()
        sum((torch.tensor(g) * p).sum() for g, p in zip(parts, parameters, strict=True)).backward()
        ascent.step()
        path.append(torch.cat([p.detach().flatten(1) for p in parameters], dim=1).numpy().copy())
    return path


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_formula_optax_and_torch_agree_step_by_step_for_each_replica(spec):
    rng = np.random.default_rng(1)
    start = [rng.normal(0, 1, (3, 2, 3)), rng.normal(0, 1, (3, 4))]
    given = directions()
    together = by_torch(spec, start, given)
    for s in range(3):
        own_start, own = [x[s] for x in start], [[x[s] for x in parts] for parts in given]
        expected = np.stack(printed(spec, own_start, own))
        np.testing.assert_allclose(np.stack([p[s] for p in together]), expected, rtol=1e-10, atol=1e-10)
        if s == 0:
            np.testing.assert_allclose(by_optax(spec, own_start, own), expected, rtol=1e-10, atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1), norm=st.floats(0.1, 10))
def test_clipping_is_of_each_replicas_own_joint_norm(seed, norm):
    before = directions(seed, replicas=5)[0]
    after = [torch.tensor(x) for x in before]
    clip_each_replica(after, norm)
    for s in range(5):
        old, new = (np.concatenate([np.asarray(x[s]).ravel() for x in parts]) for parts in (before, after))
        length = np.linalg.norm(old)
        np.testing.assert_allclose(new, old * (norm / length if length > norm else 1), rtol=1e-12)


def test_a_replica_clipped_or_not_leaves_the_others_alone():
    """One replica's direction a million times longer changes nothing for its neighbours."""
    spec = SGD(eta=1.0, clip_norm=1.0)
    start, given = [np.zeros((2, 4))], [np.array([[0.1] * 4, [0.2] * 4])]
    calm = by_torch(spec, start, [(given[0],)])
    wild = by_torch(spec, start, [(given[0] * np.array([[1e6], [1.0]]),)])
    np.testing.assert_array_equal(calm[0][1], wild[0][1])
    np.testing.assert_allclose(np.linalg.norm(wild[0][0]), 1.0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ConstantRate(), [1, 1, 1, 1, 1, 1, 1]),
        (ConstantRate(warmup=4), [0, 1 / 4, 1 / 2, 3 / 4, 1, 1, 1]),
        (LinearDecay(steps=4), [1, 3 / 4, 1 / 2, 1 / 4, 0, 0, 0]),
        (LinearDecay(steps=6, warmup=2, final=0.2), [0, 1 / 2, 1, 0.8, 0.6, 0.4, 0.2]),
        # (1 + cos(k pi / 4)) / 2 for k = 0..4: 1, (2 + sqrt 2)/4, 1/2, (2 - sqrt 2)/4, 0
        (CosineDecay(steps=4), [1, 0.8535533905932737, 0.5, 0.14644660940672624, 0, 0, 0]),
        (CosineDecay(steps=4, warmup=2, final=0.5), [0, 1 / 2, 1, 0.75, 0.5, 0.5, 0.5]),
    ],
    ids=repr,
)
def test_golden_factors_on_every_back_end(schedule, expected):
    np.testing.assert_allclose([schedule.factor(np.asarray(t)) for t in range(7)], expected, atol=1e-15)
    steps = torch.arange(7)
    torched = torch.stack([schedule.factor(t) for t in steps])
    np.testing.assert_allclose(torched.numpy(), expected, atol=1e-6)
    with jax.numpy_dtype_promotion("strict"):
        jaxed = jax.jit(jax.vmap(schedule.factor))(jnp.arange(7, dtype=jnp.int32))
    np.testing.assert_allclose(jaxed, expected, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_factor_is_between_nothing_and_eta(schedule):
    factors = [float(schedule.factor(np.asarray(t))) for t in range(100)]
    assert min(factors) >= 0 and max(factors) <= 1
    assert schedule.changes == any(f != 1 for f in factors)
    assert factors == pytest.approx([printed_factor(schedule, t) for t in range(100)], abs=1e-15)


# A specification, and another value for each of its fields: each must move the parameters elsewhere.
MUTATIONS = [
    (
        SGD(eta=0.1, momentum=0.9),
        {"eta": 0.2, "momentum": 0.5, "nesterov": True, "schedule": LinearDecay(steps=9), "clip_norm": 1.0},
    ),
    (
        Adam(eta=0.1),
        {
            "eta": 0.2,
            "beta1": 0.5,
            "beta2": 0.5,
            "eps": 1e-2,
            "weight_decay": 0.1,
            "schedule": CosineDecay(steps=9),
            "clip_norm": 1.0,
        },
    ),
    (SGD(eta=0.1, schedule=ConstantRate()), {"schedule": ConstantRate(warmup=3)}),
    *(
        (
            SGD(eta=0.1, schedule=kind(steps=9, warmup=1)),
            {"schedule": kind(steps=9, warmup=1).model_copy(update=change)},
        )
        for kind in (LinearDecay, CosineDecay)
        for change in ({"steps": 10}, {"warmup": 2}, {"final": 0.3})
    ),
]


@pytest.mark.parametrize(("reference", "changes"), MUTATIONS, ids=str)
def test_every_field_moves_the_parameters_elsewhere(reference, changes):
    def end(spec: Optimiser) -> np.ndarray:
        rng = np.random.default_rng(0)
        own = [[rng.normal(0, 1, 4)] for _ in range(8)]
        return np.stack(printed(spec, [np.ones(4)], own))  # the realisations agree with it, see above

    assert changes.keys() >= set(type(reference).model_fields) - {"kind"} or changes.keys() == {"schedule"}
    for field, value in changes.items():
        changed = type(reference)(**{**dict(reference), field: value})
        assert np.any(end(changed) != end(reference)), field


def test_every_optimiser_and_schedule_is_in_the_tables():
    assert {type(spec) for spec in KINDS} == set(get_args(get_args(Optimiser)[0]))
    assert {type(schedule) for schedule in SCHEDULES} == set(get_args(get_args(Schedule)[0]))


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_what_a_spec_says_of_itself_holds(spec):
    """linear: the path of a sum of directions is the sum of the paths. remembers: a zero direction moves."""
    rng = np.random.default_rng(2)
    a, b = ([[3 * rng.normal(0, 1, 4)] for _ in range(10)] for _ in range(2))
    zero = [np.zeros(4)]
    both = [[x[0] + y[0]] for x, y in zip(a, b, strict=True)]
    paths = [np.stack(printed(spec, zero, given)) for given in (a, b, both)]
    assert np.allclose(paths[0] + paths[1], paths[2], rtol=1e-9) == spec.linear
    path = printed(spec, zero, [*a, [np.zeros(4)]])
    moves = np.any(path[-1] != path[-2]) if printed_factor(spec.schedule, 10) else spec.remembers
    assert moves == spec.remembers


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 1e4))
def test_a_constant_factor_on_all_rewards_scales_sgd_and_is_invisible_to_adam(seed, scale):
    rng = np.random.default_rng(seed)
    given = [[rng.normal(0, 1, 4)] for _ in range(10)]
    scaled = [[scale * g[0]] for g in given]
    zero = [np.zeros(4)]
    for spec in (SGD(eta=0.1, momentum=0.9), Adam(eta=0.1, eps=1e-14)):
        one, other = (np.stack(printed(spec, zero, x)) for x in (given, scaled))
        np.testing.assert_allclose(other, one * (scale if isinstance(spec, SGD) else 1), rtol=1e-9, atol=1e-9)


def test_a_parameter_without_a_gradient_counts_its_steps_all_the_same():
    """Adam's bias correction counts every step, the ones before the first success too (as optax does)."""
    spec = Adam(eta=0.1, beta1=0.5)
    given = [(np.zeros((1, 3)),)] * 5 + [(np.ones((1, 3)),)]
    path = by_torch(spec, [np.zeros((1, 3))], given)
    expected = printed(spec, [np.zeros(3)], [[np.zeros(3)]] * 5 + [[np.ones(3)]])[-1]
    np.testing.assert_allclose(path[-1][0], expected, rtol=1e-12)
    # m_hat = .5 / (1 - .5^6) = .50794, v_hat = .001 / (1 - .999^6) = .16708: not eta, the first step of its own
    np.testing.assert_allclose(path[-1], 0.1 * 0.50793651 / 0.40875888, rtol=1e-6)


@pytest.mark.parametrize("spec", [SPECS[3], SPECS[23], SPECS[-1]], ids=label)
def test_a_resumed_ascent_goes_on_bit_for_bit(spec):
    given = [[torch.tensor(x) for x in parts] for parts in directions()]

    def go(ascent: Ascent, turns: list) -> None:
        for parts in turns:
            for parameter, g in zip(ascent.parameters, parts, strict=True):
                parameter.grad = g.clone()
            ascent.step()

    def fresh() -> list[torch.Tensor]:
        return [torch.ones(3, 2, 3, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64)]

    straight, stopped = Ascent(spec, fresh()), Ascent(spec, fresh())
    go(straight, given)
    go(stopped, given[:20])
    again = Ascent(spec, [p.clone() for p in stopped.parameters])
    again.load_state(stopped.state())
    go(again, given[20:])
    for one, other in zip(straight.parameters, again.parameters, strict=True):
        assert torch.equal(one, other)
