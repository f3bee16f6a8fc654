"""The kernel engines: identity kernel is the dense engine, depth one is the sequence kernel, brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit_sim import Arms, ParticleArms, TreeArms, expected_step, replay, simulate
from bandit_sim.engines import tree_kernel
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree


def depth_one(mass, reward, kernel):
    count = len(mass)
    return ResponseTree(
        node=np.zeros(count, dtype=int),
        probability=mass,
        path=np.eye(count, dtype=int),
        reward=reward,
        depth=np.zeros(count, dtype=int),
        length=np.ones(count),
        kernel=kernel,
    )


@pytest.mark.parametrize(("signal", "rollouts"), [("raw", 1), ("leave_one_out", 4)])
@pytest.mark.usefixtures("x64")
def test_identity_kernel_is_the_dense_engine(make_rule, signal, rollouts):
    rng = np.random.default_rng(0)
    mass, reward = rng.dirichlet(np.ones(6)), np.array([1.0, 0, 0, 1, 0, 0])
    rule = make_rule(0.5, signal, rollouts)
    a = simulate(Arms(np.log(mass), reward), rule, 60, 8, 3)
    b = simulate(ParticleArms(mass, reward, np.eye(6)), rule, 60, 8, 3)
    for name in ("success", "reward"):
        assert np.abs(a[name] - b[name]).max() < 1e-13


@pytest.mark.parametrize(("signal", "rollouts"), [("raw", 1), ("leave_one_out", 4)])
@pytest.mark.usefixtures("x64")
def test_a_tree_of_depth_one_is_the_sequence_kernel(make_rule, signal, rollouts):
    rng = np.random.default_rng(0)
    mass, reward = rng.dirichlet(np.ones(6)), np.array([1.0, 0, 0, 1, 0, 0])
    root = rng.normal(size=(6, 3))
    tree = depth_one(mass, reward, root @ root.T)
    rule = make_rule(0.1, signal, rollouts)
    a = simulate(ParticleArms.from_tree(tree), rule, 60, 8, 3)
    b = simulate(TreeArms.from_tree(tree), rule, 60, 8, 3)
    for name in ("success", "reward"):
        assert np.abs(a[name] - b[name]).max() < 1e-12


@pytest.mark.parametrize(("signal", "rollouts"), [("raw", 1), ("raw", 4), ("leave_one_out", 4)])
@pytest.mark.usefixtures("x64")
def test_tree_kernel_equals_parameter_space_sgd_of_a_linear_token_model(
    make_rule, token_model, signal, rollouts
):
    """Logits linear in theta: node softmaxes of f = J theta and SGD on theta, scores explicit, 50 rounds."""
    for seed in range(3):
        model, eta = token_model(seed), 0.05
        rng = np.random.default_rng(seed + 100)
        choices = rng.integers(0, len(model.leaves), size=(2, 50, rollouts))
        rewards = model.reward[choices]
        wanted = np.zeros((2, 50))
        for s in range(2):
            theta = model.theta.copy()
            for t in range(50):
                wanted[s, t] = model.success(theta)
                g, r = model.scores(theta), rewards[s, t]
                others = 0.0 if signal == "raw" else (r.sum() - r) / (rollouts - 1)
                weights = (r - others) / rollouts
                pulls = zip(weights, choices[s, t], strict=True)
                theta = theta + eta * sum(w * g[model.leaves[a]].sum(axis=0) for w, a in pulls)
        got = replay(TreeArms.from_tree(model.tree()), make_rule(eta, signal, rollouts), choices, rewards)
        assert np.ptp(wanted) > 0.05
        assert np.abs(got - wanted).max() < 1e-10


@pytest.mark.usefixtures("x64")
def test_expected_step_is_the_squared_gradient_of_p_as_eta_falls(make_rule, token_model):
    model = token_model(4)
    leaf, g = model.leaf_probability(model.theta), model.scores(model.theta)
    gradient = sum(q * r * g[e].sum(axis=0) for q, r, e in zip(leaf, model.reward, model.leaves, strict=True))
    for eta in (1e-3, 1e-4, 1e-5):
        error = (
            expected_step(TreeArms.from_tree(model.tree()), make_rule(eta)) / (eta * gradient @ gradient) - 1
        )
        assert abs(error) < 100 * eta


@pytest.mark.usefixtures("x64")
def test_policy_of_a_tree_is_that_of_the_response_tree(token_model):
    tree = token_model(1).tree()
    arms = TreeArms.from_tree(tree)
    f = np.random.default_rng(0).normal(size=len(tree.node)) * 3
    state = tree_kernel.init(arms) + f
    assert np.abs(np.exp(tree_kernel.log_probabilities(arms, state)) - tree.leaf_probability(f)).max() < 1e-14
    assert float(tree_kernel.success(arms, state)) == pytest.approx(tree.success(f), abs=1e-14)
    every = jnp.arange(len(tree.reward))
    logs, mask = tree_kernel.token_logprobs(arms, state, every)
    assert np.abs(np.exp(logs.sum(axis=1)) - tree.leaf_probability(f)).max() < 1e-14
    assert (np.asarray(mask).sum(axis=1) == tree.length).all()


@pytest.mark.usefixtures("x64")
def test_token_weights_move_the_edges_of_their_depth(token_model):
    model = token_model(2)
    tree = model.tree()
    arms = TreeArms.from_tree(tree)
    rng = np.random.default_rng(3)
    leaf = int(np.argmax(tree.length))
    weights = rng.normal(size=(1, arms.start.shape[1]))
    got = tree_kernel.direction(arms, tree_kernel.init(arms), jnp.array([leaf]), jnp.asarray(weights))
    g = model.scores(model.theta)
    moved = sum(weights[0, t] * g[e] for t, e in enumerate(model.leaves[leaf]))
    assert np.abs(np.asarray(got) - g @ moved).max() < 1e-12


@pytest.mark.usefixtures("x64")
def test_a_tail_takes_the_mean_weight_of_its_tokens_and_shares_its_log_probability():
    """Leaf 0: a rest edge and its class, both of depth 0, carry all three tokens."""
    tree = ResponseTree(
        node=np.array([0, 0, 1, 1]),
        probability=np.array([0.6, 0.4, 0.25, 0.75]),
        path=np.array([[0, 1, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0]]),
        reward=np.array([1.0, 0, 0]),
        depth=np.array([0, 0, 0, 0]),
        length=np.array([3.0, 2, 1]),
        kernel=np.eye(4),
    )
    arms = TreeArms.from_tree(tree)
    state = tree_kernel.init(arms)
    logs, mask = tree_kernel.token_logprobs(arms, state, jnp.arange(3))
    assert np.allclose(logs[0], np.log(0.1) / 3) and np.allclose(logs[1], [np.log(0.3) / 2] * 2 + [0])
    assert np.allclose(logs[2], [np.log(0.6), 0, 0]) and mask.sum() == 6
    got = tree_kernel.direction(arms, state, jnp.array([0]), jnp.array([[1.0, 2.0, 6.0]]))
    assert np.allclose(got, 3 * np.array([-0.6, 0.6, 0.75, -0.75]))


def test_impossible_edges_stay_impossible_and_nothing_becomes_nan(make_rule):
    mass, reward = np.array([0.5, 0.0, 0.5]), np.array([1.0, 1.0, 0.0])
    tree = depth_one(mass, reward, np.ones((3, 3)) + np.eye(3))
    for arms in (Arms.from_masses(mass, reward), ParticleArms.from_tree(tree), TreeArms.from_tree(tree)):
        curves = simulate(arms, make_rule(0.5, "leave_one_out", 2), 30, 8, 0)
        assert np.isfinite(curves["success"]).all() and curves["success"][:, 0] == pytest.approx(0.5)
        assert expected_step(arms, make_rule()) > 0


def test_huge_steps_stay_in_range(make_rule, token_model):
    curves = simulate(TreeArms.from_tree(token_model(0).tree()), make_rule(1e4), 20, 8, 0)
    assert np.isfinite(curves["success"]).all()
    assert curves["success"].min() >= 0 and curves["success"].max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", [ParticleArms, TreeArms])
def test_adam_is_refused_by_the_kernel_engines(make_rule, token_model, kind):
    rule = make_rule(optimiser={"kind": "adam", "eta": 0.1})
    with pytest.raises(Refusal, match="Adam acts on parameters, the kernel carries function values; use"):
        simulate(kind.from_tree(token_model(0).tree()), rule, 2, 2, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic_follows_the_kernel_where_jax_allows(token_model, dtype):
    tree = token_model(0).tree()
    with jax.enable_x64(True):
        arms = TreeArms.from_tree(
            ResponseTree(
                **{n: getattr(tree, n) for n in tree.__dataclass_fields__}
                | {"kernel": tree.kernel.astype(dtype)}
            )
        )
        assert tree_kernel.success(arms, tree_kernel.init(arms)).dtype == dtype
    assert tree_kernel.success(arms, tree_kernel.init(arms)).dtype == np.float32
