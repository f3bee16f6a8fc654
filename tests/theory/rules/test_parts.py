"""Objectives, KL and aggregations: relations that hold for any batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rules.table import random_batch
from theory.rules import (
    K3,
    Batch,
    Constant,
    NoKL,
    PolicyGradient,
    PPOClip,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
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
    for part in (TokenMean(), SequenceMeanTokenMean(), Constant(divisor=length)):
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
