"""One round under every part of a rule: helpers, memories, epochs, exact entropy, a reference that moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bandit_sim import Arms, Contexts, ParticleArms, TokenTree, TreeArms, simulate
from bandit_sim.engines.registry import engine_for
from bandit_sim.rounds.keys import root_key
from bandit_sim.rounds.step import Draws, Knobs, check_pair, draw, luck_of, start, update
from theory.pay import Clean
from theory.rules import (
    K2,
    PRESETS,
    SGD,
    Adam,
    ExactEntropy,
    Greedy,
    GroupMeanStd,
    MovingAverage,
    PPOClip,
    Raw,
    Rule,
)

pytestmark = pytest.mark.usefixtures("x64")
RIGHT = np.array([1.0, 0, 0, 1, 0])
MASS = np.array([0.1, 0.3, 0.25, 0.15, 0.2])


def knobs(rule):
    return Knobs(jnp.asarray(rule.optimiser.eta), jnp.asarray(rule.rollouts, jnp.int32))


def draws(choices, rewards):
    n = len(choices)
    return Draws(
        jnp.asarray(choices, jnp.int32),
        jnp.asarray(rewards, float),
        jnp.zeros(n, jnp.int32),
        jnp.ones(n, bool),
    )


def softmax(theta):
    weight = np.exp(theta - theta.max())
    return weight / weight.sum()


def compiled(rule, arms):
    """The carry of round 0 and the update, each as one program: alone every operation would be compiled."""
    engine = engine_for(arms)
    begin = jax.jit(lambda: start(engine, rule, arms, knobs(rule)))()
    return begin, jax.jit(lambda carry, given: update(engine, rule, arms, carry, given, knobs(rule)))


def rounds_of(rule, arms, given):
    """States before and after each round of given draws."""
    carry, after = compiled(rule, arms)
    states = [np.asarray(carry.state)]
    for choices, rewards in given:
        carry, _ = after(carry, draws(choices, rewards))
        states.append(np.asarray(carry.state))
    return states


def test_extra_rollouts_feed_the_baseline_and_push_nothing():
    """onerpo: A = (r - mean) / (std + 1e-6) over one trained and three extra rollouts, ddof 1."""
    rule = Rule(signal=GroupMeanStd(extra=3), optimiser=SGD(eta=0.5))
    arms = Arms.from_masses(MASS, RIGHT)
    choices, rewards = [0, 1, 3, 2], [1.0, 0.0, 1.0, 0.0]
    before, after = rounds_of(rule, arms, [(choices, rewards)])
    advantage = (1 - 0.5) / (np.std(rewards, ddof=1) + 1e-6)
    wanted = before + 0.5 * advantage * ((np.arange(5) == 0) - softmax(before))
    np.testing.assert_allclose(after, wanted, atol=1e-12)


def test_the_greedy_helper_is_the_likeliest_arm_and_only_a_baseline():
    rule = Rule(signal=Greedy(), optimiser=SGD(eta=0.5), rollouts=2)
    arms = Arms.from_masses(MASS, RIGHT)
    engine = engine_for(arms)

    @jax.jit
    def drawn_with(key):
        luck = luck_of(engine, rule, Clean(), arms, key, 0, jnp.float64)
        return draw(engine, rule, Clean(), arms, engine.init(arms), luck, knobs(rule))

    for seed in range(20):
        drawn = drawn_with(root_key(seed))
        assert drawn.choices.shape == (3,) and drawn.choices[2] == 1
    before, after = rounds_of(rule, arms, [([0, 2, 1], [1.0, 0.0, 0.0])])
    pi = softmax(before)
    np.testing.assert_allclose(after, before + 0.25 * ((np.arange(5) == 0) - pi), atol=1e-12)


def test_several_epochs_reuse_the_rollouts_with_the_ratio_to_the_first():
    """PPO clip on one pull, eight epochs: the ratio grows until it passes 1 + clip_high, then nothing moves."""
    rule = Rule(objective=PPOClip(clip_high=0.3), optimiser=SGD(eta=0.2), epochs=8)
    arms = Arms.from_masses(MASS, RIGHT)
    before, after = rounds_of(rule, arms, [([0], [1.0])])
    theta, stopped = before.copy(), False
    for _ in range(8):
        ratio = softmax(theta)[0] / softmax(before)[0]
        stopped |= ratio > 1.3
        if ratio <= 1.3:
            theta = theta + 0.2 * ratio * ((np.arange(5) == 0) - softmax(theta))
    assert stopped
    np.testing.assert_allclose(after, theta, atol=1e-12)


def test_a_memory_advances_once_per_round_whatever_the_epochs():
    arms = Arms.from_masses(MASS, RIGHT)
    weights = []
    for epochs in (1, 3):
        rule = Rule(signal=MovingAverage(decay=0.5), optimiser=SGD(eta=1e-12), epochs=epochs)
        carry, after = compiled(rule, arms)
        for reward in (1.0, 0.0, 1.0):
            carry, push = after(carry, draws([0], [reward]))
        weights.append(float(push.weights[0, 0]))
    assert weights[0] == weights[1] != 1


def test_every_query_has_a_memory_of_its_own():
    """Two queries, one always right and one always wrong: neither baseline sees the other."""
    rule = Rule(signal=MovingAverage(decay=0.5), optimiser=SGD(eta=1e-12))
    arms = Contexts.spectrum([0.5, 0.5], arms=3, batch=2)
    carry, after = compiled(rule, arms)
    both = Draws(jnp.array([0, 4]), jnp.array([1.0, 0.0]), jnp.array([0, 1]), jnp.ones(2, bool))
    for _ in range(30):
        carry, push = after(carry, both)
    assert np.abs(np.asarray(push.weights)).max() < 1e-6


def all_kinds(token_model):
    model = token_model(0)
    tree = model.tree()
    return {
        "dense": Arms.from_masses(MASS, RIGHT),
        "kernel": ParticleArms.from_tree(tree),
        "tree_kernel": TreeArms.from_tree(tree),
        "tree": TokenTree.random(3, 3, 0, lambda tokens: float(tokens[0] == 1)),
        "contexts": Contexts.spectrum([0.2, 0.4], arms=3, batch=2, overlap=0.3),
    }


@pytest.mark.parametrize("kind", ["dense", "kernel", "tree_kernel", "tree", "contexts"])
def test_entropy_direction_is_the_metric_times_the_gradient_of_the_tokens_entropies(token_model, kind):
    """Autodiff of sum_it w_it H(pi(. | prefix_it)), each prefix's distribution held apart by brute force."""
    arms = all_kinds(token_model)[kind]
    engine = engine_for(arms)
    rng = np.random.default_rng(0)
    base = np.asarray(jax.jit(engine.init)(arms))
    state = base + 0.3 * rng.normal(size=base.shape)
    choices = np.asarray(rng.integers(0, len(arms.reward), 4), np.int32)
    count = len(arms.reward)
    token_logs = jax.jit(lambda s: engine.token_logprobs(arms, s, jnp.arange(count, dtype=jnp.int32)))
    state_log, real = map(np.asarray, token_logs(state))
    weights = rng.normal(size=real[choices].shape) * real[choices]
    paths = {"tree_kernel": "path", "tree": "node"}

    def prefixes():
        """(L, T) label of the prefix before each token."""
        if kind == "tree":
            return np.asarray(arms.node)
        if kind == "tree_kernel":
            edges = [np.flatnonzero(row) for row in np.asarray(arms.path)]
            node = np.asarray(arms.node)
            width = real.shape[1]
            return np.array([[*node[e], *[-1] * (width - len(e))] for e in edges])
        return np.asarray(engine.query_of(arms, jnp.arange(count)))[:, None]

    assert kind in paths or real.shape[1] == 1
    label = prefixes()

    def bonus(s):
        log, _ = token_logs(s)
        total = 0.0
        for i, choice in enumerate(choices):
            for t in range(log.shape[1]):
                if not real[choice, t]:
                    continue
                # One response stands for each token that may follow the prefix.
                at = [(leaf, u) for leaf in range(count) for u in range(log.shape[1])
                      if real[leaf, u] and label[leaf, u] == label[choice, t]]  # fmt: skip
                edges = {}
                for leaf, u in at:
                    edges.setdefault(round(float(state_log[leaf, u]), 12), (leaf, u))
                h = -sum(jnp.exp(log[at]) * log[at] for at in edges.values())
                total = total + weights[i, t] * h
        return total

    wanted = jax.jit(lambda s: engine.metric(arms, jax.grad(bonus)(s)))(state)
    got = jax.jit(engine.entropy_direction)(arms, state, jnp.asarray(choices), jnp.asarray(weights))
    np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), atol=1e-10)


def test_exact_entropy_joins_the_direction():
    rule = Rule(entropy=ExactEntropy(beta=0.2), optimiser=SGD(eta=0.5))
    arms = Arms.from_masses(MASS, RIGHT)
    before, after = rounds_of(rule, arms, [([1], [0.0])])
    pi = softmax(before)
    entropy = -(pi @ np.log(pi))
    np.testing.assert_allclose(after - before, 0.5 * 0.2 * pi * (-np.log(pi) - entropy), atol=1e-12)


def test_a_moving_reference_is_the_policy_of_the_last_refresh():
    """k2 in the loss pulls by -beta (log pi - log ref): at the round of a refresh, only the reward pushes."""
    rule = Rule(signal=Raw(), kl=K2(beta=0.5, refresh=2), optimiser=SGD(eta=0.3))
    arms = Arms.from_masses(MASS, RIGHT)
    given = [([0], [1.0]), ([3], [1.0]), ([0], [1.0]), ([1], [0.0]), ([0], [1.0])]
    states = rounds_of(rule, arms, given)
    reference = states[0]
    for t, (choices, rewards) in enumerate(given):
        if t in (2, 4):
            reference = states[t]
        pi, ref = softmax(states[t]), softmax(reference)
        a = choices[0]
        w = rewards[0] - 0.5 * np.log(pi[a] / ref[a])
        np.testing.assert_allclose(
            states[t + 1], states[t] + 0.3 * w * ((np.arange(5) == a) - pi), atol=1e-12
        )


@pytest.mark.parametrize("name", PRESETS)
def test_every_named_rule_traces_on_the_dense_engine(name):
    """Shapes and dtypes of one round, with the signal's memory, helpers and optimiser; nothing is compiled."""
    rule = PRESETS[name]
    arms = Contexts.spectrum([0.2, 0.4], arms=4, batch=2) if rule.optimiser.linear else None
    arms = Arms.from_masses(MASS, RIGHT) if arms is None else arms
    engine = engine_for(arms)

    def one_round(key):
        carry = start(engine, rule, arms, knobs(rule))
        luck = luck_of(engine, rule, Clean(), arms, key, 0, jnp.float64)
        drawn = draw(engine, rule, Clean(), arms, carry.state, luck, knobs(rule))
        return carry, update(engine, rule, arms, carry, drawn, knobs(rule))[0]

    before, after = jax.eval_shape(one_round, root_key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )


@pytest.mark.parametrize("name", ["papers-2601.22532-onerpo", "papers-2601.22532-replay", "remax"])
def test_rules_with_helpers_or_memory_simulate(name):
    curves = simulate(Arms.from_masses(MASS, RIGHT), PRESETS[name], 20, 4, 0)
    assert np.isfinite(curves["success"]).all() and np.ptp(curves["success"]) > 0


def test_only_linear_optimisers_move_a_kernel(token_model):
    arms = TreeArms.from_tree(token_model(0).tree())
    for optimiser in (Adam(eta=0.1), SGD(eta=0.1, clip_norm=1.0)):
        with pytest.raises(
            ValueError, match=r"kernel engine: .* use the dense engine, or SGD without clip_norm"
        ):
            check_pair(engine_for(arms), Rule(optimiser=optimiser))
    check_pair(engine_for(arms), Rule(optimiser=SGD(eta=0.1, momentum=0.9)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_impossible_arm_stays_so_under_any_optimiser(weight_decay):
    """A logit of -inf and Adam with decay once gave NaN; the other arms move as if it were not there."""
    rule = Rule(optimiser=Adam(eta=0.1, weight_decay=weight_decay))
    whole = Arms.from_masses([0.3, 0.0, 0.7], [1.0, 1.0, 0.0])
    apart = Arms.from_masses([0.3, 0.7], [1.0, 0.0])
    curves, wanted = (simulate(arms, rule, 30, 8, 0)["success"] for arms in (whole, apart))
    assert np.allclose(curves, wanted, atol=1e-12) and np.ptp(curves) > 0.1


def test_decay_long_enough_to_revive_an_impossible_arm_is_refused():
    rule = Rule(optimiser=Adam(eta=0.1, weight_decay=0.1))
    with pytest.raises(
        ValueError, match=r"weight_decay \* rounds = 60 with an arm of logit -inf.*drop the arm"
    ):
        simulate(Arms.from_masses([0.3, 0.0, 0.7], [1.0, 1.0, 0.0]), rule, 6000, 2, 0)
