import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim import Arms, ParticleArms, TreeArms
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree


@given(arms=st.integers(2, 300), share=st.floats(0.01, 0.99), p0=st.floats(1e-6, 0.999))
def test_two_class_holds_p0_in_the_correct_arms_and_one_in_all(arms, share, p0):
    correct = min(max(1, int(share * arms)), arms - 1)
    made = Arms.two_class(arms=arms, correct=correct, p0=p0)
    mass = np.exp(made.logits)
    assert mass.sum() == pytest.approx(1, rel=1e-12)
    assert mass @ made.reward == pytest.approx(p0, rel=1e-12)
    assert made.reward.sum() == correct
    assert len(np.unique(mass[made.reward > 0])) == 1


@given(scale=st.floats(1e-3, 1e3))
def test_masses_are_normalised(scale):
    made = Arms.from_masses(scale * np.array([1.0, 3.0, 0.0]), [0, 1, 0])
    assert np.allclose(np.exp(made.logits), [0.25, 0.75, 0.0], rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Arms.from_masses([1, 1, 1], [0, 1, np.nan]), r"reward of arm 2 is nan"),
        (lambda: Arms(np.zeros(2), np.array([np.nan, 1.0])), r"reward of arm 0 is nan"),
        (lambda: ParticleArms(np.ones(2), np.array([0, np.nan]), np.eye(2)), r"reward of arm 1 is nan"),
        (
            lambda: ParticleArms(np.ones(2), np.ones(2), np.eye(3)),
            r"kernel has shape \(3, 3\), expected \(2, 2\)",
        ),
        (lambda: ParticleArms(np.ones(2), np.ones(2), np.full((2, 2), np.inf)), r"kernel holds a value"),
        (lambda: Arms.from_masses([1, -1], [0, 1]), r"mass of arm 1 is -1"),
        (lambda: Arms.from_masses([0, 0], [0, 1]), r"masses sum to 0"),
        (lambda: Arms.from_masses([1, 1], [0, 1, 1]), r"reward has shape \(3,\), expected \(2,\)"),
        (lambda: Arms(np.array([0.0, np.nan]), np.ones(2)), r"logit of arm 1 is nan"),
        (lambda: Arms(np.array([-np.inf, -np.inf]), np.ones(2)), r"no arm has a finite logit"),
        (lambda: Arms.two_class(arms=3, correct=3, p0=0.1), r"correct = 3 of arms = 3"),
        (lambda: Arms.two_class(arms=3, correct=1, p0=1.0), r"p0 = 1.0"),
    ],
)
def test_bad_arms_are_named(build, message):
    with pytest.raises(Refusal, match=message):
        build()


def test_tree_arms_name_the_leaf_with_a_bad_reward(token_model):
    tree = dataclasses.replace(token_model(0).tree(), reward=np.full(len(token_model(0).leaves), np.nan))
    with pytest.raises(Refusal, match="reward of arm 0 is nan"):
        TreeArms.from_tree(tree)


def test_arms_pass_through_jax_as_trees(token_model):
    tree = token_model(0).tree()
    for arms in (
        Arms.two_class(arms=4, correct=1, p0=0.2),
        ParticleArms.from_tree(tree),
        TreeArms.from_tree(tree),
    ):
        again = jax.jit(lambda a: a)(arms)
        assert type(again) is type(arms)
        assert jax.tree.structure(again) == jax.tree.structure(arms)


def tailed_tree() -> ResponseTree:
    """At the root edge 0 and its rest 1; classes 2, 3 of that rest (same tokens); 4, 5 behind edge 0."""
    return ResponseTree(
        node=np.array([0, 0, 1, 1, 2, 2]),
        probability=np.array([0.6, 0.4, 0.25, 0.75, 0.5, 0.5]),
        path=np.array([[0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]]),
        reward=np.array([1.0, 0, 1, 0]),
        depth=np.array([0, 0, 0, 0, 1, 1]),
        length=np.array([3.0, 2.4, 2.0, 4.0]),
        kernel=np.eye(6),
    )


def test_tokens_of_a_tree_are_shared_by_the_edges_that_span_them():
    arms = TreeArms.from_tree(tailed_tree())
    assert arms.start.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1]]
    assert arms.span.tolist() == [[3, 3, 3, 0], [2, 2, 0, 0], [1, 1, 0, 0], [1, 3, 3, 3]]
    assert TreeArms.from_tree(tailed_tree(), tokens=7).span.shape == (4, 7)
    with pytest.raises(Refusal, match="tokens = 3, but a response has 4"):
        TreeArms.from_tree(tailed_tree(), tokens=3)


def test_labels_and_order_of_edges_do_not_matter(token_model):
    tree = token_model(3).tree()
    order = np.random.default_rng(0).permutation(len(tree.node))
    shuffled = ResponseTree(
        node=(100 - 7 * tree.node)[order],
        probability=tree.probability[order],
        path=tree.path[:, order],
        reward=tree.reward,
        depth=tree.depth[order],
        length=tree.length,
        kernel=tree.kernel[np.ix_(order, order)],
    )
    a, b = TreeArms.from_tree(tree), TreeArms.from_tree(shuffled)
    assert (a.start == b.start).all() and (a.span == b.span).all()
    assert np.allclose(a.path @ np.log(a.probability), b.path @ np.log(b.probability))
    assert np.allclose(a.path @ a.kernel @ a.path.T, b.path @ b.kernel @ b.path.T)
