"""The token tree: against the dense engine, the tree kernel, a NumPy loop, and the gradient of p; restarts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bandit_sim import Arms, TokenTree, TreeArms, expected_step, replay, simulate
from bandit_sim.engines import tree
from bandit_sim.rounds.keys import rollout_keys, root_key
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.trees.response_tree import ResponseTree
from theory.trees.synthetic_tree import tabular_kernel


def even(tokens):
    """True reward 1 where the sum of the tokens is even."""
    return float(sum(tokens) % 2 == 0)


def softmax(rows):
    weight = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("signal", "rollouts"), [("raw", 1), ("leave_one_out", 4)])
@pytest.mark.usefixtures("x64")
def test_a_tree_of_depth_one_is_the_dense_engine(make_rule, signal, rollouts):
    mass = np.random.default_rng(0).dirichlet(np.ones(6))
    rule, reward = make_rule(0.5, signal, rollouts), np.array([even((v,)) for v in range(6)])
    a = simulate(Arms.from_masses(mass, reward), rule, 40, 8, 3)
    b = simulate(TokenTree.grow(mass, 1, even), rule, 40, 8, 3)
    for name in ("success", "reward"):
        assert np.abs(a[name] - b[name]).max() < 1e-13


RULES = [
    {"signal": {"kind": "raw"}},
    {"signal": {"kind": "leave_one_out"}, "rollouts": 4, "aggregation": {"kind": "token_mean"}},
    {"aggregation": {"kind": "sequence_mean_token_mean"}, "kl": {"kind": "k3", "beta": 0.1}, "rollouts": 2},
]


@pytest.mark.parametrize("fields", RULES)
@pytest.mark.usefixtures("x64")
def test_it_is_the_tree_kernel_of_free_logits(token_model, fields):
    """K = blockdiag (I - 1 pi^T)(I - pi 1^T): the same curve from the same draws, whatever the token weights."""
    model = token_model(1)
    measured = model.tree()
    free = ResponseTree(
        **{k: getattr(measured, k) for k in ("node", "probability", "path", "reward", "depth", "length")},
        kernel=tabular_kernel(measured.node, measured.probability),
    )
    rule = Rule.model_validate({"optimiser": {"kind": "sgd", "eta": 0.4}} | fields)
    rng = np.random.default_rng(0)
    choices = rng.integers(0, len(model.leaves), size=(3, 30, rule.rollouts))
    paid = model.reward[choices]
    a = replay(TokenTree.from_tree(measured), rule, choices, paid)
    b = replay(TreeArms.from_tree(free), rule, choices, paid)
    assert np.abs(a - b).max() < 1e-12 and np.ptp(a) > 0.1


@pytest.mark.parametrize("aggregation", ["sequence_sum", "token_mean"])
@pytest.mark.usefixtures("x64")
def test_trajectory_equals_a_numpy_loop_over_node_logits(make_rule, aggregation):
    arms = TokenTree.random(3, 4, 5, even)
    rule = make_rule(0.3, rollouts=3, aggregation={"kind": aggregation})
    choices = np.random.default_rng(1).integers(0, len(arms.reward), size=(2, 40, 3))
    wanted = np.zeros((2, 40))
    for s in range(2):
        theta = arms.logits.copy()
        for t in range(40):
            pi, mass = softmax(theta), np.ones(len(arms.reward))
            for leaf in range(len(mass)):
                for k in range(arms.length[leaf]):
                    mass[leaf] *= pi[arms.node[leaf, k], arms.token[leaf, k]]
            wanted[s, t] = mass @ arms.reward
            count = arms.length[choices[s, t]].sum() if aggregation == "token_mean" else 3
            for leaf in choices[s, t]:
                for k in range(arms.length[leaf]):
                    node, token = arms.node[leaf, k], arms.token[leaf, k]
                    theta[node] += 0.3 * arms.reward[leaf] / count * ((np.arange(3) == token) - pi[node])
    assert np.abs(replay(arms, rule, choices, arms.reward[choices]) - wanted).max() < 1e-12


@settings(max_examples=4)  # every shape compiles anew
@given(seed=st.integers(0, 2**31), skip=st.booleans())
def test_rollouts_of_all_leaves_average_to_the_gradient(seed, skip):
    """E[r grad log pi] = grad p by autodiff over every node's logits, and E[grad log pi] = 0.

    Rollouts from a prefix climb the success given that prefix.
    """
    with jax.enable_x64(True):
        arms = TokenTree.random(3, 3, seed, even)
        arms = arms.starting((1,)) if skip else arms
        state = tree.init(arms)
        mass = jnp.exp(tree.log_probabilities(arms, state))
        assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
        everything = jnp.arange(len(arms.reward))
        weights = (mass[:, None] * arms.reward[:, None]) * jnp.ones(arms.node.shape[1] - arms.skip)

        def p(state):
            return jnp.exp(tree.log_probabilities(arms, state)) @ arms.reward

        got = tree.direction(arms, state, everything, weights)
        assert np.abs(got - jax.grad(p)(state)).max() < 1e-13
        flat = tree.direction(arms, state, everything, jnp.broadcast_to(mass[:, None], weights.shape))
        assert np.abs(flat).max() < 1e-13


@pytest.mark.usefixtures("x64")
def test_expected_step_is_eta_times_the_squared_gradient(make_rule):
    """dp/dt = eta |grad p|^2 for the tabular tree, up to O(eta)."""
    arms = TokenTree.random(3, 3, 0, even)
    slope = jax.grad(lambda state: tree.success(arms, state))(tree.init(arms))
    assert expected_step(arms, make_rule(1e-5)) / 1e-5 == pytest.approx(float(slope @ slope), rel=1e-3)


@pytest.mark.usefixtures("x64")
def test_leaves_are_drawn_with_their_probability_token_by_token():
    """Chi-square over 20,000 keys; false-alarm rate 1e-4 over the choice of key. From a prefix as well."""
    for arms in (TokenTree.random(3, 3, 2, even), TokenTree.random(3, 3, 2, even).starting((2, 1))):
        state = tree.init(arms)
        drawn = jax.jit(lambda k, arms=arms, state=state: tree.sample(arms, state, k, k, k))(
            rollout_keys(root_key(0), 0, 1, 20_000, 20_000)
        )
        mass = np.exp(tree.log_probabilities(arms, state))
        counts, possible = np.bincount(drawn, minlength=len(mass)), mass > 0
        assert counts[~possible].sum() == 0
        assert stats.chisquare(counts[possible], 20_000 * mass[possible]).pvalue > 1e-4


def test_leaves_lengths_and_masks_follow_the_end_token():
    arms = TokenTree.grow([[0.5, 0.5, 0], [0.25, 0.25, 0.5]], 2, even, end=0)
    responses = [tuple(row[:n].tolist()) for row, n in zip(arms.token, arms.length, strict=True)]
    assert responses == [(0,), (1, 0), (1, 1), (1, 2)] == sorted(responses)
    assert arms.reward.tolist() == [1, 0, 1, 0]
    logs, mask = tree.token_logprobs(arms, tree.init(arms), jnp.arange(4))
    assert mask.tolist() == [[1, 0], [1, 1], [1, 1], [1, 1]]
    assert np.exp(logs.sum(axis=1)) == pytest.approx([0.5, 0.125, 0.125, 0.25])


def test_greedy_decodes_token_by_token():
    """The likeliest token leads away from the likeliest response: .6 (three ways on) against .4."""
    arms = TokenTree.grow(lambda prefix: [0.4, 0.6, 0] if not prefix else [0.3, 0.3, 0.4], 2, even)
    best = tree.greedy(arms, tree.init(arms), jnp.zeros(3, jnp.int32))
    assert [tuple(arms.token[i]) for i in best] == [(1, 2)] * 3
    inner = arms.starting((1,))
    assert int(tree.greedy(inner, tree.init(inner), jnp.zeros(1, jnp.int32))[0]) == int(best[0])


@pytest.mark.usefixtures("x64")
def test_restarts_move_only_what_lies_beyond_the_prefix_and_report_the_whole(make_rule):
    """One of 4^3 responses is right; rollouts from its first two tokens lift p to 1/16, the odds of getting there."""
    whole = TokenTree.grow(np.full(4, 0.25), 3, lambda y: float(y == (1, 2, 3)))
    restarted = whole.starting((1, 2))
    assert restarted.skip == 2 and restarted.within.sum() == 4
    curves = simulate(restarted, make_rule(2.0), 60, 16, 0, observe=("success", "reward", "entropy"))
    assert curves["success"][:, 0] == pytest.approx(1 / 64) and curves["success"].max() < 1 / 16
    assert curves.mean("success")[-1] > 0.9 / 16 and curves.mean("reward")[-10:].mean() > 0.8
    assert curves["entropy"][:, 0] == pytest.approx(np.log(4))


@pytest.mark.usefixtures("x64")
def test_adam_acts_on_the_logits_of_every_prefix(make_rule):
    """Its first step has size eta per visited logit, whatever the gradient; impossible tokens stay impossible."""
    arms = TokenTree.grow([[0.2, 0.5, 0.3, 0]] * 2, 2, even)
    rule = make_rule(optimiser={"kind": "adam", "eta": 0.05, "weight_decay": 0.1})
    leaf = int(np.flatnonzero(arms.reward)[-1])
    p = replay(arms, rule, [[[leaf]] * 3], [[[1.0]] * 3])
    theta, visited = arms.logits.copy(), arms.node[leaf, : arms.length[leaf]]
    for node, token in zip(visited, arms.token[leaf], strict=False):
        theta[node] += 0.05 * np.where(np.arange(4) == token, 1, -1)
    theta -= 0.05 * 0.1 * np.where(np.isfinite(arms.logits), arms.logits, 0)
    pi, wanted = softmax(theta), 0.0
    for row, (node, token) in enumerate(zip(arms.node, arms.token, strict=True)):
        wanted += arms.reward[row] * np.prod(pi[node, token][: arms.length[row]])
    assert p[0, 1] == pytest.approx(wanted, abs=1e-6)  # Adam's eps = 1e-8 against gradients of about .2


def test_what_cannot_be_a_tree_is_refused(token_model):
    with pytest.raises(Refusal, match=r"law at prefix \(1,\)"):
        TokenTree.grow(lambda prefix: [0.5, 0.5] if not prefix else [0.5, 0.6], 2, even)
    with pytest.raises(Refusal, match="law has shape"):
        TokenTree.grow(np.full((3, 2), 0.5), 2, even)
    with pytest.raises(Refusal, match="depth = 0"):
        TokenTree.grow([0.5, 0.5], 0, even)
    with pytest.raises(Refusal, match="no response goes on from there"):
        TokenTree.grow([0.5, 0.5], 3, even, start=(0,))
    with pytest.raises(Refusal, match="rollouts begin after 1 tokens already"):
        TokenTree.grow([0.5, 0.5], 3, even, start=(1,)).starting((1,))
    model = token_model(0).tree()
    longer = ResponseTree(**{**vars(model), "length": model.length + 1})
    with pytest.raises(Refusal, match="one edge per token"):
        TokenTree.from_tree(longer)
    with pytest.raises(Refusal, match="logits of prefix 0"):
        TokenTree(**{**vars(TokenTree.grow([0.5, 0.5], 1, even)), "logits": np.full((1, 2), -np.inf)})
