"""The scored tree: under SGD the tree kernel; under Adam what torch's own AdamW does to the same parameters."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from bandit_sim import ScoredTree, TreeArms, forest, replay, replay_asked, simulate
from theory.refusal import Refusal
from theory.rules import Adam, Rule, preset
from theory.trees.response_tree import ResponseTree

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(6, 9))
TREE = ResponseTree(
    node=np.array([0, 1, 0, 1, 0, 1]),  # not by node, so that the order of edges is seen
    probability=np.array([0.5, 0.2, 0.3, 0.5, 0.2, 0.3]),
    path=np.array([[1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]]),
    reward=np.array([1.0, 0.0, 0.0, 1.0, 0.0]),
    depth=np.array([0, 1, 0, 1, 0, 1]),
    length=np.array([2.0, 2.0, 2.0, 1.0, 1.0]),
    kernel=SCORES @ SCORES.T,
)  # fmt: skip


def test_under_sgd_it_is_the_tree_kernel() -> None:
    rule = preset("rloo", eta=0.02, rollouts=3)
    with jax.enable_x64(True):
        kernel, scored = (
            simulate(arms, rule, 12, 8, 1)["success"]
            for arms in (TreeArms.from_tree(TREE), ScoredTree.from_tree(TREE, SCORES))
        )
    np.testing.assert_allclose(scored, kernel, rtol=1e-9)
    assert np.std(kernel[:, -1]) > 0


def test_a_sample_of_parameters_stands_for_its_share() -> None:
    """Every parameter twice, half of them held: f is that of all."""
    rule = preset("rloo", eta=0.02, rollouts=3)
    twice = np.concatenate([SCORES, SCORES], axis=1)
    with jax.enable_x64(True):
        whole, half = (
            simulate(ScoredTree.from_tree(TREE, own, share), rule, 12, 8, 1)["success"]
            for own, share in ((twice, 1.0), (SCORES, 0.5))
        )
    np.testing.assert_allclose(half, whole, rtol=1e-9)


def test_under_adam_it_is_torch_on_the_linearised_policy() -> None:
    """Autograd of w log pi(leaf) at logits log p + G theta, and torch.optim.AdamW with decay, on the same draws."""
    adam = Adam(eta=0.05, weight_decay=0.1, beta2=0.99)
    rng = np.random.default_rng(3)
    leaves, rewards = rng.integers(0, 5, (1, 10, 1)), rng.integers(0, 2, (1, 10, 1)).astype(float)
    with jax.enable_x64(True):
        got = replay(
            ScoredTree.from_tree(TREE, SCORES), Rule(optimiser=adam), leaves, rewards
        )[0]  # fmt: skip
    theta = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.AdamW(
        [theta], lr=0.05, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, maximize=True
    )
    for t in range(10):
        f = (torch.from_numpy(SCORES) @ theta).detach().numpy()
        assert got[t] == pytest.approx(TREE.success(f), rel=1e-9)
        logits = torch.from_numpy(np.log(TREE.probability)) + torch.from_numpy(SCORES) @ theta
        node = torch.from_numpy(TREE.node)
        logs = logits - torch.stack([logits[node == n].logsumexp(0) for n in (0, 1)])[node]
        theta.grad = None
        (rewards[0, t, 0] * (torch.from_numpy(TREE.path[leaves[0, t, 0]]) * logs).sum()).backward()
        optimiser.step()
    assert got.std() > 0.02


def test_sequences_are_a_tree_of_one_node() -> None:
    flat = TREE.as_sequences()
    assert flat.success() == pytest.approx(TREE.success())
    np.testing.assert_allclose(flat.kernel, TREE.sequence_kernel())


def test_scores_of_other_edges_and_an_impossible_share_are_named() -> None:
    with pytest.raises(Refusal, match=r"scores has shape \(5, 9\)|scores"):
        ScoredTree(TreeArms.from_tree(TREE), SCORES[:5])
    with pytest.raises(Refusal, match=r"share = 0; give what part"):
        ScoredTree.from_tree(TREE, SCORES, 0)


def test_a_forest_under_adam_is_one_theta_for_all_queries() -> None:
    """Two queries of the same scores, both in the batch, paid alike: each goes where the tree alone does."""
    rule = Rule(optimiser=Adam(eta=0.05))
    rng = np.random.default_rng(3)
    leaves, rewards = rng.integers(0, 5, (2, 10, 1)), rng.integers(0, 2, (2, 10, 1)).astype(float)
    with jax.enable_x64(True):
        one = replay(ScoredTree.from_tree(TREE, SCORES), rule, leaves, rewards)
        both = forest([TREE, TREE], scores=np.concatenate([SCORES, SCORES]), training=2, batch=2)
        two = replay_asked(
            both, rule, np.concatenate([leaves, leaves + 5], axis=2), np.repeat(rewards, 2, axis=2)
        )
        apart = forest([TREE, TREE], scores=np.concatenate([SCORES, 0 * SCORES]), training=1)
        seen = simulate(apart, rule, 12, 8, 1, observe=("success", "held_out"))
    np.testing.assert_allclose(two, np.repeat(one[..., None], 2, axis=2), rtol=1e-9)
    assert np.std(one) > 0.02
    np.testing.assert_allclose(seen["held_out"], TREE.success(), rtol=1e-12)
    assert np.std(seen["success"][:, -1]) > 0


def test_under_sgd_a_scored_forest_is_the_forest_of_its_kernel() -> None:
    """Draw by draw, one training query of two in a round and a third held out."""
    rule = preset("rloo", eta=0.02, rollouts=3)
    scores = np.random.default_rng(1).normal(size=(18, 9))
    names = ("success", "held_out", "reward", "entropy")
    with jax.enable_x64(True):
        kernel, scored = (
            simulate(arms, rule, 12, 8, 1, observe=names)
            for arms in (
                forest([TREE] * 3, scores @ scores.T / 0.5, training=2),
                forest([TREE] * 3, scores=scores, share=0.5, training=2),
            )
        )
    for name in names:
        np.testing.assert_allclose(scored[name], kernel[name], rtol=1e-9, err_msg=name)
    assert np.std(kernel["held_out"][:, -1]) > 0
