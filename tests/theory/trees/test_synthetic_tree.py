"""Synthetic response trees: their masses, scores that average to zero, and overlaps that features can have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.refusal import Refusal
from theory.trees.synthetic_tree import centred, check_gram, overlap_kernel, synthetic_tree, tabular_kernel


@given(p0=st.floats(0.01, 0.99), correct=st.integers(1, 4), depth=st.integers(1, 4), more=st.integers(0, 5))
def test_the_tree_has_the_success_asked_for_and_centred_scores(p0, correct, depth, more):
    """sum pi g = 0 at every node, so that K pi_n = 0 for the vector pi_n of each node; K is a Gram matrix."""
    tree = synthetic_tree(
        p0, correct=correct, wrong=depth + more, depth=depth, within=1.0, cross=0.3, wrong_overlap=0.5
    )
    assert tree.success() == pytest.approx(p0)
    assert tree.reward.sum() == correct and len(tree.reward) == correct + depth + more
    assert tree.length[:correct] == pytest.approx(depth) and tree.length.min() == 1
    for node in range(depth):
        assert np.abs(tree.kernel @ np.where(tree.node == node, tree.probability, 0)).max() < 1e-12
    check_gram("kernel", tree.kernel)


def test_a_tree_of_two_tokens_by_hand():
    """p0 = .25: go on with .5, then correct with .5; wrong responses 0 and 2 stray at the first token."""
    tree = synthetic_tree(0.25, wrong=3, depth=2)
    assert tree.leaf_probability() == pytest.approx([0.25, 0.25, 0.5 * 0.5, 0.25])
    assert tree.path.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert tree.length.tolist() == [2, 1, 2, 1]


def test_overlap_kernel_by_hand():
    kernel = overlap_kernel([1, 1, 0, 0], own=2.0, within=1.0, cross=0.5, wrong=0.25, near=1)
    assert kernel.tolist() == [[3, 1, 0.5, 0], [1, 3, 0.5, 0], [0.5, 0.5, 2.25, 0], [0, 0, 0, 2]]


def test_tabular_kernel_is_that_of_logit_scores():
    """g_v = 1_v - pi at the edge's own node, written out."""
    node, pi = np.array([0, 0, 0, 1, 1]), np.array([0.2, 0.3, 0.5, 0.6, 0.4])
    scores = np.eye(5) - np.where(node[:, None] == node, pi, 0)
    assert np.abs(tabular_kernel(node, pi) - scores @ scores.T).max() < 1e-15
    phi = np.random.default_rng(0).normal(size=(5, 3))
    by_hand = phi - np.stack([pi[node == n] @ phi[node == n] for n in node])
    assert np.abs(centred(phi @ phi.T, node, pi) - by_hand @ by_hand.T).max() < 1e-13


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"p0": 1.0}, r"p0 = 1\.0"),
        ({"wrong": 1, "depth": 2}, "one wrong response per token"),
        ({"cross": 3.0}, "no features have these inner products"),
        ({"near": 5}, "near = 5 of 4"),
        ({"near": 0, "cross": 0.1}, "change nothing with near = 0"),
    ],
)
def test_what_no_model_can_have_is_refused(fields, message):
    with pytest.raises(Refusal, match=message):
        synthetic_tree(**({"p0": 0.2, "wrong": 4} | fields))
    with pytest.raises(Refusal, match="not finite and symmetric"):
        check_gram("kernel", np.array([[1.0, 0.5], [0.1, 1.0]]))
