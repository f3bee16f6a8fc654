"""Signals with memory: the state runs through rounds, each query keeps its own, in every back end."""

from __future__ import annotations

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rules.signal_table import SIGNAL_ROWS
from tests.theory.rules.table import QUERIES, TABLE, TORCH, round_of
from theory.refusal import Refusal
from theory.rules import SGD, Batch, MovingAverage, RewardWindow, Rule

quick = settings(max_examples=15, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
TABLE_ROWS = [row for row in TABLE if row.signal.memory]
memories = pytest.mark.parametrize("row", TABLE_ROWS, ids=lambda row: row.name)


@pytest.fixture(scope="module", autouse=True)
def float64_in_jax():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


def rule_of(signal, rollouts: int = 1) -> Rule:
    return Rule(signal=signal, optimiser=SGD(eta=1), rollouts=rollouts)


def round_with(rewards, groups, present=None) -> Batch:
    """A round of one-token rollouts."""
    one = np.ones((len(rewards), 1))
    mask = one if present is None else np.asarray(present, float)[:, None]
    return Batch(-one, -one, -one, np.asarray(rewards, float), np.asarray(groups), mask)


def advantages(rule: Rule, rounds, queries: int = 3) -> list[np.ndarray]:
    state, result = rule.init(np, queries), []
    for batch in rounds:
        a, state = rule.signal.advance(batch.cleaned(), state)
        result.append(a)
    return result


def test_the_rows_with_memory_are_those_with_a_state():
    for row in SIGNAL_ROWS:
        assert bool(rule_of(row.spec, 2).init(np)) == row.memory


@memories
def test_many_rounds_match_the_printed_form(row):
    memory: dict = {}
    state = row.rule.init(np, QUERIES)
    for seed in range(25):
        batch = round_of(seed, roles=True)
        w, state = row.rule.weights(batch, state)
        logprobs = torch.tensor(batch.logprobs, requires_grad=True)
        row.loss(TORCH, logprobs, batch, memory).backward()
        assert logprobs.grad is not None
        np.testing.assert_allclose(w, -logprobs.grad.numpy(), rtol=1e-10, atol=1e-12)


@memories
def test_a_scan_over_rounds_is_the_loop(row):
    """In JAX, inside vmap over two replicas that see the rounds in opposite order."""
    rounds = [round_of(seed, roles=seed % 2 == 0) for seed in range(7)]
    replicas = [rounds, rounds[::-1]]
    stack = [
        np.stack([np.stack([getattr(batch, name) for batch in replica]) for replica in replicas])
        for name in Batch._fields
    ]

    def scan(batches: Batch):
        def step(state, batch):
            w, state = row.rule.weights(batch, state)
            return state, w

        return jax.lax.scan(step, row.rule.init(jnp, QUERIES), batches)

    final, w = jax.jit(jax.vmap(scan))(Batch(*map(jnp.asarray, stack)))
    for r, replica in enumerate(replicas):
        state = row.rule.init(np, QUERIES)
        for t, batch in enumerate(replica):
            expected, state = row.rule.weights(batch, state)
            np.testing.assert_allclose(w[r, t], expected, rtol=1e-10, atol=1e-12)
        for actual, wanted in zip(final, state, strict=True):
            np.testing.assert_allclose(actual[r], wanted, rtol=1e-10, atol=1e-12)


@memories
@quick
@given(seed=seeds)
def test_a_query_knows_nothing_of_the_others(row, seed):
    """Its weights over rounds are those it has when the other queries' rollouts are deleted."""
    rounds = [round_of(seed + i) for i in range(4)]
    alone = [b._replace(mask=np.where((b.groups == 1)[:, None], b.mask, 0.0)) for b in rounds]
    whole, only = row.rule.init(np, 3), row.rule.init(np, 3)
    for batch, lonely in zip(rounds, alone, strict=True):
        a, whole = row.rule.signal.advance(batch.cleaned(), whole)
        b, only = row.rule.signal.advance(lonely.cleaned(), only)
        mine = (batch.groups == 1) & batch.present
        np.testing.assert_allclose(a[mine], b[mine], rtol=1e-12)
    for full, part in zip(whole, only, strict=True):
        np.testing.assert_allclose(full[1], part[1], rtol=1e-12)
        assert not np.any(part[0]) and not np.any(part[2])


@memories
@quick
@given(seed=seeds)
def test_a_round_without_a_query_leaves_its_memory(row, seed):
    state = row.rule.init(np, QUERIES)
    for i in range(3):
        state = row.rule.weights(round_of(seed + i), state)[1]
    batch = round_of(seed + 3)
    after = row.rule.weights(batch._replace(groups=0 * batch.groups + 1), state)[1]
    for new, old in zip(after, state, strict=True):
        np.testing.assert_array_equal(np.delete(new, 1, axis=0), np.delete(old, 1, axis=0))


@quick
@given(seed=seeds)
def test_the_order_of_a_round_leaves_the_moving_average(seed):
    rule, batch = rule_of(MovingAverage(decay=0.6), 2), round_of(seed)
    order = np.random.default_rng(seed).permutation(6)
    mixed = Batch(*(array[order] for array in batch))
    state = rule.init(np, 3)
    np.testing.assert_allclose(rule.weights(mixed, state)[1][0], rule.weights(batch, state)[1][0], rtol=1e-12)


@quick
@given(seed=seeds, order=st.permutations(range(4)))
def test_the_order_of_rounds_that_divide_the_window_leaves_it(seed, order):
    """Rounds of 4 in a window of 8: a round is forgotten whole, whatever its order."""
    rewards = np.random.default_rng(seed).normal(0, 1, (5, 4))
    rule = rule_of(RewardWindow(window=8), 4)
    straight = advantages(rule, [round_with(r, [0] * 4) for r in rewards])
    mixed = advantages(rule, [round_with(r[list(order)], [0] * 4) for r in rewards])
    for a, b in zip(straight, mixed, strict=True):
        np.testing.assert_allclose(b, a[list(order)], rtol=1e-9, atol=1e-12)


def test_where_a_round_does_not_divide_the_window_its_first_rows_go_first():
    """Window 3, rounds of 2: [1, 0], [0, 0] leaves (0, 0, 0), all equal; [0, 1], [0, 0] leaves (1, 0, 0)."""
    rule = rule_of(RewardWindow(window=3), 2)
    quiet = advantages(rule, [round_with([1, 0], [0, 0]), round_with([0, 0], [0, 0])])[1]
    heard = advantages(rule, [round_with([0, 1], [0, 0]), round_with([0, 0], [0, 0])])[1]
    assert np.all(quiet == 0) and np.all(heard < 0)


def test_golden_moving_average():
    """decay .95 from b = 0: A = 1, b = .05; A = 1 - .05, b = .0975; A = 0 - .0975; then b = .092625."""
    a = advantages(rule_of(MovingAverage()), [round_with([r], [1]) for r in (1, 1, 0, 0)])
    np.testing.assert_allclose(np.concatenate(a), [1, 0.95, -0.0975, -0.092625], rtol=1e-12)


def test_golden_moving_average_of_two_rollouts():
    """Both against b = 0; then b = (1 - .25) * 1/2 = .375 for decay 1/2."""
    rule = rule_of(MovingAverage(decay=0.5), 2)
    first, second = advantages(rule, [round_with([1, 0], [0, 0]), round_with([1, 0], [0, 0])])
    np.testing.assert_allclose(first, [1, 0])
    np.testing.assert_allclose(second, [0.625, -0.375])


def test_golden_window():
    """Rewards 1, 0, 0 of one query. First: alone, the reward. Second: (0 - 1/2) / (sqrt(1/2) + 1e-6) = -.707106.
    Third: mean 1/3, sample variance 1/3: -(1/3) / (sqrt(1/3) + 1e-6) = -.577349."""
    a = advantages(rule_of(RewardWindow()), [round_with([r], [2]) for r in (1, 0, 0)])
    expected = [1, -0.5 / (0.5**0.5 + 1e-6), -(1 / 3) / ((1 / 3) ** 0.5 + 1e-6)]
    np.testing.assert_allclose(np.concatenate(a), expected, rtol=1e-12)


def test_the_window_forgets_the_ninth_reward_and_no_other():
    """1 then eight 0: at the eighth 0 the window holds zeros only, and the signal is exactly zero."""
    a = np.concatenate(advantages(rule_of(RewardWindow()), [round_with([r], [0]) for r in [1] + [0] * 9]))
    assert np.all(a[1:8] < 0) and np.all(a[8:] == 0)


@quick
@given(rewards=st.lists(st.floats(-5, 5), min_size=30, max_size=40))
def test_the_ring_goes_round_for_ever(rewards):
    """Window 3 over many rounds, each reward against the last three, by `statistics`."""
    a = advantages(
        rule_of(RewardWindow(window=3, eps=0.5)), [round_with([r], [0]) for r in rewards], queries=1
    )
    for t in range(2, len(rewards)):
        seen = rewards[t - 2 : t + 1]
        expected = (rewards[t] - statistics.fmean(seen)) / (statistics.stdev(seen) + 0.5)
        assert a[t][0] == pytest.approx(expected, abs=1e-9)


def test_the_window_first_round_is_the_group_standardised_signal():
    from theory.rules import GroupMeanStd

    batch = round_with([1, 0, 0, 1, 1], [0, 0, 0, 1, 1])
    first = advantages(rule_of(RewardWindow(), 3), [batch])[0]
    np.testing.assert_allclose(first, GroupMeanStd().advantage(batch), rtol=1e-12)


def test_an_absent_rollout_is_not_remembered():
    rule = rule_of(RewardWindow(), 2)
    rounds = [round_with([1, 0], [0, 0], [1, 0]), round_with([0, 1], [0, 0], [1, 0])]
    a = advantages(rule, rounds)
    assert a[0][0] == 1 and a[1][0] == pytest.approx(-0.5 / (0.5**0.5 + 1e-6))


def test_a_window_smaller_than_a_round_is_rejected():
    with pytest.raises(Refusal, match=r"window = 8 forgets part of a round of 9.*give window >= 9"):
        rule_of(RewardWindow(), 9)
