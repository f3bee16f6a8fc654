"""The U-statistic law: enumeration of every round through the rule's own arithmetic, the simulator, the sweep."""

from itertools import product

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim import Contexts, expected_step, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import batch_split
from theory.laws.batch_split import Split
from theory.refusal import Refusal
from theory.rules import SGD, LeaveOneOut, Raw, Rule, preset
from theory.rules.batch import Batch
from theory.trees.synthetic_tree import synthetic_tree

RNG = np.random.default_rng(0)
POLICY = RNG.dirichlet(np.ones(3), size=3)
REWARD = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0.5, 1]])
FEATURES = RNG.normal(size=(3, 3, 4))
FLAT = FEATURES.reshape(9, 4)
KERNEL = FLAT @ FLAT.T
SCORES = FEATURES - np.einsum("qk,qkp->qp", POLICY, FEATURES)[:, None, :]
GRADIENT = np.einsum("qk,qk,qkp->p", POLICY, REWARD, SCORES) / 3


def enumerated(batch: int, rule: Rule, *, replace: bool) -> float:
    """MSE of the round's gradient in parameters: all draws of queries, all pulls, weights of the rule."""
    total = 0.0
    picks = [p for p in product(range(3), repeat=batch) if replace or len(set(p)) == batch]
    for queries in picks:
        for pulls in product(range(3), repeat=batch * rule.rollouts):
            q, a = np.repeat(queries, rule.rollouts), np.array(pulls)
            zero, one = np.zeros((len(a), 1)), np.ones((len(a), 1))
            group = np.repeat(np.arange(batch), rule.rollouts)
            weights, _ = rule.weights(Batch(zero, zero, zero, REWARD[q, a], group, one), rule.init(np, batch))
            miss = weights[:, 0] @ SCORES[q, a] - GRADIENT
            total += POLICY[q, a].prod() * (miss @ miss) / len(picks)
    return total


def loo(rollouts: int) -> Rule:
    return Rule(signal=LeaveOneOut(), optimiser=SGD(eta=1), rollouts=rollouts)


ONE = Rule(signal=Raw(), optimiser=SGD(eta=1))
LOO = {
    (1, 2): enumerated(1, loo(2), replace=True),
    (1, 4): enumerated(1, loo(4), replace=True),
    (2, 2): enumerated(2, loo(2), replace=True),
}
RAW = {(b, 1): enumerated(b, ONE, replace=True) for b in (1, 2)}


def equals_enumeration(constants) -> bool:
    pair = constants(POLICY, REWARD, KERNEL), constants(POLICY, REWARD, KERNEL, "none")
    return all(
        np.isclose(split.mse(*at), wanted, rtol=1e-9)
        for split, table in zip(pair, (LOO, RAW), strict=True)
        for at, wanted in table.items()
    )


def test_leave_one_out_and_raw_have_the_enumerated_error_and_no_mutant_has():
    equivalent = (
        "pi.sum",
        "np.eye(count)[:, :, None] **",
        "np.eye(arms) **",
    )  # a check; powers of an identity
    left = survivors(batch_split.constants, equals_enumeration, helpers=("_centred",), equivalent=equivalent)
    assert left == []


def test_a_value_baseline_costs_nothing():
    known, estimated = (batch_split.constants(POLICY, REWARD, KERNEL, b) for b in ("value", "leave_one_out"))
    assert known.baseline == 0 and estimated.baseline > 0
    assert known[:2] == pytest.approx(estimated[:2])


def test_a_pool_drawn_without_replacement_has_its_correction():
    split = batch_split.constants(POLICY, REWARD, KERNEL, pool=3)
    assert split.mse(2, 2) == pytest.approx(enumerated(2, loo(2), replace=False), rel=1e-9)
    assert split.mse(3, 2) == pytest.approx((split.rollouts + split.baseline) / 6)  # all of it: c1 is gone


@given(c1=st.floats(0.01, 10), c2=st.floats(0, 10), c3=st.floats(0.01, 100), power=st.integers(0, 10))
def test_the_best_group_is_the_least_of_the_sweep(c1, c2, c3, power):
    split, budget = Split(c1, c2, c3), 2**power
    batch, group = split.best_split(budget)
    assert batch * group == budget
    errors = [float(split.mse(budget / g, g)) for g in (split.best_group * f for f in (0.9, 1, 1.1)) if g > 1]
    assert min(errors) == errors[-2]
    if budget >= 2 * split.best_group:  # a power of two within a factor of two of the real optimum
        assert split.best_group / 2 <= group <= 2 * split.best_group


def test_the_optimum_of_the_source_lacks_one():
    """c1 = 1, c3 = 49: sqrt(c3/c1) = 7, exactly 8; the paper's 32 x 8 of 256 is such a point."""
    split = Split(1.0, 5.0, 49.0)
    assert split.best_group == 8 and split.best_split(256) == (32, 8)
    assert Split(0.0, 1.0, 1.0).best_group == np.inf and Split(0.0, 1.0, 1.0).best_split(16) == (1, 16)


def test_one_probed_query_wants_all_rollouts():
    """A tree stands for a probe: its leaves, their rewards and sequence kernel; c1 = 0, and c2 by its definition."""
    tree = synthetic_tree(0.2, correct=2, wrong=4, depth=2, within=0.3)
    pi, kernel = tree.leaf_probability(), tree.sequence_kernel()
    split = batch_split.constants(pi[None], tree.reward[None], kernel)
    push = pi * (tree.reward - 0.2)
    noise = (pi * (tree.reward - 0.2) ** 2) @ np.diag(kernel) - push @ kernel @ push
    assert split.queries == pytest.approx(0, abs=1e-12) and split.rollouts == pytest.approx(noise)


def test_raw_reward_wants_one_rollout_per_query():
    split = batch_split.constants(POLICY, REWARD, KERNEL, "none")
    assert split.best_group == 1 and split.best_split(256) == (256, 1)
    sweep = [float(split.mse(256 // g, g)) for g in (1, 2, 4, 8, 16, 32, 64, 128, 256)]
    assert np.all(np.diff(sweep) > 0)


ARMS = Contexts.spectrum([0.1, 0.3, 0.6, 0.8], arms=4, correct=2, batch=2, overlap=0.3, within=0.5)
PI = np.exp(np.asarray(ARMS.logits)).reshape(4, 4)
SHARED = batch_split.shared_kernel(4, ARMS.kinds, float(ARMS.overlap))
PAID = np.asarray(ARMS.reward).reshape(4, 4)


def test_the_mean_gradient_is_the_simulators():
    """eta |g|^2 is the expected step: one query and one pull a round, by enumeration."""
    one = Contexts(ARMS.logits, ARMS.reward, ARMS.overlap, ARMS.kinds, None, 4, 1)
    eta = 1e-5
    with jax.enable_x64(True):
        step = expected_step(one, Rule(optimiser=SGD(eta=eta))) / eta
    push = PI * (PAID - (PI * PAID).sum(axis=1, keepdims=True)) / 4

    def agrees(shared_kernel) -> bool:
        return abs(push.ravel() @ shared_kernel(4, ARMS.kinds, 0.3) @ push.ravel() / step - 1) < 1e-4

    assert survivors(batch_split.shared_kernel, agrees, equivalent=("np.eye(queries) **",)) == []


@pytest.mark.parametrize(
    ("name", "rollouts", "baseline"), [("rloo", 2, "leave_one_out"), ("minimalist", 1, "none")]
)
def test_simulated_rounds_scatter_as_the_law_says(name, rollouts, baseline):
    """4,096 first rounds of two queries: variance of the step of mean success, within 12% (four errors)."""
    eta = 0.01
    p = simulate(ARMS, preset(name, eta=eta, rollouts=rollouts), 2, 4096, 3, dtype="float64")["success"]
    seen = ((p[:, 1] - p[:, 0]) / eta).var()

    def agrees(along) -> bool:
        split = batch_split.constants(PI, PAID, along(PI, PAID, SHARED), baseline, pool=4)
        return bool(abs(split.mse(2, rollouts) / seen - 1) < 0.12)

    assert agrees(batch_split.along_gradient)
    assert not agrees(lambda *a: 1.3 * batch_split.along_gradient(*a))
    unpooled = batch_split.constants(PI, PAID, batch_split.along_gradient(PI, PAID, SHARED), baseline)
    assert unpooled.mse(2, rollouts) > seen


def test_along_the_gradient_nothing_but_the_gradient_is_left():
    """Constants of u u^T: c1 is the spread of u.g_q, by hand."""
    push = POLICY * (REWARD - (POLICY * REWARD).sum(axis=1, keepdims=True))
    inner = np.einsum("qa,qapb,pb->qp", push, KERNEL.reshape(3, 3, 3, 3), push)

    def agrees(along) -> bool:
        found = batch_split.constants(POLICY, REWARD, along(POLICY, REWARD, KERNEL))
        return abs(found.queries - inner.mean(axis=1).var()) < 1e-12

    assert survivors(batch_split.along_gradient, agrees) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((POLICY, REWARD[:2], KERNEL), r"policy \(3, 3\), reward \(2, 3\), kernel \(9, 9\); give"),
        ((POLICY / 2, REWARD, KERNEL), "policy sums to 0.5; give probabilities of all responses"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(Refusal, match=message):
        batch_split.constants(*arguments)
