"""Queries with a tree each: one token deep they are Contexts, without overlap they are trees apart."""

from typing import Any

import jax
import numpy as np
import pytest

from bandit_sim import Contexts, TreeArms, expected_step, simulate, simulate_grid, synthetic_forest
from bandit_sim.engines import tree_kernel
from theory.refusal import Refusal
from theory.trees.synthetic_tree import synthetic_tree

pytestmark = pytest.mark.usefixtures("x64")
P0 = [0.1, 0.3, 0.6]
OVERLAPS = {"within": 1.0, "cross": 0.3, "wrong_overlap": 0.5}


def forest(p0=P0, depth=1, **fields):
    given: dict[str, Any] = {"correct": 2, "wrong": 4, "depth": depth} | OVERLAPS | fields
    return synthetic_forest(p0, **given)


def test_one_token_deep_it_is_contexts_draw_by_draw(make_rule):
    """The kernels differ by a shift of each query's logits alone, so that all but rounding is equal."""
    own = {"within": 1.0, "cross": 0.3, "wrong": 0.5}
    contexts = Contexts.spectrum(P0, held_out=[0.2], arms=6, correct=2, batch=2, overlap=0.4, **own)
    trees = forest(held_out=[0.2], batch=2, overlap=0.4)
    names = ("success", "held_out", "reward", "entropy", "zero_signal", "winner_share")
    rule = make_rule(0.3, "leave_one_out", 3)
    a, b = (simulate(arms, rule, 40, 16, 5, observe=names) for arms in (contexts, trees))
    for name in names:
        np.testing.assert_allclose(a[name], b[name], atol=1e-9, err_msg=name)
    assert a["success"][:, -1].mean() > a["success"][:, 0].mean() + 0.1


@pytest.mark.parametrize("depth", [1, 3])
def test_without_overlap_the_expected_step_is_the_mean_of_the_trees_own(make_rule, depth):
    """A round trains one query in three, and success is the mean over three: a ninth of the sum of their steps."""
    rule = make_rule(0.5)
    trees = [synthetic_tree(p, correct=2, wrong=4, depth=depth, **OVERLAPS) for p in P0]
    apart = [expected_step(TreeArms.from_tree(tree), rule) for tree in trees]
    assert expected_step(forest(depth=depth), rule) == pytest.approx(sum(apart) / 9, rel=1e-9)


def test_overlap_lifts_the_queries_never_trained_on(make_rule):
    """Held-out success after 60 rounds, 32 seeds, key 0: as it was without overlap, and growing with it."""
    cases = [(forest(held_out=[0.1, 0.2], depth=2, overlap=o), make_rule(0.5)) for o in (0.0, 0.3, 1.0)]
    none, some, all_ = (c["held_out"] for c in simulate_grid(cases, 60, 32, 0, observe=("held_out",)))
    np.testing.assert_allclose(none, 0.15, atol=1e-12)
    assert 0.15 < some[:, -1].mean() < all_[:, -1].mean()
    assert some[:, -1].mean() > 0.2


def test_rollouts_answer_their_own_query():
    arms = forest(held_out=[0.5], batch=2, depth=2)
    state, queries = tree_kernel.init(arms), np.arange(3).repeat(500).astype(np.int32)
    uniform = jax.random.uniform(jax.random.key(0), (1500,), dtype=np.float64)
    chosen = np.asarray(tree_kernel.sample(arms, state, uniform, uniform, jax.numpy.asarray(queries)))
    assert (np.asarray(arms.query)[chosen] == queries).all()
    won = np.asarray(arms.reward)[chosen].reshape(3, 500).mean(axis=1)
    assert np.all(np.abs(won - P0) < 4.5 * np.sqrt(np.array(P0) * (1 - np.array(P0)) / 500))
    best = np.asarray(tree_kernel.greedy(arms, state, jax.numpy.arange(3, dtype=np.int32)))
    assert (np.asarray(arms.query)[best] == [0, 1, 2]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlap": 1.5}, r"overlap = 1.5; give a share"),
        ({"batch": 4}, r"batch = 4 of 3 training queries"),
        ({"p0": []}, r"p0 is empty"),
        ({"p0": [0.5], "overlap": 0.5}, r"overlap = 0.5 with one query changes nothing"),
        ({"cross": 3.0}, r"eigenvalue"),
    ],
)
def test_bad_forests_are_named(fields, message):
    with pytest.raises(Refusal, match=message):
        forest(**fields)
