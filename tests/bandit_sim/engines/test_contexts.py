"""Contexts: against separate dense bandits, one shared bandit, the kernel written out, and by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim import Arms, Contexts, ParticleArms, expected_step, replay, simulate, simulate_grid
from bandit_sim.engines import contexts
from bandit_sim.rounds.keys import root_key
from bandit_sim.rounds.step import draw, knobs_of, luck_of, start
from theory.pay import Clean
from theory.refusal import Refusal

SPECTRUM = [0.05, 0.2, 0.4, 0.7]


def spectrum(**fields):
    return Contexts.spectrum(**{"p0": SPECTRUM, "held_out": [0.1, 0.3], "arms": 5, "correct": 2} | fields)


def gram(arms):
    """(D, D) the kernel of the docstring, written out."""
    share, queries = float(arms.overlap), arms.queries
    return np.kron((1 - share) * np.eye(queries) + share, arms.kinds)


@pytest.mark.parametrize(("signal", "rollouts"), [("raw", 1), ("leave_one_out", 4)])
@pytest.mark.usefixtures("x64")
def test_one_query_is_the_dense_engine(make_rule, signal, rollouts):
    rule = make_rule(0.5, signal, rollouts)
    a = simulate(Arms.two_class(arms=6, correct=2, p0=0.2), rule, 40, 8, 3)
    b = simulate(Contexts.spectrum([0.2], arms=6, correct=2), rule, 40, 8, 3)
    for name in ("success", "reward"):
        assert np.abs(a[name] - b[name]).max() < 1e-13


@given(seed=st.integers(0, 2**31), overlap=st.sampled_from([0.0, 0.3, 1.0]))
def test_the_metric_is_the_kernel_written_out(seed, overlap):
    with jax.enable_x64(True):
        arms = spectrum(overlap=overlap, within=0.5, cross=0.2)
        full = gram(arms)
        assert np.linalg.eigvalsh(full).min() > -1e-12
        gradient = np.random.default_rng(seed).normal(size=len(arms.logits))
        assert np.abs(contexts.metric(arms, jnp.asarray(gradient)) - full @ gradient).max() < 1e-12


@pytest.mark.usefixtures("x64")
def test_trajectory_equals_a_numpy_loop_with_the_whole_kernel(make_rule):
    arms = spectrum(overlap=0.3, within=0.4, cross=0.1, batch=2)
    rng, full = np.random.default_rng(0), gram(arms)
    queries = np.repeat([rng.choice(4, 2, replace=False) for _ in range(30)], 2, axis=1)
    choices = 5 * queries + rng.integers(0, 5, size=(30, 4))
    f, wanted = arms.logits.copy(), []
    for row in choices:
        pi = np.exp(f.reshape(-1, 5))
        pi /= pi.sum(axis=1, keepdims=True)
        wanted.append((pi * arms.reward.reshape(-1, 5)).sum(axis=1)[:4].mean())
        push = np.zeros_like(pi)
        for a in row:  # two rollouts per query, leave-one-out: each against the other
            other = row[(row // 5 == a // 5) & (np.arange(4) != np.flatnonzero(row == a)[0])][0]
            w = (arms.reward[a] - arms.reward[other]) / 4
            push[a // 5] += w * ((np.arange(5) == a % 5) - pi[a // 5])
        f = f + 2.0 * full @ push.ravel()
    got = replay(arms, make_rule(2.0, "leave_one_out", 2), choices[None], arms.reward[choices][None])
    assert np.abs(got[0] - wanted).max() < 1e-12 and np.ptp(got) > 0.05


@pytest.mark.usefixtures("x64")
def test_a_shared_bandit_is_every_query_at_once(make_rule):
    """overlap 1 and equal base: all queries, held-out ones too, stay equal; one query's rollouts train them all."""
    arms = Contexts.spectrum([0.2] * 3, held_out=[0.2], arms=4, overlap=1.0)
    curves = simulate(arms, make_rule(0.5), 40, 8, 0, observe=("success", "held_out", "reward"))
    assert np.abs(curves["success"] - curves["held_out"]).max() < 1e-12
    single = Arms.two_class(arms=4, correct=1, p0=0.2)
    assert np.abs(simulate(single, make_rule(0.5), 40, 8, 0)["success"] - curves["success"]).max() < 1e-12


@pytest.mark.usefixtures("x64")
def test_queries_without_overlap_do_not_touch_each_other(make_rule):
    """A batch of all queries: each runs as its own bandit with the same draws."""
    rule, both = make_rule(0.5, rollouts=2), spectrum(batch=4)
    rng = np.random.default_rng(2)
    rows = 5 * np.repeat(np.arange(4), 2) + rng.integers(0, 5, size=(3, 30, 8))
    together = replay(both, rule, rows, both.reward[rows])
    alone = [  # the mean over the batch divides a query's step by 4
        replay(
            Arms.two_class(arms=5, correct=2, p0=p),
            make_rule(0.125, rollouts=2),
            own % 5,
            (own % 5 < 2) * 1.0,
        )
        for p, own in zip(SPECTRUM, np.split(rows, 4, axis=2), strict=True)
    ]
    assert np.abs(together - np.mean(alone, axis=0)).max() < 1e-12


def test_held_out_success_rises_with_overlap_alone(make_rule):
    """Paired: the same keys for every overlap, one compiled call."""
    cases = [(spectrum(overlap=share), make_rule(1.0)) for share in (0.0, 0.2, 0.6)]
    none, some, more = (c.mean("held_out") for c in simulate_grid(cases, 150, 64, 0, observe=("held_out",)))
    assert np.ptp(none) < 1e-6
    assert none[-1] + 0.1 < some[-1] < more[-1]


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.usefixtures("x64")
def test_expected_step_is_the_squared_gradient_in_the_kernel(make_rule, overlap):
    """E[dp] = eta grad p^T K grad p + O(eta^2), enumerated over every query and arm."""
    arms = spectrum(overlap=overlap, within=0.3, cross=0.1)
    slope = jax.grad(lambda f: contexts.success(arms, f))(jnp.asarray(arms.logits))
    wanted = float(slope @ gram(arms) @ slope)
    assert expected_step(arms, make_rule(1e-5)) / 1e-5 == pytest.approx(wanted, rel=1e-3)
    with pytest.raises(Refusal, match=r"arms\.batch = 2"):
        expected_step(spectrum(batch=2), make_rule())


@pytest.mark.usefixtures("x64")
def test_a_batch_is_the_mean_of_its_single_updates(make_rule):
    arms = spectrum(overlap=0.4, batch=3)
    state = contexts.init(arms)
    choices = jnp.asarray([1, 7, 13])
    batch = contexts.direction(arms, state, choices, jnp.full((3, 1), 1 / 3))
    singles = [contexts.direction(arms, state, c[None], jnp.ones((1, 1))) for c in choices]
    assert np.abs(batch - sum(singles) / 3).max() < 1e-15


def test_a_round_picks_distinct_training_queries_uniformly():
    """4,000 rounds, B = 2 of 4: no pair alike, each query half the time; 4.5 standard errors, 7e-6 each."""
    arms = spectrum(batch=2)
    keys = jax.vmap(lambda i: jax.random.fold_in(root_key(0), i))(jnp.arange(4000, dtype=jnp.uint32))
    picked = np.asarray(jax.jit(jax.vmap(lambda k: contexts.pick(arms, k)))(keys))
    assert np.all(picked[:, 0] < picked[:, 1]) and set(picked.ravel()) == {0, 1, 2, 3}
    share = np.bincount(picked.ravel()) / 4000
    assert np.abs(share - 0.5).max() < 4.5 * np.sqrt(0.25 / 4000)


def test_rollouts_carry_the_index_of_their_query(make_rule):
    """What a rule with a memory per query reads: groups are indices below query_count, n rollouts of each."""
    arms, rule = spectrum(batch=2), make_rule(rollouts=3)
    assert contexts.query_count(arms) == 4
    knobs = knobs_of(rule, jnp.float32)
    carry = start(contexts, rule, arms, knobs)
    luck = luck_of(contexts, rule, Clean(), arms, root_key(4), 0, carry.state.dtype)
    draws = jax.jit(lambda luck: draw(contexts, rule, Clean(), arms, carry.state, luck, knobs))(luck)
    assert [len(set(g)) for g in np.split(np.asarray(draws.queries), 2)] == [1, 1]
    assert len(set(draws.queries.tolist())) == 2
    assert (contexts.query_of(arms, draws.choices) == draws.queries).all()
    assert (draws.rewards == arms.reward[draws.choices]).all()


def test_a_fixed_budget_is_split_either_way(make_rule):
    """8 rollouts per round as B x n = 1 x 8 and 4 x 2: means of reward agree with p, and both learn."""
    for batch, rollouts in ((1, 8), (4, 2)):
        arms = spectrum(batch=batch, overlap=0.2)
        curves = simulate(arms, make_rule(4.0, "leave_one_out", rollouts), 60, 64, 0)
        p = curves["success"]
        assert p[:, -1].mean() > p[:, 0].mean() + 0.1
        assert abs((curves["reward"] - p).mean()) < 4.5 * np.sqrt(0.25 / p.size)


def test_greedy_and_entropy_are_per_query():
    arms = Contexts.spectrum([0.9, 0.1], arms=3)
    queries = jnp.asarray([1, 0, 1])
    assert contexts.greedy(arms, contexts.init(arms), queries).tolist()[1] == 0
    assert contexts.greedy(arms, contexts.init(arms), queries).tolist()[0] in (4, 5)
    each = [-sum(p * np.log(p) for p in (q, (1 - q) / 2, (1 - q) / 2)) for q in (0.1, 0.9, 0.1)]
    assert float(contexts.entropy(arms, contexts.init(arms), queries)) == pytest.approx(
        np.mean(each), rel=1e-5
    )


def test_class_mass_and_distinct_count_training_queries(make_rule):
    curves = simulate(spectrum(), make_rule(), 3, 4, 0, observe=("class_mass", "success", "distinct"))
    assert curves["class_mass/0"] + curves["class_mass/1"] == pytest.approx(1, abs=1e-5)
    assert curves["class_mass/1"] == pytest.approx(curves["success"], abs=1e-5)


def test_what_cannot_be_a_context_is_refused(make_rule):
    for fields, message in [
        ({"batch": 5}, "batch = 5 of 4"),
        ({"overlap": 1.5}, r"overlap = 1\.5"),
        ({"cross": 0.9}, "no features have these inner products"),
        ({"correct": 5}, "correct = 5 of arms = 5"),
        ({"p0": [0.1, 1.0]}, r"p0 holds 1\.0"),
    ]:
        with pytest.raises(Refusal, match=message):
            spectrum(**fields)
    with pytest.raises(Refusal, match="hold no such query"):
        simulate(spectrum(held_out=None), make_rule(), 1, 1, 0, observe=("held_out",))
    for arms in (
        Arms.two_class(arms=3, correct=1, p0=0.1),
        ParticleArms(np.ones(2), np.eye(2)[0], np.eye(2)),
    ):
        with pytest.raises(Refusal, match="hold one query"):
            simulate(arms, make_rule(), 1, 1, 0, observe=("held_out",))
    with pytest.raises(Refusal, match="one grid needs arms of one kind"):
        simulate_grid([(spectrum(batch=b), make_rule()) for b in (1, 2)], 1, 1, 0)
    with pytest.raises(Refusal, match="no query can be told"):
        replay(spectrum(), make_rule(), [[[-1]]], [[[0.0]]])


def test_every_knob_changes_the_curve(make_rule):
    """A mutation of each field of `spectrum`, same keys; those that keep the shape, in one compiled call."""
    base = {"overlap": 0.1, "within": 0.1, "cross": 0.1}
    knobs = [("overlap", 0.5), ("within", 0.5), ("cross", 0.2), ("wrong", 0.5), ("correct", 3)]
    knobs += [("p0", [0.05, 0.2, 0.4, 0.8]), ("held_out", [0.1, 0.5])]
    cases = [(spectrum(**base | {name: value}), make_rule(1.0)) for name, value in [("overlap", 0.1), *knobs]]
    first, *others = simulate_grid(cases, 20, 8, 0, observe=("success", "held_out"))
    for (name, _), other in zip(knobs, others, strict=True):
        seen = "held_out" if name == "held_out" else "success"
        assert np.abs(first[seen] - other[seen]).max() > 1e-3, name
    assert spectrum(arms=6).queries == 6 and len(spectrum(arms=6).logits) == 36
