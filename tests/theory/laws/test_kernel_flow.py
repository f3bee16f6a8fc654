"""Responses that share parameters: the simulator's mean, exact identities, two-number laws, overshoot, mutants."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.special import softmax

from bandit_sim import Arms, ParticleArms, TreeArms, expected_step, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import clocks, kernel_flow, tree_flow
from theory.refusal import Refusal
from theory.rules import SGD, Rule, preset
from theory.trees.synthetic_tree import synthetic_tree

P0 = 0.05
MASS = np.array([0.1, 0.2, 0.4, 0.3])
REWARD = np.array([1.0, 1.0, 0.0, 0.0])
FEATURES = np.random.default_rng(3).normal(size=(4, 3))
GRAM = FEATURES @ FEATURES.T


def deep(depth: int, own: float = 1.0):
    return synthetic_tree(P0, wrong=depth, depth=depth, own=own, within=0.3, cross=-0.1, wrong_overlap=0.2)


def test_the_coupling_is_its_means_and_gives_the_simulators_step():
    """dp/dt = eta p^2 (1-p)^2 kappa at the start, by the enumerated expected step of particles at eta = 1e-5."""
    eta, p = 1e-5, 0.3
    with jax.enable_x64(True):
        step = expected_step(ParticleArms(MASS, REWARD, GRAM), Rule(optimiser=SGD(eta=eta)))

    def agrees(coupling) -> bool:
        found = coupling(MASS, REWARD, GRAM)
        cross = (MASS[:2] / 0.3) @ GRAM[:2, 2:] @ (MASS[2:] / 0.7)
        kappa = found.correct - 2 * found.cross + found.wrong
        return bool(
            abs(found.cross - cross) < 1e-12 and abs(eta * (p * (1 - p)) ** 2 * kappa / step - 1) < 1e-4
        )

    assert survivors(kernel_flow.coupling, agrees) == []
    found = kernel_flow.coupling(MASS, REWARD, GRAM)
    assert found.contrast == pytest.approx(found.correct - 2 * found.cross + found.wrong)


@given(depth=st.integers(1, 4), within=st.floats(0, 1), p0=st.floats(0.02, 0.6))
def test_base_scores_tie_the_three_means(depth, within, p0):
    tree = synthetic_tree(p0, wrong=5, depth=depth, within=within, wrong_overlap=0.2)
    found = kernel_flow.coupling(tree.leaf_probability(), tree.reward, tree.sequence_kernel())
    odds = p0 / (1 - p0)
    assert found.cross == pytest.approx(-odds * found.correct, abs=1e-9)
    assert found.wrong == pytest.approx(odds**2 * found.correct, abs=1e-9)
    assert found.contrast == pytest.approx(found.correct / (1 - p0) ** 2, rel=1e-6)


def test_two_numbers_are_exact_at_the_start_and_their_time_is_the_integral():
    tree = deep(3)
    found = kernel_flow.coupling(tree.leaf_probability(), tree.reward, tree.sequence_kernel())
    early = tree_flow.tree_flow(tree, 0.1, [0.0, 0.01])
    rate = kernel_flow.two_number_rate(P0, 0.1, found.correct, found.cross)
    assert (early[1] - early[0]) / 0.01 == pytest.approx(rate, rel=1e-3)
    agrees = lambda f: abs(f(0.3, 0.1, 2.0, -0.5) / (0.1 * 2.5 * 0.09 * 0.7) - 1) < 1e-12  # noqa: E731
    assert survivors(kernel_flow.two_number_rate, agrees) == []
    wanted = quad(lambda p: 1 / kernel_flow.two_number_rate(p, 0.1, 2.0, -0.5), 0.1, 0.6)[0]
    agrees = lambda f: abs(f(0.6, 0.1, 0.1, 2.0, -0.5) / wanted - 1) < 1e-8  # noqa: E731
    assert survivors(kernel_flow.two_number_time, agrees) == []


def test_the_next_order_is_exact_for_even_arms():
    """Three correct and four wrong responses of one token with class-wise overlaps: sequence and tree flow alike."""
    tree = synthetic_tree(P0, correct=3, wrong=4, within=0.3, cross=-0.1, wrong_overlap=0.2)
    mass, kernel = tree.leaf_probability(), tree.sequence_kernel()
    found, t = kernel_flow.coupling(mass, tree.reward, kernel), np.array([50.0, 150.0, 250.0])
    p = kernel_flow.sequence_flow(mass, tree.reward, kernel, 0.1, t) @ tree.reward
    np.testing.assert_allclose(tree_flow.tree_flow(tree, 0.1, t), p, rtol=1e-6)
    assert p[-1] > 0.7
    agrees = lambda f: np.allclose(f(p, P0, 0.1, found.correct, found.cross), t, rtol=1e-5)  # noqa: E731
    assert survivors(kernel_flow.recentred_time, agrees) == []
    early = np.atleast_1d(kernel_flow.two_number_time(p, P0, 0.1, found.correct, found.cross))
    assert (
        np.all(early < t) and early[0] / t[0] > 0.97 and early[-1] / t[-1] < 0.8
    )  # two numbers alone: too fast
    clock = clocks.time_to("raw", p, P0, 0.1, found.contrast)
    np.testing.assert_allclose(clock, t, rtol=1e-5)  # the tabular clock, with kappa for its geometry


def test_free_logits_are_the_dense_bandit():
    """K = identity and free logits at the root: the flow of whole responses is that of `Arms`."""
    with jax.enable_x64(True):
        step = expected_step(Arms.from_masses(MASS, REWARD), Rule(optimiser=SGD(eta=1e-5))) / 1e-5
    p = kernel_flow.sequence_flow(MASS, REWARD, np.eye(4), 1.0, [0.0, 1e-4]) @ REWARD
    assert (p[1] - p[0]) / 1e-4 == pytest.approx(step, rel=1e-3)


@given(seed=st.integers(0, 10**6), eta=st.floats(0.1, 2))
def test_the_mean_field_never_loses_success(seed, eta):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(5, 2))
    reward = (np.arange(5) < 2).astype(float)
    flow = kernel_flow.sequence_flow(
        rng.dirichlet(np.ones(5)) + 1e-3, reward, features @ features.T, eta, [0, 1, 2, 4, 8]
    )
    assert np.all(np.diff(flow @ reward) >= -1e-7)


AT = np.array([0.0, 100.0, 200.0, 300.0])


def simulated(arms) -> tuple[np.ndarray, np.ndarray]:
    p = simulate(arms, preset("minimalist", eta=0.05), 301, 192, 5, every=100)["success"]
    return p.mean(axis=0), p.std(axis=0) / np.sqrt(192)


def test_simulated_trees_and_particles_follow_their_flows():
    """Depth 4, 192 seeds at eta = .05: within 4.5 standard errors and .015 (O(eta))."""
    tree = deep(4)
    mass, kernel = tree.leaf_probability(), tree.sequence_kernel()
    seen, error = simulated(TreeArms.from_tree(tree))
    whole, whole_error = simulated(ParticleArms.from_tree(tree))
    assert np.max(whole - seen) > 0.1  # the sequence kernel runs ahead

    at = tree_flow.tree_flow(tree, 0.05, AT)
    assert np.all(np.abs(at - seen) < 4.5 * error + 0.015)
    p = kernel_flow.sequence_flow(mass, tree.reward, kernel, 0.05, AT) @ tree.reward
    assert np.all(np.abs(p - whole) < 4.5 * whole_error + 0.015)
    for wrong in (0.8, 1.25):
        assert np.abs(tree_flow.tree_flow(tree, 0.05 * wrong, AT) - seen).max() > 0.05


def ascend(success, kernel: np.ndarray, speed: float, end: float) -> float:
    """p after df/dt = speed K dp/df, the derivative by central differences."""
    unit = 1e-5 * np.eye(len(kernel))
    slope = lambda f: np.array([success(f + e) - success(f - e) for e in unit]) / 2e-5  # noqa: E731
    path = solve_ivp(
        lambda _, f: speed * kernel @ slope(f), (0, end), np.zeros(len(kernel)), rtol=1e-7, atol=1e-9
    )
    return success(path.y[:, -1])


def test_the_flows_are_gradient_ascent_in_their_kernels():
    """eta = .1, gap = 2, 30 updates, uneven tree and particles: to 1e-6, which no mutant of theirs is."""
    tree = synthetic_tree(0.2, correct=2, wrong=4, depth=2, within=0.3, cross=-0.1, wrong_overlap=0.2)
    wanted = ascend(tree.success, tree.kernel, 0.2, 30.0)
    agrees = lambda f: abs(f(tree, 0.1, [30.0], lambda p: 2.0)[0] / wanted - 1) < 1e-6  # noqa: E731
    assert survivors(tree_flow.tree_flow, agrees, equivalent=("reward **",)) == []  # of 0 and 1
    whole = ascend(lambda f: float(softmax(np.log(MASS) + f) @ REWARD), GRAM, 0.2, 10.0)
    half = lambda f: f(MASS, REWARD, GRAM, 0.1, [10.0], lambda p: 2.0)[0] @ REWARD  # noqa: E731
    right = lambda f: abs(half(f) / whole - 1) < 1e-6  # noqa: E731
    assert survivors(kernel_flow.sequence_flow, right, equivalent=("r **",)) == []
    assert 0.3 < wanted < 0.97 and 0.35 < whole < 0.999


@pytest.mark.parametrize("depth", [2, 8])
def test_a_chain_of_tokens_has_its_clock(depth):
    tree = deep(depth)
    found = kernel_flow.coupling(tree.leaf_probability(), tree.reward, tree.sequence_kernel())
    k = found.correct / (1 - P0 ** (1 / depth)) ** 2  # base scores are (1 - s0) times the contrast of a token
    t = np.array([40.0, 80.0])
    p = tree_flow.tree_flow(tree, 0.1, t)

    np.testing.assert_allclose([tree_flow.chain_time(q, P0, 0.1, k, depth) for q in p], t, rtol=1e-3)


def chain_by_hand(p: float, missing) -> float:
    return quad(lambda q: 1 / (0.1 * 4.0 * q**2 * missing(q) ** 2), P0, p)[0]


def test_no_mutant_of_the_chain_agrees():
    cube, endless = (lambda q: 1 - q ** (1 / 3)), np.log
    rate = lambda f: np.isclose(f(0.3, 0.1, 4.0, 3), 0.1 * 4 * 0.09 * cube(0.3) ** 2, rtol=1e-9)  # noqa: E731
    assert survivors(tree_flow.chain_rate, rate) == []
    wanted = [chain_by_hand(0.4, cube), chain_by_hand(0.4, endless)]

    def agrees(chain_time) -> bool:
        return np.allclose([chain_time(0.4, P0, 0.1, 4.0, depth) for depth in (3, None)], wanted, rtol=1e-6)

    assert survivors(tree_flow.chain_time, agrees, helpers=("_missing",)) == []


def test_endless_depth_is_the_limit_of_the_chain():
    wanted = tree_flow.chain_time(0.4, P0, 0.1, 4.0 * 10**8, 10**4)
    assert tree_flow.chain_time(0.4, P0, 0.1, 4.0, None) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("depth", [4, 8])
def test_the_sequence_kernel_overshoots_by_the_law(depth):
    """Tokens that share their features: ratio of the two flows' speeds at equal p, .1 to .5."""
    tree, t = deep(depth, own=0.01), np.arange(0.0, 200.0, 0.5)
    flows = (
        tree_flow.tree_flow(tree, 0.2, t),
        kernel_flow.sequence_flow(tree.leaf_probability(), tree.reward, tree.sequence_kernel(), 0.2, t)
        @ tree.reward,
    )
    levels = np.array([0.1, 0.3, 0.5])
    slow, fast = (np.interp(levels, p, np.gradient(p, t)) for p in flows)
    agrees = lambda f: np.allclose(f(levels, P0, depth), fast / slow, rtol=5e-3)  # noqa: E731
    assert survivors(tree_flow.overshoot, agrees, helpers=("_missing",), equivalent=("np.arange",)) == []
    assert tree_flow.overshoot(0.5, P0, 8) == pytest.approx(2.43, abs=0.01)


@given(p0=st.floats(0.01, 0.5), rise=st.floats(0.01, 0.9), depth=st.integers(2, 10))
def test_the_overshoot_starts_at_one_and_a_single_token_has_none(p0, rise, depth):
    p = p0 + rise * (0.95 - p0)
    assert tree_flow.overshoot(p, p0, 1) == pytest.approx(1, rel=1e-6)
    assert tree_flow.overshoot(p0, p0, depth) == pytest.approx(1, rel=1e-6)
    assert tree_flow.overshoot(p, p0, depth) > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_flow.coupling(MASS, np.ones(4), GRAM), "4 of 4 responses are correct; both classes"),
        (lambda: kernel_flow.two_number_time(0.5, 0.1, 0.1, 0.1, 0.5), "kcc - kcw = -0.4; give a value"),
        (lambda: tree_flow.overshoot(0.5, 0.1, 0), "depth = 0; give at least 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
