"""Queries with a tree each: one token deep they are Contexts, without overlap they are trees apart."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest

from bandit_sim import (
    Arms,
    Contexts,
    ParticleArms,
    ScoredTree,
    TreeArms,
    displacement,
    edge_order,
    expected_step,
    replay,
    replay_asked,
    simulate,
    simulate_grid,
    synthetic_forest,
)
from bandit_sim import forest as plant
from bandit_sim.engines import tree_kernel
from theory.refusal import Refusal
from theory.rules import preset
from theory.trees.joint_probe import sequences
from theory.trees.response_tree import ResponseTree
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


def same(a, b):
    """Whether two kinds of arms hold the same bits."""
    left, right = jax.tree.flatten(a), jax.tree.flatten(b)
    return left[1] == right[1] and all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(left[0], right[0], strict=True)
    )


def test_a_forest_of_one_tree_is_the_tree(token_model):
    model = token_model(0)
    tree, scores = model.tree(), model.scores(model.theta)
    assert same(plant([tree], training=1, tokens=4), TreeArms.from_tree(tree, 4))
    assert same(plant([tree], tree.kernel, training=1), TreeArms.from_tree(tree))
    assert same(plant([tree], scores=scores, share=0.5, training=1), ScoredTree.from_tree(tree, scores, 0.5))


def trees_of(token_model, depths=(3, 2, 2), seeds=(0, 1, 2)):
    """Three random trees that have parameters in common, their joint kernel, and their scores, edge by edge."""
    models = [token_model(seed, depth=depth) for seed, depth in zip(seeds, depths, strict=True)]
    scores = np.concatenate([model.scores(model.theta) for model in models])
    return [model.tree() for model in models], scores @ scores.T, scores


def test_trees_own_kernels_are_a_forest_apart(token_model):
    trees, kernel, _ = trees_of(token_model)
    query = np.repeat(np.arange(3), [len(tree.node) for tree in trees])
    apart = np.where(query[:, None] == query[None, :], kernel, 0.0)
    assert same(plant(trees, training=2), plant(trees, apart, training=2))


def test_tabular_responses_are_the_dense_engine_draw_by_draw(make_rule):
    """One query; and of two, each as it would be alone, since they share nothing."""
    rng = np.random.default_rng(0)
    masses, rewards = rng.dirichlet(np.ones(30), 2), (rng.random((2, 30)) < 0.3).astype(float)
    trees = [ResponseTree.flat(m, r) for m, r in zip(masses, rewards, strict=True)]
    rule = make_rule(0.7, "leave_one_out", 3)
    choices, paid = rng.integers(0, 30, (4, 25, 2, 3)), rng.integers(0, 2, (4, 25, 2, 3)).astype(float)
    dense = [
        replay(Arms.from_masses(masses[q], rewards[q]), rule, choices[:, :, q], paid[:, :, q]) for q in (0, 1)
    ]
    one = replay(plant(trees[:1], training=1), rule, choices[:, :, 0], paid[:, :, 0])
    np.testing.assert_allclose(one, dense[0], rtol=1e-12)
    assert np.std(one[:, -1]) > 0.005
    both = plant(trees, training=2, batch=2)
    assert both.path is None and both.kernel.shape == (60,)
    joined = (choices + np.array([0, 30])[:, None]).reshape(4, 25, 6)
    asked = replay_asked(both, rule, joined, paid.reshape(4, 25, 6))
    # The batch's weights are means over its queries: half the step each.
    half = [
        replay(Arms.from_masses(masses[q], rewards[q]), make_rule(0.35, "leave_one_out", 3), choices[:, :, q],
               paid[:, :, q])
        for q in (0, 1)
    ]  # fmt: skip
    np.testing.assert_allclose(asked, np.repeat(np.stack(half, axis=-1), 3, axis=2), rtol=1e-12)


def test_a_path_that_need_not_be_held_changes_no_draw(make_rule):
    flat = [ResponseTree.flat([0.5, 0.2, 0.3], [0.0, 1.0, 0.0]), ResponseTree.flat([0.9, 0.1], [0.0, 1.0])]
    rule, names = make_rule(0.5, rollouts=2), ("success", "reward", "held_out", "entropy")
    bare, dense = (
        simulate(arms, rule, 30, 16, 3, observe=names)
        for arms in (plant(flat, training=1), plant(flat, np.eye(5), training=1))
    )
    for name in names:
        np.testing.assert_allclose(bare[name], dense[name], rtol=1e-12, err_msg=name)
    best = [
        tree_kernel.greedy(arms, tree_kernel.init(arms), jax.numpy.arange(2, dtype=np.int32))
        for arms in (plant(flat, training=1), plant(flat, np.eye(5), training=1))
    ]
    assert np.array_equal(best[0], best[1]) and best[0].tolist() == [0, 3]


def test_whole_responses_share_what_their_edges_do(token_model, make_rule):
    """One query: the sequence kernel's particles, but for rounding. Several: scores summed along the paths."""
    trees, kernel, scores = trees_of(token_model)
    rule = make_rule(0.3, "leave_one_out", 3)
    flat, joint = sequences(trees[:1], trees[0].kernel)
    one, particles = (
        simulate(arms, rule, 30, 16, 3)["success"]
        for arms in (plant(flat, joint, training=1), ParticleArms.from_tree(trees[0]))
    )
    np.testing.assert_allclose(one, particles, rtol=1e-9)
    flat, joint = sequences(trees, kernel)
    ends = np.cumsum([0, *(len(tree.node) for tree in trees)])
    whole = np.concatenate(
        [tree.path @ scores[a:b] for tree, a, b in zip(trees, ends, ends[1:], strict=False)]
    )
    np.testing.assert_allclose(joint, whole @ whole.T, atol=1e-12)
    for tree, a in zip(flat, np.cumsum([0, *(len(t.node) for t in flat)]), strict=False):
        b = a + len(tree.node)
        np.testing.assert_array_equal(joint[a:b, a:b], tree.kernel)
    seen = simulate(plant(flat, joint, training=2), rule, 30, 16, 3, observe=("success", "held_out"))
    assert np.std(seen["success"][:, -1]) > 0 and np.std(seen["held_out"][:, -1]) > 0


@pytest.mark.parametrize("signal", ["raw", "leave_one_out"])
def test_p_of_the_query_each_rollout_answers(token_model, make_rule, signal):
    """Two of three training queries a round; theta written out: each node's softmax at base + J theta."""
    models = [token_model(seed, depth=depth) for seed, depth in ((0, 3), (1, 2), (2, 2), (3, 2))]
    trees, scores = [m.tree() for m in models], np.concatenate([m.scores(m.theta) for m in models])
    rng, rule = np.random.default_rng(5), make_rule(0.2, signal, 2)
    leaves = np.array([len(tree.reward) for tree in trees])
    first = np.cumsum([0, *leaves])
    queries = np.repeat(np.sort(rng.permuted(np.tile(np.arange(3), (20, 1)), axis=1)[:, :2]), 2, axis=1)
    choices = (rng.integers(0, leaves[queries]) + first[queries])[None]
    paid = rng.integers(0, 2, choices.shape).astype(float)
    arms = plant(trees, scores @ scores.T, training=3, batch=2)
    asked, mean = (f(arms, rule, choices, paid)[0] for f in (replay_asked, replay))
    scored = plant(trees, scores=scores, training=3, batch=2)
    np.testing.assert_allclose(replay_asked(scored, rule, choices, paid)[0], asked, rtol=1e-9)
    theta = np.zeros(scores.shape[1])
    ends = np.cumsum([0, *(len(tree.node) for tree in trees)])
    for t in range(20):
        f = [scores[a:b] @ theta for a, b in pairwise(ends)]
        p = [tree.success(x) for tree, x in zip(trees, f, strict=True)]
        np.testing.assert_allclose(asked[t], np.array(p)[queries[t]], rtol=1e-9)
        assert mean[t] == pytest.approx(np.mean(p[:3]), rel=1e-9)
        advantage = paid[0, t].copy()
        if signal == "leave_one_out":
            advantage -= advantage.reshape(2, 2)[:, ::-1].ravel()
        step = np.zeros_like(theta)
        for i, q in enumerate(queries[t]):
            tree, pi = trees[q], np.exp(trees[q].edge_log_probability(f[q]))
            leaf = choices[0, t, i] - first[q]
            step += advantage[i] * (tree.path[leaf] - tree.visits[leaf] * pi) @ scores[ends[q] : ends[q + 1]]
        theta += 0.2 * step / 4
    assert np.std(asked) > 0.01


def test_of_one_query_every_rollout_has_its_success(token_model, make_rule):
    arms, rule = TreeArms.from_tree(token_model(0).tree()), make_rule(0.2, rollouts=3)
    choices, paid = np.array([[[0, 1, -1], [2, 1, 0]]]), np.array([[[1.0, 0, 0], [0, 1, 1]]])
    p = replay(arms, rule, choices, paid)
    np.testing.assert_array_equal(replay_asked(arms, rule, choices, paid), np.repeat(p[..., None], 3, axis=2))


def test_a_replay_takes_the_helpers_of_a_round(token_model):
    """ReMax: a rollout and the greedy one, whose reward is the baseline: a rollout paid as it pushes nothing."""
    arms, rule = TreeArms.from_tree(token_model(0).tree()), preset("remax", eta=0.5)
    choices = np.tile(np.array([1, 0]), (2, 5, 1))
    paid = np.stack([np.ones((5, 2)), np.tile([1.0, 0.0], (5, 1))])
    still, moved = replay(arms, rule, choices, paid)
    assert np.ptp(still) == 0 and np.ptp(moved) > 0.01


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_displacement_of_a_forest_ends_where_the_simulation_does(token_model, make_rule, diagonal):
    """Two of three training queries a round, one query held out; edges in the trees' order are not the arms'."""
    trees, kernel, _ = trees_of(token_model, (3, 2, 2, 2), (0, 1, 2, 3))
    shuffled = [mixed(tree, seed) for seed, tree in enumerate(trees)]
    if diagonal:
        flat = [ResponseTree.flat(tree.leaf_probability(), tree.reward) for tree in trees]
        arms = plant(flat, training=3, batch=2)
        shuffled = flat
    else:
        place = [np.random.default_rng(seed).permutation(len(tree.node)) for seed, tree in enumerate(trees)]
        starts = np.cumsum([0, *(len(tree.node) for tree in trees)])
        order = np.concatenate([a + own for a, own in zip(starts, place, strict=False)])
        arms = plant(shuffled, kernel[np.ix_(order, order)], training=3, batch=2)
    rule = make_rule(0.3, "leave_one_out", 3)
    alpha, f = displacement(arms, rule, 9, 5, 3)
    after = simulate(arms, rule, 10, 5, 3, observe=("success", "held_out"))
    back, ends = np.argsort(edge_order(shuffled)), np.cumsum([0, *(len(tree.node) for tree in shuffled)])
    p = np.array([
        [tree.success(row[back][a:b]) for tree, (a, b) in zip(shuffled, pairwise(ends), strict=True)] for row in f
    ])  # fmt: skip
    np.testing.assert_allclose(p[:, :3].mean(axis=1), after["success"][:, 9], rtol=1e-9)
    np.testing.assert_allclose(p[:, 3], after["held_out"][:, 9], rtol=1e-9)
    assert np.std(after["success"][:, 9]) > 0
    assert not alpha[:, back][:, ends[3] :].any() and alpha.any()


def mixed(tree, seed):
    """The same tree, its edges in another order."""
    order = np.random.default_rng(seed).permutation(len(tree.node))
    return replace(
        tree, node=tree.node[order], probability=tree.probability[order], path=tree.path[:, order],
        depth=tree.depth[order], kernel=tree.kernel[np.ix_(order, order)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"training": 3}, r"training = 3 of 2 trees"),
        ({"kernel": np.ones(4)}, r"kernel has shape \(4,\), the trees have 5 edges"),
        ({"scores": np.ones((4, 2))}, r"scores has shape \(4, 2\), the trees have 5 edges"),
        ({"scores": np.ones((5, 2)), "kernel": np.ones(5)}, r"scores beside a kernel"),
        ({"share": 0.5}, r"share = 0.5 without scores"),
    ],
)
def test_a_kernel_or_scores_of_other_trees_are_named(fields, message):
    trees = [ResponseTree.flat([0.5, 0.2, 0.3], [0.0, 1.0, 0.0]), ResponseTree.flat([0.9, 0.1], [0.0, 1.0])]
    given: dict[str, Any] = {"training": 2} | fields
    with pytest.raises(Refusal, match=message):
        plant(trees, **given)
