"""check_batch: a value no rule can use is named, with its place and the fix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from theory.rules import Batch, check_batch, preset


def sound() -> Batch:
    logp = -np.ones((3, 2))
    return Batch(
        logp, logp, logp, np.array([0.0, 1.0, 0.0]), np.array([7, 7, 9]), np.array([[1.0, 1], [1, 0], [1, 1]])
    )


def changed(field: str, index, value) -> Batch:
    array = getattr(sound(), field).copy()
    array[index] = value
    return sound()._replace(**{field: array})


def test_a_sound_batch_passes_on_numpy_and_torch():
    check_batch(sound())
    tensors = Batch(*map(torch.as_tensor, sound()))
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
        (sound()._replace(groups=np.zeros(3)), r"batch\.groups has dtype float64; give integer"),
    ],
)
def test_a_bad_value_is_named_with_its_place_and_the_fix(batch, words):
    with pytest.raises(ValueError, match=words):
        check_batch(batch)
    if batch.groups.dtype != float and batch.logprobs.ndim == 2:
        with pytest.raises(ValueError, match=words):
            preset("minimalist").check(Batch(*map(torch.as_tensor, batch)))


def test_a_bad_value_off_the_mask_is_no_error():
    check_batch(changed("logprobs", (1, 1), np.nan))
    masked = changed("mask", (1, slice(None)), 0.0)
    check_batch(masked._replace(rewards=np.array([0.0, np.nan, 0.0])))


def test_a_rollout_alone_in_its_group_is_an_error_where_the_signal_says_so():
    for name in ("rloo", "grpo-trl", "dr-grpo"):
        with pytest.raises(ValueError, match=r"batch\.groups\[2\] = 9 holds one rollout.*sample more"):
            preset(name).check(sound())
    for name in ("minimalist", "grpo-verl"):
        preset(name).check(sound())
    preset("rloo").check(changed("groups", 2, 7))
