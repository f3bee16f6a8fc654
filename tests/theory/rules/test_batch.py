"""check_batch: a value no rule can use is named, with its place and the fix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from theory.refusal import Refusal
from theory.rules import Batch, check_batch, preset


def sound() -> Batch:
    logp = -np.ones((3, 2))
    return Batch(
        logp, logp, logp, np.array([0.0, 1.0, 0.0]), np.array([7, 7, 9]), np.array([[1.0, 1], [1, 0], [1, 1]])
    )


def on_torch(batch: Batch) -> Batch:
    return Batch(*(None if x is None else torch.as_tensor(x) for x in batch))


def changed(field: str, index, value) -> Batch:
    array = getattr(sound(), field).copy()
    array[index] = value
    return sound()._replace(**{field: array})


def test_a_sound_batch_passes_on_numpy_and_torch():
    check_batch(sound())
    tensors = on_torch(sound())
    check_batch(tensors._replace(logprobs=tensors.logprobs.clone().requires_grad_()))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (changed("rewards", 1, np.nan), r"batch\.rewards\[1\] = nan is not finite; score it 0 or 1"),
        (changed("rewards", 2, np.inf), r"batch\.rewards\[2\] = inf"),
        (changed("logprobs", (2, 1), -np.inf), r"batch\.logprobs\[2, 1\] = -inf.*full vocabulary"),
        (changed("old_logprobs", (0, 0), np.nan), r"batch\.old_logprobs\[0, 0\] = nan"),
        (changed("ref_logprobs", (0, 1), np.nan), r"batch\.ref_logprobs\[0, 1\] = nan"),
        (changed("mask", (0, 1), 0.5), r"batch\.mask\[0, 1\] = 0\.5; give 1 on real tokens"),
        (sound()._replace(rewards=np.zeros(2)), r"batch\.rewards has shape \(2,\)"),
        (sound()._replace(mask=np.ones((3, 5))), r"batch\.mask has shape \(3, 5\)"),
        (sound()._replace(logprobs=np.zeros(3)), r"batch\.logprobs has shape \(3,\)"),
        (sound()._replace(role=np.array([0, 3, 0])), r"batch\.role\[1\] = 3; give 0 \(trained on\), 1"),
        (sound()._replace(role=np.zeros(3)), r"batch\.role has dtype float64; give integer"),
        (sound()._replace(role=np.zeros(2, dtype=int)), r"batch\.role has shape \(2,\)"),
        (sound()._replace(groups=np.zeros(3)), r"batch\.groups has dtype float64; give integer"),
    ],
)
def test_a_bad_value_is_named_with_its_place_and_the_fix(batch, words):
    with pytest.raises(Refusal, match=words):
        check_batch(batch)
    if batch.groups.dtype != float and batch.logprobs.ndim == 2:
        with pytest.raises(Refusal, match=words):
            preset("minimalist").check(on_torch(batch))


def test_a_bad_value_off_the_mask_is_no_error():
    check_batch(changed("logprobs", (1, 1), np.nan))
    masked = changed("mask", (1, slice(None)), 0.0)
    check_batch(masked._replace(rewards=np.array([0.0, np.nan, 0.0])))


def test_a_rollout_alone_in_its_group_is_an_error_where_the_signal_says_so():
    for name in ("rloo", "trl-grpo", "dr-grpo"):
        with pytest.raises(Refusal, match=r"batch\.groups\[2\] = 9 holds one rollout.*sample more"):
            preset(name).check(sound())
    for name in ("minimalist", "verl-grpo"):
        preset(name).check(sound())
    preset("rloo").check(changed("groups", 2, 7))


def test_a_helper_makes_no_group_and_a_missing_one_is_named():
    """Roles 0, 1, 2: the lone trained rollout has a companion only where the signal draws extras."""
    batch = sound()._replace(groups=np.array([7, 7, 7]), role=np.array([0, 1, 2]))
    with pytest.raises(Refusal, match=r"batch\.groups\[0\] = 7 holds one rollout"):
        preset("rloo").check(batch)
    preset("papers-2601.22532-onerpo").check(batch)
    preset("remax").check(batch)
    with pytest.raises(
        ValueError, match=r"batch\.groups\[0\] = 7 holds no greedy rollout; add one of role 2"
    ):
        preset("remax").check(batch._replace(role=np.array([0, 1, 1])))


def test_a_query_that_the_memory_does_not_hold_is_named():
    rule = preset("prime-rl-rae")
    with pytest.raises(Refusal, match=r"batch\.groups\[0\] = 7; moving_average remembers queries 0 to 6"):
        rule.check(sound()._replace(groups=np.array([7, 6, 0])), rule.init(np, 7))
    rule.check(sound(), rule.init(np, 10))
    with pytest.raises(Refusal, match="moving_average has memory; pass the state"):
        rule.weights(sound())
    with pytest.raises(Refusal, match="queries = 0; give at least 1"):
        rule.init(np, 0)


def test_a_window_smaller_than_a_query_s_rollouts_is_named():
    rule = preset("papers-2601.22532-replay")
    one = np.ones((9, 1))
    batch = Batch(-one, -one, -one, np.zeros(9), np.zeros(9, dtype=int), one)
    with pytest.raises(Refusal, match=r"batch\.groups\[0\] = 0 holds more rollouts than the window of 8"):
        rule.check(batch, rule.init(np))


def test_a_round_of_one_rollout_is_an_error_for_a_signal_over_the_round():
    rule = preset("verl-reinforce-plus-plus", rollouts=1)
    assert rule.init(np, queries=2) == ()
    with pytest.raises(
        ValueError, match="batch_mean_std needs a round of at least 2 rollouts, got 1 query of 1"
    ):
        rule.init(np, queries=1)
    one = np.ones((1, 1))
    with pytest.raises(Refusal, match="the batch holds one rollout, batch_mean_std needs at least 2"):
        rule.check(Batch(-one, -one, -one, np.ones(1), np.zeros(1, dtype=int), one))
    assert preset("openrlhf-reinforce", rollouts=1).init(np) == ()
