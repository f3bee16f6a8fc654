"""Every row of the conformance table runs every property below."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rules.table import (
    JAX,
    PRODUCT,
    TABLE,
    TORCH,
    Row,
    printed_state_of,
    round_of,
    stacked,
    state_of,
)
from theory.rules import Batch, Rule

rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
# verl's mean per micro-batch depends on the order and the partition of the batch: the declared exception.
ORDERED = "micro_batch_token_mean"
orderless_rows = pytest.mark.parametrize(
    "row", [row for row in TABLE if row.rule.aggregation.kind != ORDERED], ids=lambda row: row.name
)
batches = st.builds(round_of, st.integers(0, 2**32 - 1), on_policy=st.booleans(), roles=st.booleans())
seeds = st.integers(0, 2**32 - 1)
# Few examples a row, since four dozen rows run every property.
quick = settings(max_examples=2, deadline=None, derandomize=True, database=None)
# Each row compiles once and runs once.
COMPILE_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(scope="module", autouse=True)
def float64_in_jax():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


def weights(row: Row, batch: Batch) -> np.ndarray:
    return row.rule.weights(batch, state_of(row.rule))[0]


def rearranged(batch: Batch, index: np.ndarray) -> Batch:
    return Batch(*(array[index] for array in batch))


def close(actual, expected, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=tolerance, atol=tolerance)


def differs_somewhere(difference: Callable[[Batch], np.ndarray], tries: int = 12) -> bool:
    """Whether some round shows a difference: a property declared not to hold must be seen to fail."""
    return any(np.abs(difference(round_of(seed, roles=seed % 2 == 0))).max() > 1e-6 for seed in range(tries))


@rows
@quick
@given(batch=batches)
def test_weights_are_finite_and_zero_off_the_mask(row, batch):
    w = weights(row, batch)
    assert w.shape == batch.mask.shape and w.dtype == np.float64
    assert np.all(np.isfinite(w)) and np.all(w[(batch.mask == 0) | (batch.role != 0)[:, None]] == 0)


@orderless_rows
@quick
@given(batch=batches, seed=seeds)
def test_permuting_rollouts_permutes_weights(row, batch, seed):
    order = np.random.default_rng(seed).permutation(6)
    close(weights(row, rearranged(batch, order)), weights(row, batch)[order])


@rows
def test_groups_go_by_id_whatever_the_labels_except_where_the_label_is_a_memory(row):
    def difference(batch: Batch) -> np.ndarray:
        return weights(row, batch._replace(groups=2 - batch.groups)) - weights(row, batch)

    assert differs_somewhere(difference, tries=8) == row.signal.memory


@rows
@quick
@given(batch=batches)
def test_a_masked_rollout_is_a_deleted_rollout(row, batch):
    kept = np.flatnonzero(batch.mask.any(axis=1))
    close(weights(row, rearranged(batch, kept)), weights(row, batch)[kept])


@rows
@quick
@given(batch=batches)
def test_what_an_absent_rollout_holds_is_never_read(row, batch):
    absent = ~batch.mask.any(axis=1)
    garbage = batch._replace(rewards=np.where(absent, np.nan, batch.rewards))
    assert np.all(garbage.cleaned().rewards[absent] == 0)  # signals may sum over all rows
    close(weights(row, garbage), weights(row, batch), 0)


@rows
@quick
@given(batch=batches, value=st.sampled_from([0.0, -7.0, np.nan, np.inf, -np.inf]))
def test_padding_is_never_read_and_more_of_it_changes_nothing(row, batch, value):
    padded = batch
    for field in ("logprobs", "old_logprobs", "ref_logprobs"):
        array = np.where(batch.mask == 0, value, getattr(batch, field))
        padded = padded._replace(**{field: np.pad(array, ((0, 0), (0, 3)), constant_values=value)})
    padded = padded._replace(mask=np.pad(batch.mask, ((0, 0), (0, 3))))
    w = weights(row, padded)
    close(w[:, :4], weights(row, batch))
    assert np.all(w[:, 4:] == 0)


@rows
@quick
@given(batch=batches)
def test_padding_side_changes_nothing(row, batch):
    left = Batch(*(a[:, ::-1] if a.ndim == 2 else a for a in batch))
    close(weights(row, left)[:, ::-1], weights(row, batch))


@rows
@quick
@given(batch=batches)
def test_nothing_present_gives_exactly_nothing_and_leaves_the_state(row, batch):
    w, state = row.rule.weights(batch._replace(mask=0 * batch.mask), state_of(row.rule))
    assert np.all(w == 0)
    for new, old in zip(state, state_of(row.rule), strict=True):
        np.testing.assert_array_equal(new, old)


@orderless_rows
@quick
@given(batch=batches)
def test_with_nothing_to_train_on_nothing_moves(row, batch):
    w, state = row.rule.weights(batch._replace(role=0 * batch.role + 1), state_of(row.rule))
    assert np.all(w == 0)
    for new, old in zip(state, state_of(row.rule), strict=True):
        np.testing.assert_array_equal(new, old)


@orderless_rows
@quick
@given(batch=batches)
def test_no_role_means_all_are_trained_on(row, batch):
    trained = batch._replace(role=0 * batch.role)
    close(weights(row, batch._replace(role=None)), weights(row, trained), 0)


@rows
@quick
@given(batch=batches)
def test_a_helper_that_the_signal_does_not_draw_is_a_deleted_rollout(row, batch):
    kept = np.flatnonzero((batch.role == 0) | np.isin(batch.role, row.rule.signal.helpers))
    close(weights(row, rearranged(batch, kept)), weights(row, batch)[kept])


@rows
@quick
@given(batch=batches)
def test_of_a_helper_only_reward_and_length_are_read(row, batch):
    other = batch
    for field in ("logprobs", "old_logprobs", "ref_logprobs"):
        array = np.where((batch.role != 0)[:, None], -9.0, getattr(batch, field))
        other = other._replace(**{field: array})
    close(weights(row, other), weights(row, batch), 0)


@rows
def test_the_declared_helpers_are_read(row):
    def difference(batch: Batch) -> np.ndarray:
        rewards = np.where(batch.role != 0, batch.rewards + 1.5, batch.rewards)
        return weights(row, batch._replace(rewards=rewards)) - weights(row, batch)

    assert differs_somewhere(difference) == bool(row.rule.signal.helpers)


@rows
def test_duplicating_the_round_leaves_the_direction_where_that_is_declared(row):
    def difference(batch: Batch) -> np.ndarray:
        if row.signal.reads == "round":  # one rollout of a round has a policy of its own, two do not
            batch = batch._replace(mask=np.maximum(batch.mask, np.eye(1, 4)), role=0 * batch.role)
        halves = np.concatenate([weights(row, batch)] * 2) / 2
        return weights(row, stacked(batch, batch)) - halves

    ordered = row.rule.aggregation.kind == ORDERED
    assert differs_somewhere(difference, tries=8) == (not row.signal.copies or ordered)


@rows
def test_a_round_is_the_counted_mean_of_its_parts_unless_its_queries_are_coupled(row):
    def count(batch: Batch) -> float:
        mask = batch.mask[batch.role == 0]
        return mask.sum() if row.rule.aggregation.kind == "token_mean" else mask.any(axis=1).sum()

    def difference(first: Batch) -> np.ndarray:
        second = round_of(int(1e6 * first.logprobs[0, 0] ** 2), roles=True)
        total = max(count(first) + count(second), 1)
        parts = [weights(row, part) * count(part) / total for part in (first, second)]
        return weights(row, stacked(first, second)) - np.concatenate(parts)

    ordered = row.rule.aggregation.kind == ORDERED
    assert differs_somewhere(difference, tries=8) == (row.signal.reads == "round" or ordered)


@rows
@quick
@given(batch=batches)
def test_off_the_clip_or_on_policy_the_objective_is_the_policy_gradient(row, batch):
    on_policy = batch._replace(old_logprobs=batch.logprobs)
    plain = Rule(**{**dict(row.rule), "objective": {"kind": "policy_gradient"}})
    close(weights(row, on_policy), plain.weights(on_policy, state_of(row.rule))[0], 0)


@rows
@quick
@given(batch=batches)
def test_at_the_reference_model_the_kl_term_is_exactly_nothing(row, batch):
    at_reference = batch._replace(ref_logprobs=batch.logprobs)
    plain = Rule(**{**dict(row.rule), "kl": {"kind": "none"}})
    if row.rule.kl.kind == "k1" and row.rule.kl.place == "loss":  # its gradient does not read the reference
        constant = plain.aggregation.scale(batch.cleaned().trained()) * row.rule.kl.beta
        close(weights(row, at_reference), plain.weights(at_reference, state_of(row.rule))[0] - constant)
    elif getattr(row.rule.kl, "place", "loss") == "reward":  # where it is read at sampling time
        at_sampling = batch._replace(ref_logprobs=batch.old_logprobs)
        close(weights(row, at_sampling), plain.weights(at_sampling, state_of(row.rule))[0], 0)
    else:
        close(weights(row, at_reference), plain.weights(at_reference, state_of(row.rule))[0], 0)


@rows
@quick
@given(batch=batches, seed=seeds)
def test_a_reference_that_is_not_read_may_be_anything(row, batch, seed):
    other = batch._replace(ref_logprobs=round_of(seed).ref_logprobs)
    same = np.array_equal(weights(row, other), weights(row, batch))
    if not row.rule.kl.reads_reference:
        assert same
    elif np.abs((batch.role == 0) @ (batch.mask * (other.ref_logprobs - batch.ref_logprobs))).sum() > 0.1:
        assert not same or row.rule.kl.place == "reward" or row.rule.kl.kind == "abs"


@rows
@quick
@given(batch=batches)
def test_the_entropy_bonus_is_the_same_under_every_aggregation(row, batch):
    plain = Rule(**{**dict(row.rule), "entropy": {"kind": "none"}})
    trained = batch.cleaned().trained()
    bonus = weights(row, batch) - plain.weights(batch, state_of(row.rule))[0]
    close(bonus, np.where(trained.mask != 0, row.rule.entropy.weights(trained), 0))
    exact = row.rule.entropy_weights(batch)
    beta = row.rule.entropy.beta if row.rule.entropy.kind == "exact" else 0.0
    assert exact.sum() == pytest.approx(beta * trained.mask.any())


@rows
@quick
@given(batch=batches)
def test_a_boolean_mask_and_integer_rewards_mean_the_same(row, batch):
    rewards = np.rint(batch.rewards)
    loose = batch._replace(mask=batch.mask.astype(bool), rewards=rewards.astype(np.int32))
    close(weights(row, loose), weights(row, batch._replace(rewards=rewards)), 0)


@rows
def test_numpy_jax_and_torch_agree_on_weights_and_state(row):
    """In JAX inside jit and vmap over replicas with states of their own, in torch plain and inside vmap."""
    several = [round_of(seed, on_policy=seed % 3 == 0, roles=seed % 2 == 0) for seed in range(8)]
    state = state_of(row.rule)
    expected = [row.rule.weights(batch, state) for batch in several]
    reference = np.stack([w for w, _ in expected])
    after = [np.stack(parts) for parts in zip(*(state for _, state in expected), strict=True)]
    stack = [np.stack(arrays) for arrays in zip(*several, strict=True)]
    states = tuple(np.stack([part] * len(several)) for part in state)

    compiled = jax.jit(jax.vmap(row.rule.weights), compiler_options=COMPILE_FAST)
    w, new = compiled(Batch(*map(jnp.asarray, stack)), tuple(map(jnp.asarray, states)))
    assert w.dtype == jnp.float64
    close(w, reference)
    for actual, wanted, old in zip(new, after, state, strict=True):
        assert actual.dtype == wanted.dtype == old.dtype
        close(actual, wanted)

    w, new = torch.vmap(row.rule.weights)(
        Batch(*map(torch.as_tensor, stack)), tuple(map(torch.as_tensor, states))
    )
    assert w.dtype == torch.float64
    close(w, reference)
    for actual, wanted in zip(new, after, strict=True):
        close(actual, wanted)

    tensors = Batch(*map(torch.as_tensor, several[0]))
    close(row.rule.weights(tensors, tuple(map(torch.as_tensor, state)))[0], reference[0])


@rows
def test_weights_are_the_gradient_of_the_printed_loss(row):
    for seed in range(8):
        batch = round_of(seed, on_policy=seed % 3 == 0, roles=seed % 2 == 0)
        expected = weights(row, batch)
        logprobs = torch.tensor(batch.logprobs, requires_grad=True)
        row.loss(TORCH, logprobs, batch, printed_state_of(row.signal)).backward()
        assert logprobs.grad is not None
        close(-logprobs.grad, expected)


@pytest.mark.parametrize("row", TABLE[-1:], ids=lambda row: row.name)
def test_weights_are_the_gradient_of_the_printed_loss_in_jax_too(row):
    batch = round_of(5)
    gradient = jax.grad(lambda x: row.loss(JAX, x, batch))(jnp.asarray(batch.logprobs))
    close(-gradient, weights(row, batch))


@rows
def test_float32_stays_float32_on_every_back_end(row):
    batch = round_of(3, roles=True)
    halves = Batch(*(a if a.dtype == np.int64 else a.astype(np.float32) for a in batch))
    expected, state = weights(row, batch), state_of(row.rule)
    assert row.rule.weights(halves, state)[0].dtype == np.float32
    w, new = row.rule.weights(Batch(*map(torch.as_tensor, halves)), tuple(map(torch.as_tensor, state)))
    assert w.dtype == torch.float32 and [a.dtype for a in new] == [torch.as_tensor(a).dtype for a in state]
    np.testing.assert_allclose(w, expected, rtol=2e-4, atol=2e-5)
    w, new = jax.eval_shape(row.rule.weights, halves, state)
    assert w.dtype == jnp.float32 and [a.dtype for a in new] == [a.dtype for a in state]


def test_every_combination_of_parts_agrees_and_matches_its_printed_loss():
    batch = round_of(4, roles=True)
    tensors = Batch(*map(torch.as_tensor, batch))
    for row in PRODUCT:
        expected = weights(row, batch)
        close(row.rule.weights(tensors, tuple(map(torch.as_tensor, state_of(row.rule))))[0], expected)
        logprobs = torch.tensor(batch.logprobs, requires_grad=True)
        row.loss(TORCH, logprobs, batch, printed_state_of(row.signal)).backward()
        assert logprobs.grad is not None
        close(-logprobs.grad, expected)
