"""KL against reward: flows at rest, expansions, how many fixed points, and the simulator's k3."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.special import expit, logit, softmax

from bandit_sim import Arms, simulate
from bandit_sim.engines import dense
from bandit_sim.rounds.step import Draws, knobs_of, start, update
from tests.theory.laws.mutation import survivors
from theory.laws import kl_fixed_point
from theory.rules import K3, SGD, Rule

inside = st.floats(0.02, 0.98)


def preconditioned(q: float, q_ref: float, beta: float, eta: float) -> float:
    """dq/dt on two arms (C = 2): eta times plain ascent on E[A], minus beta times natural ascent on KL."""
    x = np.array([logit(q), 0.0])
    ref = np.array([q_ref, 1 - q_ref])
    advantage = np.array([1 - q, -q]) / np.sqrt(q * (1 - q))
    reward = approx_fprime(x, lambda t: softmax(t) @ advantage, 1e-7)
    distance = approx_fprime(x, lambda t: softmax(t) @ np.log(softmax(t) / ref), 1e-7)
    fisher = np.diag([q, 1 - q]) - np.outer([q, 1 - q], [q, 1 - q])
    step = eta * reward - beta * np.linalg.pinv(fisher) @ distance
    return float(q * (1 - q) * (step[0] - step[1]))


def is_the_preconditioned_flow(natural_pull) -> bool:
    return all(
        abs(natural_pull(q, 0.2, 0.3, 0.9, 2.0) - preconditioned(q, 0.2, 0.3, 0.9)) < 1e-6
        for q in (0.1, 0.4, 0.8)
    )


def test_the_pull_is_natural_gradient_of_the_kl_beside_plain_gradient_of_the_reward():
    assert survivors(kl_fixed_point.natural_pull, is_the_preconditioned_flow) == []


@given(q_ref=inside, beta=st.floats(0.02, 5), noise=st.floats(0, 0.3))
def test_the_flow_rests_at_every_fixed_point_and_their_number_is_odd(q_ref, beta, noise):
    points = kl_fixed_point.natural_fixed_points(q_ref, beta, 1.0, 2.0, noise, noise)
    assert len(points) % 2 == 1 and np.all(points > q_ref)
    pull = kl_fixed_point.natural_pull(points, q_ref, beta, 1.0, 2.0, noise, noise)
    assert np.abs(pull).max() < 1e-10
    near = np.clip(points, 1e-9, 1 - 1e-9)
    after = kl_fixed_point.natural_pull(
        np.minimum(near + 1e-7, 1 - 1e-10), q_ref, beta, 1.0, 2.0, noise, noise
    )
    assert np.all(np.sign(after) == np.where(np.arange(len(points)) % 2, 1, -1))  # first, third, ... stable


@given(q_ref=st.floats(1e-8, 0.99), excess=st.floats(1.0, 20))
def test_there_is_one_fixed_point_from_beta_c_eta_over_eight(q_ref, excess):
    assert len(kl_fixed_point.natural_fixed_points(q_ref, excess * 1.5 * 0.4 / 8, 0.4, 1.5)) == 1


def test_a_hard_query_under_weak_kl_has_three_fixed_points():
    """q_ref = e^-12, C eta / beta = 40: stuck near q_ref, a threshold, and learnt; so uniqueness is refuted."""
    q_ref = float(expit(-12.0))
    points = kl_fixed_point.natural_fixed_points(q_ref, 1.0, 40.0)
    assert len(points) == 3
    # By hand, with v = q (1-q): L + 12 = 40 sqrt(v) on every one of them.
    np.testing.assert_allclose(logit(points) + 12, 40 * np.sqrt(points * (1 - points)), rtol=1e-6)
    assert points[0] < 1.2 * q_ref and points[2] > 0.8
    # The bound is tight: a tenth below it, three appear for references around the inflection q = sin^2(pi/8).
    references = expit(np.linspace(-4.95, -4.8, 60))
    assert max(len(kl_fixed_point.natural_fixed_points(float(r), 1 / 8 / 1.1, 1.0)) for r in references) == 3


def is_first_order(strong_pull) -> bool:
    """The error falls as beta^-2."""
    errors = []
    for beta in (50.0, 500.0):
        exact = kl_fixed_point.natural_fixed_points(0.3, beta, 0.8, 1.5, 0.1, 0.2)
        errors.append(abs(exact[0] - strong_pull(0.3, beta, 0.8, 1.5, 0.1, 0.2)))
    return errors[0] < 1e-5 and 80 < errors[0] / errors[1] < 120


def test_the_strong_kl_expansion_is_right_to_first_order():
    assert survivors(kl_fixed_point.strong_pull, is_first_order) == []


MASSES = np.array([0.04, 0.06, 0.4, 0.3, 0.2])
RIGHT = np.array([1.0, 1.0, 0.0, 0.0, 0.0])


@partial(jax.jit, static_argnames="rule")
def mean_step(rule: Rule, reward: jax.Array, state: jax.Array) -> jax.Array:
    """(K,) the simulator's mean step of every logit at `state`, by every pull; the base policy is the reference."""
    arms = Arms.from_masses(MASSES, RIGHT)
    knobs = knobs_of(rule, state.dtype)
    carry = start(dense, rule, arms, knobs)._replace(state=state)

    def after_pull(arm: jax.Array) -> jax.Array:
        draws = Draws(arm[None], reward[arm][None], jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
        return update(dense, rule, arms, carry, draws, knobs)[0].state

    after = jax.vmap(after_pull)(jnp.arange(5, dtype=jnp.int32))
    return jax.nn.softmax(state) @ (after - state)


def balances_the_simulator(k3_fixed_point) -> bool:
    """Five uneven arms, two correct, shares within the classes kept: every logit's mean step is zero."""
    for beta, index in ((0.4, 0.7), (2.0, 1.0), (0.5, 0.3), (0.5, -0.2)):
        q = float(k3_fixed_point(0.1, beta, index))
        if not 0 < q < 1:
            return False
        state = np.log(MASSES * np.where(RIGHT > 0, q / 0.1, (1 - q) / 0.9))
        # A noisy verifier pays the class means; only their difference J moves anything.
        with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
            step = mean_step(Rule(kl=K3(beta=beta), optimiser=SGD(eta=1)), 0.5 + index * RIGHT, state)
        if np.abs(step).max() > 1e-9:
            return False
    return True


def test_k3_balances_raw_reward_in_the_simulator():
    assert survivors(kl_fixed_point.k3_fixed_point, balances_the_simulator, equivalent=("1.0 ->",)) == []


@given(q_ref=st.floats(1e-6, 0.99), beta=st.floats(0.01, 100), index=st.floats(-1, 1))
def test_the_k3_point_solves_its_quadratic_on_the_side_of_the_youden_index(q_ref, beta, index):
    q = float(kl_fixed_point.k3_fixed_point(q_ref, beta, index))
    assert 0 < q < 1 and (q - q_ref) * index >= -1e-9
    assert index * q**2 + (beta - index) * q - beta * q_ref == pytest.approx(0, abs=1e-9 * (1 + beta))


def test_k3_as_strong_as_the_reward_holds_a_hard_query_back():
    q = kl_fixed_point.k3_fixed_point(1e-9, [0.25, 0.5, 0.9, 1.1, 2.0])
    np.testing.assert_allclose(q, [0.75, 0.5, 0.1, 0, 0], atol=1e-7)


def test_simulated_seeds_rest_at_the_k3_point():
    """Two arms, p0 = .2, beta = .5: 256 seeds, eta = .05; within 4.5 standard errors and an O(eta) bias of .015."""
    rule = Rule(kl=K3(beta=0.5), optimiser=SGD(eta=0.05))
    success = simulate(Arms.two_class(arms=2, correct=1, p0=0.2), rule, 600, 256, 4)["success"]
    p = success[:, 400:].mean(axis=1)
    near = 4.5 * p.std() / 16 + 0.015
    assert abs(p.mean() - kl_fixed_point.k3_fixed_point(0.2, 0.5)) < near
    assert abs(p.mean() - kl_fixed_point.k3_fixed_point(0.2, 0.6)) > near
    assert abs(p.mean() - kl_fixed_point.k3_fixed_point(0.2, 0.4)) > near
