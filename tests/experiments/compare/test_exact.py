"""The enumerable model in float64 judges the forecast: no sampling, no cut, no rest, no tail."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import pytest
import torch

from bandit_sim import TreeArms, expected_step, replay, simulate
from experiments.compare.exact import Enumerated, enumerate_model
from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import repeat
from llm_bridge.rollouts.asked import Question
from llm_bridge.train import Trainer
from theory.rules.dialects import preset
from theory.trees.probe import Probe
from theory.trees.response_tree import ResponseTree

QUERY, ANSWER = "3+4=", "7"


@pytest.fixture(scope="module")
def whole() -> Enumerated:
    model = load_model("tiny-arithmetic", dtype="float64")
    spec = AdapterSpec(rank=2, blocks=1)
    return enumerate_model(model, QUERY, lambda t: float(model.decode(list(t)) == ANSWER), 3, spec)


@pytest.fixture(scope="module")
def probe(whole: Enumerated) -> Probe:
    return whole.probe()


@pytest.fixture(scope="module")
def tree(probe: Probe) -> ResponseTree:
    return probe.tree()


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def test_enumeration_is_complete(whole: Enumerated) -> None:
    # 14 tokens of which one ends: 1 + 13 + 13^2 ended within three tokens... plus 13^3 cut at the limit,
    # where the third token is any of 14: 1 + 13 + 169 * 14.
    assert len(whole.responses.tokens) == 1 + 13 + 13 * 13 * 14
    assert whole.responses.mass.sum() == pytest.approx(1, abs=1e-12)


def test_whole_tree_holds_p0_exactly(whole: Enumerated, probe: Probe, tree: ResponseTree) -> None:
    assert tree.success() == pytest.approx(whole.success(), rel=1e-12)
    assert not probe.layout.tails
    assert all(edge.kind != "rest" for edge in probe.layout.edges)


def test_scores_are_centred_at_every_node(tree: ResponseTree) -> None:
    nodes = np.unique(tree.node)
    pull = tree.kernel @ np.where(tree.node[:, None] == nodes, tree.probability[:, None], 0)
    assert np.abs(pull).max() < 1e-9 * np.abs(tree.kernel).max()


def test_expected_step_equals_the_exact_one_and_its_error_is_linear_in_eta(
    whole: Enumerated, tree: ResponseTree, x64: None
) -> None:
    arms = TreeArms.from_tree(tree)
    errors = []
    for eta in (1e-2, 1e-3, 1e-4):
        exact = whole.expected_step(eta)
        errors.append(abs(expected_step(arms, preset("minimalist", eta=eta)) / exact - 1))
    assert errors[-1] < 1e-4
    slopes = np.diff(np.log(errors)) / np.log(0.1)
    # The leading error of a linearisation is first order in eta (relative to the step); it may be smaller by
    # symmetry, never larger.
    assert np.all(slopes > 0.8)


def test_trajectory_equals_the_network_with_linearised_logits(
    whole: Enumerated, probe: Probe, tree: ResponseTree, x64: None
) -> None:
    """Same draws, parameter space against kernel space: logits(theta) = logits(0) + J theta, SGD on theta."""
    jacobian, logits = _logit_jacobian(whole)
    prefixes = list(logits)
    rng = np.random.default_rng(0)
    responses, eta, rounds = whole.responses, 0.05, 40
    right = np.flatnonzero(responses.rewards > 0)
    picks = np.where(
        rng.random(rounds) < 0.5,
        rng.choice(right, rounds),
        rng.choice(len(responses.tokens), rounds, p=responses.mass / responses.mass.sum()),
    )
    theta = np.zeros(next(iter(jacobian.values())).shape[1])
    expected = []
    for pick in picks:
        policy = {n: _softmax(logits[n] + jacobian[n] @ theta) for n in prefixes}
        expected.append(sum(np.prod([policy[y[:t]][y[t]] for t in range(len(y))]) for y in _right(whole)))
        if responses.rewards[pick] > 0:
            y = responses.tokens[pick]
            for t in range(len(y)):
                theta = theta + eta * (jacobian[y[:t]][y[t]] - policy[y[:t]] @ jacobian[y[:t]])
    leaves = np.array([probe.leaf_of(responses.tokens[i], responses.rewards[i]) for i in picks])
    got = replay(
        TreeArms.from_tree(tree),
        preset("minimalist", eta=eta),
        leaves[None, :, None],
        responses.rewards[picks][None, :, None],
    )
    assert expected[-1] > 1.2 * expected[0]
    np.testing.assert_allclose(got[0], expected, rtol=1e-9)


def test_forecast_mean_is_within_two_standard_errors_of_256_replicas(
    whole: Enumerated, tree: ResponseTree
) -> None:
    """At least 95% of rounds; a right forecast misses a round with probability .05, so more than 3 of 30
    misses would come up with probability .06 (binomial), and this seed is fixed.

    What the forecast itself errs, its p being exact in each of its seeds, is next to nothing of what outcomes err."""
    rule, rounds, replicas = preset("minimalist", eta=0.003), 30, 256
    right = set(_right(whole))
    trainer = Trainer(
        whole.split,
        [Question(whole.prompt.tokens, lambda t: float(t in right), (12,))],
        rule,
        replicas=replicas,
        max_tokens=3,
        seed=1,
    )
    outcomes = np.stack([turn.rewards for turn in trainer.run(rounds)], axis=1)
    curves = simulate(TreeArms.from_tree(tree), rule, rounds, 256, 0, observe=["success"])
    error = np.sqrt(outcomes.var(axis=0) / replicas)
    assert (curves["success"].std(axis=0) < 0.1 * outcomes.std(axis=0)).all()
    inside = np.abs(outcomes.mean(axis=0) - curves.mean("success")) <= 2 * error
    assert inside.mean() >= 0.95
    assert curves.mean("success")[-1] > curves.mean("success")[0] + 3 * error[-1], "no learning, no test"


def _right(whole: Enumerated) -> list[tuple[int, ...]]:
    return [t for t, r in zip(whole.responses.tokens, whole.responses.rewards, strict=True) if r > 0]


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def _logit_jacobian(whole: Enumerated) -> tuple[dict, dict]:
    """d logits / d theta at the base model for every prefix, one backward pass per logit: (V, P) each."""
    prefixes = sorted(
        {t[:d] for t in whole.responses.tokens for d in range(len(t))}, key=lambda p: (len(p), p)
    )
    jacobian, logits = {}, {}
    split, prompt = whole.split, whole.prompt
    for prefix in prefixes:
        factors = split.adapters.fresh(whole.vocabulary)
        leaves = split.adapters.trainable(factors)
        hidden = prompt.hidden
        if prefix:
            more, _ = split.trunk.run(torch.tensor([prefix]), past=repeat(prompt.past, 1))
            hidden = torch.cat([hidden, more], dim=1)
        with split.adapters.use(factors):
            out = split.head.forward(hidden.expand(whole.vocabulary, -1, -1))
        values = split.logits(out[:, -1])
        grads = torch.autograd.grad(values.diagonal().sum(), leaves)
        jacobian[prefix] = torch.cat([g.reshape(whole.vocabulary, -1) for g in grads], dim=1).numpy()
        logits[prefix] = values[0].detach().numpy()
    return jacobian, logits
