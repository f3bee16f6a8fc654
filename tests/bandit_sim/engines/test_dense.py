"""The dense engine against a NumPy float64 loop, and the laws of the tabular bandit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim import Arms, expected_step, replay
from bandit_sim.engines import dense


def softmax(theta):
    weight = np.exp(theta - theta.max())
    return weight / weight.sum()


def signal_weights(kind, rewards):
    n = len(rewards)
    if kind == "raw":
        return rewards / n
    return np.array([r - np.delete(rewards, i).mean() for i, r in enumerate(rewards)]) / n


@pytest.mark.parametrize(("signal", "rollouts"), [("raw", 1), ("raw", 4), ("leave_one_out", 4)])
@pytest.mark.usefixtures("x64")
def test_trajectory_equals_a_numpy_loop_with_the_same_draws(make_rule, signal, rollouts):
    rng = np.random.default_rng(1)
    arms = Arms.from_masses(rng.dirichlet(np.ones(7)), rng.normal(size=7))
    choices = rng.integers(0, 7, size=(3, 40, rollouts))
    rewards = arms.reward[choices]
    wanted = np.zeros((3, 40))
    for s in range(3):
        theta = arms.logits.copy()
        for t in range(40):
            pi = softmax(theta)
            wanted[s, t] = pi @ arms.reward
            for a, w in zip(choices[s, t], signal_weights(signal, rewards[s, t]), strict=True):
                theta = theta + 0.3 * w * ((np.arange(7) == a) - pi)
    got = replay(arms, make_rule(0.3, signal, rollouts), choices, rewards)
    assert np.abs(got - wanted).max() < 1e-12


@pytest.mark.usefixtures("x64")
def test_adam_equals_its_textbook_loop(make_rule):
    rng = np.random.default_rng(2)
    arms = Arms.from_masses(rng.dirichlet(np.ones(5)), [1, 0, 0, 1, 0])
    choices = rng.integers(0, 5, size=(1, 30, 1))
    rule = make_rule(optimiser={"kind": "adam", "eta": 0.05, "weight_decay": 0.1})
    theta, m, v, wanted = arms.logits.copy(), np.zeros(5), np.zeros(5), []
    for t in range(30):
        pi = softmax(theta)
        wanted.append(pi @ arms.reward)
        a = choices[0, t, 0]
        g = arms.reward[a] * ((np.arange(5) == a) - pi)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        theta = theta + 0.05 * (step - 0.1 * theta)
    got = replay(arms, rule, choices, arms.reward[choices])
    assert np.abs(got[0] - wanted).max() < 1e-10


@given(seed=st.integers(0, 2**31), eta=st.sampled_from([1e-3, 0.5, 20.0]))
def test_under_raw_reward_the_mass_of_a_single_correct_arm_never_falls(make_rule_plain, seed, eta):
    """Its logit rises by eta (1 - pi), every other falls. With several correct arms this fails, see below."""
    rng = np.random.default_rng(seed)
    reward = np.array([1.0, 0, 0, 0, 0, 0])
    with jax.enable_x64(True):
        arms = Arms.from_masses(rng.dirichlet(np.ones(6)), reward)
        choices = rng.integers(0, 6, size=(1, 20, 1))
        p = replay(arms, make_rule_plain(eta), choices, reward[choices])[0]
    assert np.all(np.diff(p) >= -1e-12)


@given(seed=st.integers(0, 2**31))
def test_under_raw_reward_the_total_correct_mass_never_falls_in_expectation(make_rule_plain, seed):
    """To first order it rises by eta [(1-p)^2 sum_correct pi^2 + p^2 sum_wrong pi^2]."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        arms = Arms.from_masses(rng.dirichlet(np.ones(6)), [1, 1, 1, 0, 0, 0])
        change = expected_step(arms, make_rule_plain(1e-3))
    pi = np.exp(arms.logits)
    p, right, wrong = pi[:3].sum(), (pi[:3] ** 2).sum(), (pi[3:] ** 2).sum()
    assert change > 0
    assert change == pytest.approx(1e-3 * ((1 - p) ** 2 * right + p**2 * wrong), rel=0.01)


@pytest.mark.usefixtures("x64")
def test_a_correct_pull_can_lower_the_correct_mass_where_correct_arms_are_uneven(make_rule):
    """Pulling the rare correct arm a pushes the common one down: the change is about
    eta [(1-p) (pi_a - sum_correct pi^2) + p sum_wrong pi^2], here negative.
    """
    arms = Arms.from_masses([0.01, 0.5, *[0.049] * 10], [1, 1, *[0] * 10])
    p = replay(arms, make_rule(0.1), [[[0], [0]]], [[[1.0], [1.0]]])[0]
    first_order = 0.1 * (0.49 * (0.01 - 0.2501) + 0.51 * 10 * 0.049**2)
    assert p[1] - p[0] == pytest.approx(first_order, rel=0.02) and p[1] < p[0]


@given(seed=st.integers(0, 2**31), rollouts=st.sampled_from([1, 4]))
def test_logit_updates_sum_to_zero_and_vanish_in_expectation_for_a_constant_weight(seed, rollouts):
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        arms = Arms.from_masses(rng.dirichlet(np.ones(6)), np.zeros(6))
        state = dense.init(arms)
        choices, weights = rng.integers(0, 6, rollouts), rng.normal(size=(rollouts, 1))
        step = dense.direction(arms, state, jnp.asarray(choices), jnp.asarray(weights))
        assert abs(float(step.sum())) < 1e-12
        each = jax.vmap(lambda a: dense.direction(arms, state, a[None], jnp.ones((1, 1))))(jnp.arange(6))
        assert np.abs(np.exp(arms.logits) @ np.asarray(each)).max() < 1e-12


@pytest.mark.usefixtures("x64")
def test_expected_update_is_the_gradient_of_p():
    """E[r_a grad log pi_a] = grad p: the derivative is p pi_b (r_b / p - 1) = pi_b (r_b - p)."""
    arms = Arms.from_masses([0.5, 0.2, 0.2, 0.1], [0, 1, 1, 0.5])
    state, pi = dense.init(arms), np.exp(arms.logits)
    weights = jnp.asarray(arms.reward)
    each = jax.vmap(lambda a, w: dense.direction(arms, state, a[None], w[None, None]))(jnp.arange(4), weights)
    assert np.abs(pi @ np.asarray(each) - pi * (arms.reward - pi @ arms.reward)).max() < 1e-14


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("p0", [0.01, 0.2, 0.7])
def test_expected_step_is_eta_times_the_mean_field_rate(make_rule, p0):
    """One correct arm: dp/dt = eta p^2 [(1-p)^2 + sum_wrong pi_j^2]; the error shrinks linearly in eta."""
    arms = Arms.from_masses([p0, *((1 - p0) * np.array([0.5, 0.3, 0.2]))], [1, 0, 0, 0])
    wrong = np.exp(arms.logits[1:])
    rate = p0**2 * ((1 - p0) ** 2 + (wrong**2).sum())
    errors = [abs(expected_step(arms, make_rule(eta)) / eta - rate) / rate for eta in (1e-2, 1e-3, 1e-4)]
    assert errors[2] < 1e-4
    assert 5 < errors[0] / errors[1] < 20 and 5 < errors[1] / errors[2] < 20


@pytest.mark.usefixtures("x64")
def test_expected_step_is_exact_enumeration(make_rule):
    arms = Arms.from_masses([0.3, 0.5, 0.2], [1, 0, 1])
    pi, wanted = np.exp(arms.logits), 0.0
    for a in range(3):
        theta = arms.logits + 2.0 * arms.reward[a] * ((np.arange(3) == a) - pi)
        wanted += pi[a] * (softmax(theta) @ arms.reward - 0.5)
    assert expected_step(arms, make_rule(2.0)) == pytest.approx(wanted, abs=1e-15)
