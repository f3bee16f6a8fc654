"""Objectives, KL and aggregations: relations that hold for any batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rules.table import random_batch
from theory.rules import (
    CISPO,
    GMPO,
    GSPO,
    K1,
    K2,
    K3,
    Batch,
    Constant,
    ExactEntropy,
    KAbs,
    MicroBatchTokenMean,
    NoKL,
    PolicyGradient,
    PPOClip,
    SampledEntropy,
    SequenceClip,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
    entropy_gradient,
)

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def one_token(log_ratio: float) -> Batch:
    """One rollout of one token whose ratio to the sampling policy is exp(log_ratio)."""
    one = np.ones((1, 1))
    return Batch(-one, -one - log_ratio, -one, np.ones(1), np.zeros(1, dtype=int), one)


@quick
@given(seed=seeds, a=st.floats(-3, 3), low=st.floats(0.01, 0.9), high=st.floats(0.01, 3))
def test_the_clip_binds_only_where_the_ratio_has_gone_the_way_the_advantage_pushes(seed, a, low, high):
    batch = random_batch(seed).cleaned()
    ratio = np.exp(batch.logprobs - batch.old_logprobs)
    c = PPOClip(clip_low=low, clip_high=high).coefficient(batch, np.full(6, a))
    bound = ratio > 1 + high if a > 0 else ratio < 1 - low
    np.testing.assert_array_equal(c, np.where(bound, 0.0, ratio * a))


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected"),
    [
        (np.log(1.5), 1.0, 0.0),  # already 1.5 times as likely, pushed up: clipped
        (np.log(1.5), -1.0, -1.5),  # 1.5 times as likely, pushed down: free
        (np.log(0.5), 1.0, 0.5),  # half as likely, pushed up: free
        (np.log(0.5), -1.0, 0.0),  # half as likely, pushed down: clipped
        (0.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_golden_clip(log_ratio, advantage, expected):
    coefficient = PPOClip().coefficient(one_token(log_ratio), np.array([advantage]))
    assert coefficient[0, 0] == pytest.approx(expected, abs=1e-14)


def response(log_ratios: list[float], log_ref: float = 0.0) -> Batch:
    """One rollout whose tokens have these log ratios to the sampling policy, and log_ref to the reference."""
    ones = np.ones((1, len(log_ratios)))
    return Batch(
        -ones, -ones - np.array([log_ratios]), -ones + log_ref, np.ones(1), np.zeros(1, dtype=int), ones
    )


@pytest.mark.parametrize(
    ("objective", "ratios", "advantage", "expected"),
    [
        # A < 0 at ratio 4: single clip -4; dual clip at 3 stops it; at ratio 2.5 it does not bind yet
        (PPOClip(), [4], -1.0, [-4]),
        (PPOClip(dual_clip=3), [4], -1.0, [0]),
        (PPOClip(dual_clip=3), [2.5], -1.0, [-2.5]),
        (PPOClip(dual_clip=3, clip_high=9), [4], 1.0, [4]),  # a positive advantage never meets it
        # CISPO bounds the weight and keeps the token: min(4, 1.28) = 1.28, and no lower bound by default
        (CISPO(clip_high=0.28), [4, 0.01], 2.0, [2.56, 0.02]),
        (CISPO(clip_high=0.28, clip_low=0.2), [4, 0.01], -2.0, [-2.56, -1.6]),
        # s = (2 * 1/2 * 8)^(1/3) = 2 on all three tokens; clipped from above for A > 0 alone
        (GSPO(clip_high=1.5), [2, 0.5, 8], 1.0, [2, 2, 2]),
        (GSPO(), [2, 0.5, 8], 1.0, [0, 0, 0]),
        (GSPO(), [2, 0.5, 8], -1.0, [-2, -2, -2]),
        # r = 2 * 1/2 * 8 = 8
        (SequenceClip(clip_high=8), [2, 0.5, 8], 1.0, [8, 8, 8]),
        (SequenceClip(), [2, 0.5, 8], 1.0, [0, 0, 0]),
        (SequenceClip(), [0.5, 0.5], -1.0, [0, 0]),
        (SequenceClip(), [0.5, 0.5], 1.0, [0.25, 0.25]),
        # clip at e^ln2 = 2: (2 * 1/2 * 2)^(1/3) = 2^(1/3); the clipped third token gets nothing
        (GMPO(clip_low=np.log(2), clip_high=np.log(2)), [1.9, 1 / 1.9, 8], 1.0, [2 ** (1 / 3)] * 2 + [0]),
        # A < 0 clips from below: (8 * 1/2)^(1/2) = 2, the second token clipped at 1/2
        (GMPO(clip_low=np.log(2), clip_high=np.log(2)), [8, 0.25], -1.0, [-2, 0]),
    ],
)
def test_golden_coefficients(objective, ratios, advantage, expected):
    c = objective.coefficient(response(np.log(ratios).tolist()), np.array([advantage]))
    np.testing.assert_allclose(c, [expected], rtol=1e-12, atol=1e-14)


@quick
@given(seed=seeds, low=st.floats(0.01, 0.9), high=st.floats(0.01, 3))
def test_at_one_token_the_sequence_clips_are_the_token_clip(seed, low, high):
    batch = random_batch(seed, tokens=1).cleaned()
    token = PPOClip(clip_low=low, clip_high=high).coefficient(batch, batch.rewards)
    for objective in (SequenceClip(clip_low=low, clip_high=high), GSPO(clip_low=low, clip_high=high)):
        np.testing.assert_allclose(objective.coefficient(batch, batch.rewards), token, rtol=1e-12)
    logs = GMPO(clip_low=-np.log(1 - low), clip_high=np.log(1 + high))
    np.testing.assert_allclose(logs.coefficient(batch, batch.rewards), token, rtol=1e-12)


@quick
@given(seed=seeds, a=st.floats(-3, 3).filter(lambda a: a != 0))
def test_cispo_never_drops_a_token(seed, a):
    batch = random_batch(seed).cleaned()
    c = CISPO(clip_high=0.2).coefficient(batch, np.full(6, a))
    assert np.all(np.sign(c) == np.sign(a)) and np.all(np.abs(c) <= 1.2 * abs(a) * (1 + 1e-12))


@quick
@given(seed=seeds, c=st.floats(1.01, 5))
def test_the_dual_clip_only_takes_away_from_negative_advantages(seed, c):
    batch = random_batch(seed).cleaned()
    single = PPOClip().coefficient(batch, batch.rewards)
    dual = PPOClip(dual_clip=c).coefficient(batch, batch.rewards)
    beyond = (np.exp(batch.logprobs - batch.old_logprobs) > c) & (batch.rewards < 0)[:, None]
    np.testing.assert_array_equal(dual, np.where(beyond, 0, single))


@quick
@given(seed=seeds)
def test_the_policy_gradient_never_reads_the_sampling_policy(seed):
    batch = random_batch(seed)
    c = PolicyGradient().coefficient(batch, batch.rewards)
    np.testing.assert_array_equal(c, np.broadcast_to(batch.rewards[:, None], (6, 4)))


@quick
@given(seed=seeds, beta=st.floats(1e-3, 10))
def test_k3_pulls_towards_the_reference_in_proportion_to_beta(seed, beta):
    batch = random_batch(seed)
    c = K3(beta=beta).coefficient(batch)
    assert np.all(np.sign(c) == np.sign(batch.ref_logprobs - batch.logprobs))
    np.testing.assert_allclose(c, beta * K3(beta=1).coefficient(batch), rtol=1e-12)
    assert np.all(NoKL().coefficient(batch) == 0)


@pytest.mark.parametrize(
    ("kind", "value", "slope"),
    # d = log 2 on each of two tokens: k1 = -log 2, k2 = log(2)^2 / 2, k3 = 2 - log 2 - 1, |d| = log 2
    [
        (K1, -np.log(2), 1.0),
        (K2, np.log(2) ** 2 / 2, -np.log(2)),
        (K3, 1 - np.log(2), -1.0),
        (KAbs, np.log(2), -1.0),
    ],
)
def test_golden_kl(kind, value, slope):
    """beta = 1/2: the penalty is the sum over two tokens, the coefficient the descent of each."""
    batch = response([0.0, 0.0], log_ref=np.log(2))
    in_loss, in_reward = kind(beta=0.5), kind(beta=0.5, place="reward")
    np.testing.assert_allclose(in_loss.coefficient(batch), [[-0.5 * slope] * 2])
    np.testing.assert_allclose(in_reward.penalty(batch), [0.5 * 2 * value])
    assert not in_loss.penalty(batch).any() and not in_reward.coefficient(batch).any()


def test_a_penalty_in_the_reward_is_taken_at_sampling_time():
    """Later epochs move log pi, not the reward; the pull in the loss does move."""
    first, later = response([0.0, 0.0], log_ref=1.0), response([0.3, -0.2], log_ref=1.0)
    later = later._replace(
        logprobs=first.old_logprobs + np.array([[0.3, -0.2]]), old_logprobs=first.old_logprobs
    )
    for kind in (K1, K2, K3, KAbs):
        penalty = kind(beta=1, place="reward").penalty
        np.testing.assert_array_equal(penalty(first), penalty(later))
    assert np.any(K2(beta=1).coefficient(first) != K2(beta=1).coefficient(later))


@pytest.mark.parametrize("seed", range(5))
def test_the_entropy_gradient_is_that_of_autodiff_on_every_back_end(seed):
    theta = np.random.default_rng(seed).normal(0, 2, 6)
    logits = torch.tensor(theta, requires_grad=True)
    logs = torch.log_softmax(logits, 0)
    (-(logs.exp() * logs).sum()).backward()
    assert logits.grad is not None
    ours = entropy_gradient(logs.detach().numpy())
    np.testing.assert_allclose(ours, logits.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(entropy_gradient(logs.detach()).numpy(), ours, atol=1e-12)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        np.testing.assert_allclose(entropy_gradient(jnp.asarray(logs.detach().numpy())), ours, atol=1e-12)
    assert abs(ours.sum()) < 1e-12


def test_golden_entropy_gradient():
    """pi = (1/2, 1/2, 0): uniform on two arms, a maximum there, and an arm without mass gets exactly zero.
    pi = (3/4, 1/4): 3/16 log(1/3) = -.20599 on the first logit."""
    np.testing.assert_allclose(entropy_gradient(np.log([0.5, 0.5, 1e-320])), [0, 0, 0], atol=1e-15)
    dead = entropy_gradient(np.array([np.log(0.5), np.log(0.5), -np.inf]))
    assert np.all(np.isfinite(dead)) and dead[2] == 0
    expected = 3 / 16 * np.log(1 / 3) * np.array([1, -1])
    np.testing.assert_allclose(entropy_gradient(np.log([0.75, 0.25])), expected, rtol=1e-12)


def test_golden_sampled_entropy():
    """Surprises 1, 2 | 3 in one group, beta 6, three tokens: weights 2 (1, 2, 3); centred by the other rollout's
    mean, 2 (1 - 3, 2 - 3, 3 - 1.5). A rollout alone in its group is not centred."""
    surprise = np.array([[1.0, 2.0], [3.0, 0.0]])
    mask = np.array([[1.0, 1.0], [1.0, 0.0]])
    batch = Batch(-surprise, -surprise, -surprise, np.zeros(2), np.zeros(2, dtype=int), mask)
    np.testing.assert_allclose(SampledEntropy(beta=6).weights(batch), [[2, 4], [6, 0]])
    centred = SampledEntropy(beta=6, centre="group")
    np.testing.assert_allclose(centred.weights(batch), [[-4, -2], [3, 0]])
    alone = batch._replace(groups=np.array([0, 1]))
    np.testing.assert_allclose(centred.weights(alone), [[2, 4], [6, 0]])
    np.testing.assert_allclose(ExactEntropy(beta=6).exact_weights(batch), [[2, 2], [2, 0]])
    assert not ExactEntropy(beta=6).weights(batch).any() and not centred.exact_weights(batch).any()


@quick
@given(seed=seeds)
def test_means_are_means(seed):
    batch = random_batch(seed).cleaned()
    if batch.present.any():
        assert TokenMean().scale(batch).sum() == pytest.approx(1)
        assert SequenceMeanTokenMean().scale(batch).sum() == pytest.approx(1)
        mean_length = batch.mask.sum() / batch.present.sum()
        assert SequenceSum().scale(batch).sum() == pytest.approx(mean_length)


@quick
@given(seed=seeds, divisor=st.floats(0.1, 1e4))
def test_a_constant_is_the_sequence_sum_divided(seed, divisor):
    batch = random_batch(seed).cleaned()
    np.testing.assert_allclose(
        Constant(divisor=divisor).scale(batch) * divisor, SequenceSum().scale(batch), rtol=1e-12
    )


@quick
@given(seed=seeds, length=st.integers(1, 4))
def test_at_equal_lengths_all_aggregations_agree_up_to_the_length(seed, length):
    batch = random_batch(seed)
    batch = batch._replace(mask=np.tile(np.arange(4.0) < length, (6, 1)))
    reference = SequenceSum().scale(batch.cleaned())
    parts = [TokenMean(), SequenceMeanTokenMean(), Constant(divisor=length)]
    parts += [MicroBatchTokenMean(micro_batch=m) for m in (1, 2, 3, 6)]
    for part in parts:
        np.testing.assert_allclose(part.scale(batch.cleaned()) * length, reference, rtol=1e-12)


def test_golden_scales():
    """Lengths 1 and 3: 1/2 each; 1/4 each; 1/2 and 1/6; 1/20 each."""
    mask = np.array([[1.0, 0, 0], [1, 1, 1]])
    batch = Batch(-mask, -mask, -mask, np.zeros(2), np.arange(2), mask)
    for part, first, second in (
        (SequenceSum(), 1 / 2, 1 / 2),
        (TokenMean(), 1 / 4, 1 / 4),
        (SequenceMeanTokenMean(), 1 / 2, 1 / 6),
        (Constant(divisor=10), 1 / 20, 1 / 20),
    ):
        np.testing.assert_allclose(part.scale(batch), mask * np.array([[first], [second]]))


@quick
@given(seed=seeds, size=st.integers(1, 7))
def test_a_mean_per_micro_batch_is_bounded_by_its_neighbours(seed, size):
    """One rollout each is the mean of means; all in one is the mean over tokens; any size sums to one."""
    batch = random_batch(seed).cleaned()
    scale = MicroBatchTokenMean(micro_batch=size).scale(batch)
    if batch.present.any():
        assert scale.sum() == pytest.approx(1)
    if size == 1:
        np.testing.assert_allclose(scale, SequenceMeanTokenMean().scale(batch), rtol=1e-12)
    if size >= batch.present.sum():
        np.testing.assert_allclose(scale, TokenMean().scale(batch), rtol=1e-12)


def test_golden_micro_batches_of_two():
    """Lengths 1, 0 (absent), 3, 2: runs (1, 3) and (2), so 1/2 of 1/4, 1/4, and 1/2 of 1/2. verl's own sums:
    the order of the rollouts matters, which is the point."""
    lengths = np.array([1, 0, 3, 2])
    mask = (np.arange(3) < lengths[:, None]).astype(float)
    batch = Batch(-mask, -mask, -mask, np.zeros(4), np.arange(4), mask)
    scale = MicroBatchTokenMean(micro_batch=2).scale(batch)
    np.testing.assert_allclose(scale, mask * np.array([1 / 8, 0, 1 / 8, 1 / 4])[:, None])
    back = Batch(*(array[::-1] for array in batch[:6]))
    assert np.any(MicroBatchTokenMean(micro_batch=2).scale(back)[::-1] != scale)
