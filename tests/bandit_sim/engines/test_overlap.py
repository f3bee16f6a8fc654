"""Negative reward with shared features: the success collapses where correct and wrong responses overlap."""

import numpy as np
import pytest

from bandit_sim import ParticleArms, TreeArms, expected_step, simulate_grid
from theory.pay import NegativeOnly
from theory.trees.synthetic_tree import synthetic_tree

OVERLAP = {"cross": 4.0, "wrong_overlap": 4.0, "near": 10}


def arms(depth=1, **overlap):
    return TreeArms.from_tree(synthetic_tree(0.02, correct=2, wrong=20, depth=depth, within=4.0, **overlap))


def test_negative_reward_collapses_where_correct_and_wrong_responses_overlap(make_rule):
    """Half the wrong responses share the features of the correct ones: to push one of them down drags the correct
    ones along, and seeds that lose them never pull one again. Share of 256 seeds below a tenth of p0 = .02 after
    300 rounds, key 0: none without overlap, .32 with overlap among the wrong alone, .90 with cross = 2, .96 with
    cross = 4; allowed are 4.5 standard errors (.03) of each. It is a matter of finite steps, see below.
    """
    overlaps = [{}, OVERLAP | {"cross": 0.0}, OVERLAP | {"cross": 2.0}, OVERLAP]
    cases = [(arms(**overlap), make_rule(2.0)) for overlap in overlaps]
    curves = simulate_grid(cases, 301, 256, 0, pay=NegativeOnly(), observe=("success",), every=300)
    apart, wrong, some, most = (np.mean(c["success"][:, -1] < 0.002) for c in curves)
    assert apart == 0 and curves[0]["success"][:, -1].min() > 0.9
    assert wrong < 0.46 and some > 0.77 and most > 0.87


@pytest.mark.usefixtures("x64")
def test_the_collapse_is_no_matter_of_the_mean(make_rule):
    """The expected step under t - 1 is that under t up to O(eta^2), and positive with overlap too."""
    small = make_rule(1e-6)
    for overlap in ({}, OVERLAP):
        negative, true = (expected_step(arms(**overlap), small, v) for v in (NegativeOnly(), None))
        assert negative == pytest.approx(true, rel=1e-3) and true > 0


@pytest.mark.parametrize("fields", [{"cross": 0.0}, {"cross": 2.0, "wrong_overlap": 1.0}])
@pytest.mark.usefixtures("x64")
def test_the_two_number_summary_gives_the_early_rate(make_rule, fields):
    """dp/dt = eta (kcc - kcw) p^2 (1 - p) for raw reward: kcc, kcw mean sequence kernels over pairs of leaves.

    Exact here, since the leaves of a class are alike: kcc then includes each response with itself.
    """
    tree = synthetic_tree(0.1, correct=3, wrong=7, within=4.0, own=0.5, **fields)
    kernel, right = tree.sequence_kernel(), tree.reward > 0
    gap = kernel[np.ix_(right, right)].mean() - kernel[np.ix_(right, ~right)].mean()
    for kind in (ParticleArms, TreeArms):
        got = expected_step(kind.from_tree(tree), make_rule(1e-6)) / 1e-6
        assert got == pytest.approx(gap * 0.1**2 * 0.9, rel=1e-4)


def test_every_knob_of_a_synthetic_tree_changes_the_curve(make_rule):
    """Those that keep the tree's shape, in one compiled call; the others change its masses."""
    base = {"p0": 0.2, "correct": 2, "wrong": 6, "depth": 2, "own": 1.0}
    base |= {"within": 1.0, "cross": 0.5, "wrong_overlap": 1.0, "near": 4}
    knobs = [("p0", 0.3), ("own", 2.0), ("within", 2.0), ("cross", 0.2), ("wrong_overlap", 2.0), ("near", 5)]
    trees = [synthetic_tree(**(base | {name: value})) for name, value in [("p0", 0.2), *knobs]]
    cases = [(TreeArms.from_tree(tree), make_rule(0.5)) for tree in trees]
    first, *others = simulate_grid(cases, 20, 8, 0, observe=("success",))
    for (name, _), other in zip(knobs, others, strict=True):
        assert np.abs(first["success"] - other["success"]).max() > 1e-3, name
    other = [synthetic_tree(**(base | change)) for change in ({"correct": 3}, {"wrong": 7}, {"depth": 3})]
    assert len({tuple(tree.leaf_probability()) for tree in [trees[0], *other]}) == 4
