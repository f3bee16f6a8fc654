"""Queries that share parameters, and reward on failures: the simulator's mean, exact rounds, collapse, mutants."""

from itertools import product

import numpy as np
import pytest
from scipy.special import softmax

from bandit_sim import Contexts, ParticleArms, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import contextual_flow, kernel_flow, negative_reward
from theory.pay import NegativeOnly
from theory.refusal import Refusal
from theory.rules import preset
from theory.trees.synthetic_tree import synthetic_tree

ARMS = Contexts.spectrum(
    [0.2, 0.05], held_out=[0.1], arms=6, correct=2, overlap=0.4, within=0.3, cross=-0.1, wrong=0.2
)
AT = np.array([0.0, 200.0, 400.0, 600.0])


@pytest.fixture(scope="module")
def seen():
    rule = preset("minimalist", eta=0.05)
    curves = simulate(ARMS, rule, 601, 256, 1, observe=("success", "held_out"), every=200)
    both = np.stack([curves["success"], curves["held_out"]])
    return both.mean(axis=1), both.std(axis=1) / 16


def contrast_of_pairs() -> float:
    kinds = np.asarray(ARMS.kinds)
    return kinds[:2, :2].mean() - 2 * kinds[:2, 2:].mean() + kinds[2:, 2:].mean()


def test_the_contrast_is_a_mean_over_pairs():
    right = np.arange(6) < 2
    agrees = lambda f: abs(f(ARMS.kinds, right) - contrast_of_pairs()) < 1e-12  # noqa: E731
    assert survivors(contextual_flow.contrast, agrees, equivalent=("good **", "~good")) == []


def couplings(overlap: float) -> np.ndarray:
    return contrast_of_pairs() * ((1 - overlap) * np.eye(3) + overlap)


def follows(seen, flow, overlap: float = 0.4) -> bool:
    mean, error = seen
    p = flow([0.2, 0.05, 0.1], couplings(overlap), [0.5, 0.5, 0.0], 0.05, AT)
    law = np.stack([p[:, :2].mean(axis=1), p[:, 2]])
    return bool(np.all(np.abs(law - mean) < 4.5 * error + 0.005))


def test_trained_and_held_out_queries_follow_the_simulator(seen):
    """256 seeds, eta = .05: within 4.5 standard errors and .005; not with another overlap, nor without one."""
    assert (
        survivors(contextual_flow.contextual_flow, lambda f: follows(seen, f), equivalent=("1.0 if gap",))
        == []
    )
    for overlap in (0.0, 0.3, 0.5):
        assert not follows(seen, contextual_flow.contextual_flow, overlap)


def test_without_overlap_nothing_generalises():
    p = contextual_flow.contextual_flow([0.2, 0.05, 0.1], couplings(0.0), [0.5, 0.5, 0.0], 0.05, [0, 10_000])
    assert p[-1, 0] > 0.98 and p[-1, 2] == pytest.approx(0.1)


def test_transfer_depends_on_the_ratio_of_couplings_alone():
    p = contextual_flow.contextual_flow(
        [0.1, 0.2], [[2.0, 0.6], [0.6, 2.0]], [0.0, 1.0], 0.1, [0, 50, 500], lambda q: 1 + q
    )
    agrees = lambda f: np.allclose(f([0.1, 0.2], p[:, 1], 0.3), p[:, 0], rtol=1e-6)  # noqa: E731
    assert survivors(contextual_flow.transfer_limit, agrees) == []


TREE = synthetic_tree(0.01, correct=3, wrong=20, within=0.5, cross=0.4, wrong_overlap=0.5, near=8)
MASS, KERNEL, REWARD = TREE.leaf_probability(), TREE.sequence_kernel(), TREE.reward


def exact_drift(eta: float, pay: tuple[float, float], mass=MASS, kernel=KERNEL, reward=REWARD) -> float:
    """E[log p] after one round minus log p, over all pulls."""
    total = 0.0
    for a, chance in enumerate(mass):
        weight = eta * (pay[1] if reward[a] else pay[0])
        after = softmax(np.log(mass) + weight * (kernel[:, a] - kernel @ mass)) @ reward
        total += chance * np.log(after / (mass @ reward))
    return float(total)


UNEVEN = np.array([0.1, 0.2, 0.4, 0.3])
FEATURES = np.random.default_rng(5).normal(size=(4, 3))
GRAM = FEATURES @ FEATURES.T


def orders(pay: tuple[float, float], rollouts: int) -> np.ndarray:
    """Gain and loss as the odd and the even part in eta of E[log p] after a round of all pulls; scores not centred."""
    reward = np.array([1.0, 1.0, 0.0, 0.0])

    def drift(eta: float) -> float:
        total = 0.0
        for pulls in product(range(4), repeat=rollouts):
            weight = np.where(reward[list(pulls)] > 0, pay[1], pay[0]) * eta / rollouts
            move = sum(w * (GRAM[:, a] - GRAM @ UNEVEN) for w, a in zip(weight, pulls, strict=True))
            total += UNEVEN[list(pulls)].prod() * np.log(softmax(np.log(UNEVEN) + move) @ reward / 0.3)
        return total

    up, down = drift(1e-3), drift(-1e-3)
    return np.array([(up - down) / 2e-3, -(up + down) / 2e-6])


def test_gain_and_loss_are_the_orders_of_the_exact_round():
    cases = list(product([(-1.0, 0.0), (0.0, 1.0), (-1.0, 2.0)], (1, 3)))
    wanted = [orders(*case) for case in cases]

    def agrees(log_drift) -> bool:
        return np.allclose(
            [log_drift(UNEVEN, [1, 1, 0, 0], GRAM, *case) for case in cases], wanted, rtol=1e-3
        )

    equivalent = ("pi.sum", "pi / pi")  # it sums to one already
    assert survivors(negative_reward.log_drift, agrees, helpers=("_spread",), equivalent=equivalent) == []
    kappa = kernel_flow.coupling(UNEVEN, [1, 1, 0, 0], GRAM).contrast
    for ((lost, won), _), (gain, _) in zip(cases, wanted, strict=True):
        assert gain == pytest.approx((won - lost) * 0.3 * 0.49 * kappa, rel=1e-3)


def test_the_step_at_which_the_typical_seed_turns():
    law = negative_reward.log_drift(MASS, REWARD, KERNEL)
    step = law.critical_step
    assert exact_drift(0.7 * step, (-1, 0)) > 0 > exact_drift(1.4 * step, (-1, 0))
    assert negative_reward.log_drift(MASS, REWARD, KERNEL, (0, 1)).critical_step == np.inf
    assert law.at(step) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("pay", [(-1.0, 0.0), (-2.0, 3.0)])
def test_the_rarest_query_that_learns_is_where_the_exact_drift_turns(pay):
    """Sixteen times the kernel, eta = .0001, p* near 1e-4: the sign of E[log p] changes within 4% of it."""
    eta, kernel = 1e-4, 16 * KERNEL
    found = kernel_flow.coupling(MASS, REWARD, kernel)
    rare = np.where(REWARD > 0, MASS / 100, MASS)
    scatter = negative_reward.wrong_scatter(rare, REWARD, kernel)

    def turns(law) -> bool:
        star = law(eta, found.contrast, scatter, pay)
        signs = []
        for p in (0.96 * star, 1.04 * star):
            mass = np.where(REWARD > 0, MASS * p / 0.01, MASS * (1 - p) / 0.99)
            signs.append(exact_drift(eta, pay, mass, kernel) > 0)
        return signs == [False, True]

    equivalent = ("won **",) if pay[1] == 0 else ()
    assert survivors(negative_reward.rarest_that_learns, turns, equivalent=equivalent) == []


def test_the_scatter_is_its_variances():
    wrong = np.where(REWARD > 0, 0, MASS) / 0.99
    right = np.where(REWARD > 0, MASS, 0) / 0.01
    spread = [np.cov(KERNEL[:, a], aweights=w, ddof=0) for w in (MASS, right) for a in range(len(MASS))]
    wanted = wrong @ (np.array(spread[: len(MASS)]) - np.array(spread[len(MASS) :]))
    agrees = lambda f: abs(f(MASS, REWARD, KERNEL) - wanted) < 1e-9  # noqa: E731
    left = survivors(negative_reward.wrong_scatter, agrees, equivalent=("pi.sum", "pi / pi"))
    assert left == []
    even = synthetic_tree(0.01, wrong=20)  # tabular: V near 1/M
    tabular = np.eye(21)
    assert negative_reward.wrong_scatter(even.leaf_probability(), even.reward, tabular) == pytest.approx(
        1 / 20, rel=0.06
    )


def test_simulated_policies_collapse_beyond_the_critical_step_and_learn_below():
    """-1 on failures, p0 = .01: critical step .17. 128 seeds, 301 rounds at 1, 5.7 times beyond, and at .05."""
    arms = ParticleArms.from_tree(TREE)
    assert negative_reward.log_drift(MASS, REWARD, KERNEL).critical_step == pytest.approx(0.174, abs=1e-3)
    p = {
        eta: simulate(arms, preset("minimalist", eta=eta), 301, 128, 1, every=300, pay=NegativeOnly())[
            "success"
        ]
        for eta in (1.0, 0.05)
    }
    assert np.quantile(p[1.0][:, -1], 0.9) < 0.005  # nine in ten seeds have lost half of it and more
    assert np.quantile(p[0.05][:, -1], 0.5) > 0.0102
    raw = simulate(arms, preset("minimalist", eta=1.0), 301, 128, 1, every=300)["success"]
    assert raw[:, -1].min() >= 0.0095  # raw reward moves on successes alone
    assert np.mean(raw[:, -1] > 0.02) > 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: contextual_flow.contextual_flow([0.1], [[1.0]], [0.5, 0.5], 0.1, [0, 1]),
            r"p0 \(1,\), coupling \(1, 1\), frequency \(2,\); give \(N,\), \(N, N\), \(N,\)",
        ),
        (
            lambda: negative_reward.rarest_that_learns(0.0, 1.0, 1.0),
            "eta = 0; give a value finite and above 0",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(Refusal, match=message):
        call()
