"""Expected updates by enumeration of every outcome: no sampling, no tolerance for luck."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.rules import (
    CISPO,
    GMPO,
    GSPO,
    K1,
    K2,
    K3,
    SGD,
    Batch,
    GroupMean,
    GroupMeanStd,
    KAbs,
    LeaveOneOut,
    MaxRL,
    PolicyGradient,
    PPOClip,
    Raw,
    Rule,
    SampledEntropy,
    SequenceClip,
    SequenceSum,
    TokenMean,
    entropy_gradient,
)

quick = settings(max_examples=15, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def rule_of(signal, n: int, **parts) -> Rule:
    return Rule(signal=signal, optimiser=SGD(eta=1), rollouts=n, **parts)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def update(
    rule: Rule, pi: np.ndarray, rewards: np.ndarray, arms, ref: np.ndarray | None = None
) -> np.ndarray:
    """(K,) logit update for these pulled arms: sum_i w_i (e_arm - pi)."""
    arms = np.asarray(arms)
    logp = np.log(pi)[arms][:, None]
    ref_logp = logp if ref is None else np.log(ref)[arms][:, None]
    batch = Batch(logp, logp, ref_logp, rewards[arms], np.zeros(len(arms), dtype=int), np.ones_like(logp))
    w = rule.weights(batch)[0][:, 0]
    return w @ (np.eye(len(pi))[arms] - pi)


def expected_update(
    rule: Rule, pi: np.ndarray, rewards: np.ndarray, ref: np.ndarray | None = None
) -> np.ndarray:
    outcomes = product(range(len(pi)), repeat=rule.rollouts)
    updates = [np.prod(pi[list(arms)]) * update(rule, pi, rewards, arms, ref) for arms in outcomes]
    return np.sum(updates, axis=0)


def bandit(seed: int, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(0, 1, k)), rng.normal(0, 1, k)


def exact(pi: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Gradient of the expected reward of a softmax policy: pi_b (r_b - r.pi)."""
    return pi * (rewards - rewards @ pi)


@quick
@given(seed=seeds, n=st.sampled_from([1, 2, 3]))
def test_raw_reward_is_unbiased_at_any_number_of_rollouts(seed, n):
    pi, r = bandit(seed)
    np.testing.assert_allclose(expected_update(rule_of(Raw(), n), pi, r), exact(pi, r), atol=1e-12)


@quick
@given(seed=seeds, baseline=st.floats(-5, 5))
def test_a_baseline_that_knows_no_action_leaves_the_expectation(seed, baseline):
    pi, r = bandit(seed)
    np.testing.assert_allclose(expected_update(rule_of(Raw(), 2), pi, r - baseline), exact(pi, r), atol=1e-11)


@quick
@given(seed=seeds, n=st.sampled_from([2, 3, 4]))
def test_leave_one_out_is_unbiased(seed, n):
    pi, r = bandit(seed)
    np.testing.assert_allclose(expected_update(rule_of(LeaveOneOut(), n), pi, r), exact(pi, r), atol=1e-12)


@quick
@given(seed=seeds, n=st.sampled_from([2, 3, 4]))
def test_the_group_mean_shrinks_the_gradient_by_n_minus_one_over_n(seed, n):
    pi, r = bandit(seed)
    expected = (n - 1) / n * exact(pi, r)
    np.testing.assert_allclose(expected_update(rule_of(GroupMean(), n), pi, r), expected, atol=1e-12)


@pytest.mark.parametrize(
    "objective",
    [PPOClip(), PPOClip(dual_clip=3), CISPO(clip_high=1), GSPO(), GMPO(), SequenceClip()],
    ids=lambda objective: objective.kind,
)
@quick
@given(seed=seeds)
def test_on_policy_clipping_changes_no_expectation(objective, seed):
    pi, r = bandit(seed)
    clipped = rule_of(LeaveOneOut(), 2, objective=objective)
    np.testing.assert_allclose(expected_update(clipped, pi, r), exact(pi, r), atol=1e-12)


def off_policy_update(rule: Rule, pi: np.ndarray, old: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Expected update of one rollout of one token drawn from `old`, at the policy pi."""
    total = np.zeros(len(pi))
    for arm in range(len(pi)):
        logp, old_logp = np.log(pi[[arm]])[:, None], np.log(old[[arm]])[:, None]
        batch = Batch(logp, old_logp, logp, rewards[[arm]], np.zeros(1, dtype=int), np.ones((1, 1)))
        total += old[arm] * rule.weights(batch)[0][0, 0] * (np.eye(len(pi))[arm] - pi)
    return total


@quick
@given(seed=seeds)
def test_off_policy_the_ratio_is_unbiased_where_no_clip_binds_and_without_it_is_not(seed):
    (pi, r), old = bandit(seed), bandit(seed + 1)[0]
    ratios = pi / old
    high = ratios.max() + 1
    wide = [PPOClip(clip_low=0.9999, clip_high=high), CISPO(clip_high=high)]
    wide += [SequenceClip(clip_low=0.9999, clip_high=high), GSPO(clip_low=0.9999, clip_high=high)]
    for objective in wide:
        actual = off_policy_update(rule_of(Raw(), 1, objective=objective), pi, old, np.abs(r))
        np.testing.assert_allclose(actual, exact(pi, np.abs(r)), atol=1e-12)
    plain = off_policy_update(rule_of(Raw(), 1, objective=PolicyGradient()), pi, old, np.abs(r))
    assert np.linalg.norm(plain - exact(pi, np.abs(r))) > 1e-9


@quick
@given(seed=seeds)
def test_logit_updates_sum_to_zero(seed):
    pi, r = bandit(seed, 5)
    arms = np.random.default_rng(seed).integers(0, 5, 4)
    ref = bandit(seed + 1, 5)[0]
    for signal in (Raw(), GroupMean(), GroupMeanStd(), LeaveOneOut()):
        assert abs(update(rule_of(signal, 4, kl=K3(beta=0.5)), pi, r, arms, ref).sum()) < 1e-12


@quick
@given(seed=seeds)
def test_relabelling_arms_relabels_the_update(seed):
    pi, r = bandit(seed, 5)
    rng = np.random.default_rng(seed)
    arms, order = rng.integers(0, 5, 4), rng.permutation(5)
    moved = update(rule_of(LeaveOneOut(), 4), pi[order], r[order], np.argsort(order)[arms])
    np.testing.assert_allclose(moved, update(rule_of(LeaveOneOut(), 4), pi, r, arms)[order], atol=1e-12)


@quick
@given(seed=seeds)
def test_a_batch_of_single_rollouts_is_the_mean_of_single_updates(seed):
    pi, r = bandit(seed, 5)
    arms = np.random.default_rng(seed).integers(0, 5, 4)
    singles = np.mean([update(rule_of(Raw(), 1), pi, r, [arm]) for arm in arms], axis=0)
    np.testing.assert_allclose(update(rule_of(Raw(), 4), pi, r, arms), singles, atol=1e-12)


def reverse_kl(pi: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """Gradient of KL(pi || ref) in the logits of pi: pi_b (log pi_b / ref_b - KL)."""
    return exact(pi, np.log(pi / ref))


@quick
@given(seed=seeds, beta=st.floats(0.01, 2))
def test_k3_in_the_loss_descends_the_forward_kl(seed, beta):
    """The gradient of KL(ref || pi) in the logits is pi - ref, so the ascent is beta (ref - pi)."""
    pi, ref = bandit(seed)[0], bandit(seed + 1)[0]
    rule = rule_of(Raw(), 1, kl=K3(beta=beta))
    actual = expected_update(rule, pi, np.zeros(3), ref)
    np.testing.assert_allclose(actual, beta * (ref - pi), atol=1e-12)
    assert np.linalg.norm(actual + beta * reverse_kl(pi, ref)) > 1e-9


@quick
@given(seed=seeds, beta=st.floats(0.01, 2), n=st.sampled_from([1, 2]))
def test_k1_in_the_loss_only_adds_noise(seed, beta, n):
    pi, ref = bandit(seed)[0], bandit(seed + 1)[0]
    rule = rule_of(Raw(), n, kl=K1(beta=beta))
    np.testing.assert_allclose(expected_update(rule, pi, np.zeros(3), ref), 0, atol=1e-12)
    assert np.linalg.norm(update(rule, pi, np.zeros(3), [0] * n, ref)) > 1e-6


@quick
@given(seed=seeds, beta=st.floats(0.01, 2), n=st.sampled_from([2, 3]))
def test_k2_in_the_loss_and_k1_in_the_reward_descend_the_reverse_kl(seed, beta, n):
    """Leave-one-out keeps the expectation, so the penalised reward may pass through it too."""
    (pi, r), ref = bandit(seed), bandit(seed + 1)[0]
    expected = exact(pi, r) - beta * reverse_kl(pi, ref)
    for kl in (K2(beta=beta), K1(beta=beta, place="reward")):
        for signal in (Raw(), LeaveOneOut()):
            actual = expected_update(rule_of(signal, n, kl=kl), pi, r, ref)
            np.testing.assert_allclose(actual, expected, atol=1e-11)


@quick
@given(seed=seeds)
def test_every_other_kl_gradient_is_that_of_its_own_value_or_of_none(seed):
    """In the reward, k_x gives -sum over arms of grad pi times k_x: by enumeration, from the printed values."""
    pi, ref = bandit(seed)[0], bandit(seed + 1)[0]
    d = np.log(ref / pi)
    printed = {K2: d**2 / 2, K3: np.exp(d) - d - 1, KAbs: np.abs(d)}
    for kind, value in printed.items():
        actual = expected_update(rule_of(Raw(), 1, kl=kind(beta=0.7, place="reward")), pi, np.zeros(3), ref)
        np.testing.assert_allclose(actual, -0.7 * exact(pi, value), atol=1e-12)
        assert np.linalg.norm(actual + 0.7 * reverse_kl(pi, ref)) > 1e-9
    actual = expected_update(rule_of(Raw(), 1, kl=KAbs(beta=0.7)), pi, np.zeros(3), ref)
    np.testing.assert_allclose(actual, 0.7 * exact(pi, np.sign(d)), atol=1e-12)


@quick
@given(seed=seeds)
def test_k1_and_k3_estimate_the_kl_without_bias(seed):
    pi, ref = bandit(seed, 5)[0], bandit(seed + 1, 5)[0]
    logs = np.log(pi)[:, None]
    batch = Batch(logs, logs, np.log(ref)[:, None], 0 * pi, np.zeros(5, dtype=int), np.ones((5, 1)))
    value = {kind: pi @ kind(beta=1, place="reward").penalty(batch) for kind in (K1, K2, K3)}
    kl = pi @ np.log(pi / ref)
    assert value[K1] == pytest.approx(kl, abs=1e-12) and value[K3] == pytest.approx(kl, abs=1e-12)
    assert value[K2] != pytest.approx(kl, abs=1e-9)


@quick
@given(seed=seeds, n=st.sampled_from([1, 2, 3]), beta=st.floats(0.01, 2))
def test_the_sampled_entropy_bonus_climbs_the_exact_entropy(seed, n, beta):
    pi = bandit(seed)[0]
    centres = ("none", "group") if n > 1 else ("none",)
    for centre in centres:
        rule = rule_of(Raw(), n, entropy=SampledEntropy(beta=beta, centre=centre))
        actual = expected_update(rule, pi, np.zeros(3))
        np.testing.assert_allclose(actual, beta * entropy_gradient(np.log(pi)), atol=1e-12)


@quick
@given(seed=seeds)
def test_off_policy_the_sampled_entropy_bonus_stays_unbiased(seed):
    pi, old = bandit(seed)[0], bandit(seed + 1)[0]
    actual = off_policy_update(rule_of(Raw(), 1, entropy=SampledEntropy(beta=1)), pi, old, np.zeros(3))
    np.testing.assert_allclose(actual, entropy_gradient(np.log(pi)), atol=1e-12)


def test_centring_the_sampled_entropy_lowers_its_variance_near_uniform():
    """At the uniform policy every surprise is log K: centred by the others it is exactly zero."""
    pi = np.full(4, 0.25)
    centred = rule_of(Raw(), 2, entropy=SampledEntropy(beta=1, centre="group"))
    plain = rule_of(Raw(), 2, entropy=SampledEntropy(beta=1))
    np.testing.assert_allclose(update(centred, pi, np.zeros(4), [1, 2]), 0, atol=1e-15)
    assert np.linalg.norm(update(plain, pi, np.zeros(4), [1, 2])) > 0.5


@pytest.mark.parametrize("p", [0.1, 0.6])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_max_rl_is_the_truncated_gradient_of_log_p(n, p):
    """sum_{k=1..K} (1-p)^(k-1) grad p: K = n for the paper's estimator, K = n - 1 for prime-rl's (r - m)/m,
    which drops its baseline in the rounds without success, E[-sum_i score_i / n; none succeeds] = (1-p)^(n-1) grad p.
    """
    pi, r = np.array([p, 0.7 * (1 - p), 0.3 * (1 - p)]), np.array([1.0, 0.0, 0.0])
    for baseline, terms in (("none", n), ("mean", n - 1)):
        factor = sum((1 - p) ** (k - 1) for k in range(1, terms + 1))
        actual = expected_update(rule_of(MaxRL(baseline=baseline), n), pi, r)
        np.testing.assert_allclose(actual, factor * exact(pi, r), atol=1e-12)


def variable_length_update(rule: Rule, theta: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Expected update over responses "0", "1 0", "1 1": one token, or two from a second softmax."""
    first, second = softmax(theta[:2]), softmax(theta[2:])
    score = np.zeros((3, 2, 4))  # response, token, parameter
    score[0, 0, :2] = [1, 0] - first
    score[1:, 0, :2] = [0, 1] - first
    score[1, 1, 2:], score[2, 1, 2:] = [1, 0] - second, [0, 1] - second
    mass = np.array([first[0], first[1] * second[0], first[1] * second[1]])
    mask = np.array([[1.0, 0], [1, 1], [1, 1]])
    total = np.zeros(4)
    for outcome in product(range(3), repeat=rule.rollouts):
        i = list(outcome)
        batch = Batch(-mask[i], -mask[i], -mask[i], rewards[i], np.zeros(len(i), dtype=int), mask[i])
        total += np.prod(mass[i]) * np.einsum("it,itp->p", rule.weights(batch)[0], score[i])
    return total


@quick
@given(seed=seeds, n=st.sampled_from([2, 3]))
def test_with_unequal_lengths_the_sequence_sum_is_exact_and_the_token_mean_is_not(seed, n):
    rng = np.random.default_rng(seed)
    theta, rewards = rng.normal(0, 1, 4), np.array([1.0, 0.0, 0.5]) + rng.normal(0, 0.1, 3)

    def value(x: np.ndarray) -> float:
        a, b = softmax(x[:2]), softmax(x[2:])
        return float(rewards @ np.array([a[0], a[1] * b[0], a[1] * b[1]]))

    step = 1e-6 * np.eye(4)
    gradient = np.array([(value(theta + s) - value(theta - s)) / 2e-6 for s in step])
    for signal in (Raw(), LeaveOneOut()):
        exact_rule = rule_of(signal, n, aggregation=SequenceSum())
        np.testing.assert_allclose(variable_length_update(exact_rule, theta, rewards), gradient, atol=1e-8)
    token_mean = variable_length_update(rule_of(Raw(), n, aggregation=TokenMean()), theta, rewards)
    cosine = token_mean @ gradient / np.linalg.norm(token_mean) / np.linalg.norm(gradient)
    assert cosine < 1 - 1e-6


def test_golden_minimalist_update():
    """Three arms at pi = (1/2, 1/4, 1/4), arm 1 pulled and correct: e_1 - pi = (-1/2, 3/4, -1/4)."""
    pi, r = np.array([0.5, 0.25, 0.25]), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(update(rule_of(Raw(), 1), pi, r, [1]), [-0.5, 0.75, -0.25])
    np.testing.assert_array_equal(update(rule_of(Raw(), 1), pi, r, [0]), 0)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_law_standardised_signal_on_two_arms(n):
    """0/1 reward, population std: with m successes of n the correct logit moves by sqrt(m (n - m)) / n."""
    p = 0.3
    rule = rule_of(GroupMeanStd(ddof=0, eps=0), n)
    expected = sum(comb(n, m) * p**m * (1 - p) ** (n - m) * np.sqrt(m * (n - m)) / n for m in range(n + 1))
    actual = expected_update(rule, np.array([p, 1 - p]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(actual, [expected, -expected], atol=1e-12)
