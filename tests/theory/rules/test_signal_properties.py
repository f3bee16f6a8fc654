"""What the traits in `signal_table.py` declare: a property a signal has holds, one it lacks is seen to fail."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rules.signal_table import SIGNAL_ROWS, SignalRow
from tests.theory.rules.table import QUERIES, round_of, state_of
from theory.rules import SGD, Batch, Rule

rows = pytest.mark.parametrize("row", SIGNAL_ROWS, ids=str)
quick = settings(max_examples=4, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


def rule_of(row: SignalRow, rollouts: int = 2) -> Rule:
    return Rule(signal=row.spec, optimiser=SGD(eta=1), rollouts=rollouts)


def advantage(row: SignalRow, batch: Batch) -> np.ndarray:
    """(R,) advantages after `PAST`, zero for helpers and absent rollouts."""
    clean = batch.cleaned()
    a = row.spec.advance(clean, state_of(rule_of(row)))[0]
    return np.where(batch.having(0), a, 0.0)


def whole(row: SignalRow, seed: int) -> Batch:
    """A round of two queries: three trained rollouts each, present, and the helpers the signal draws."""
    rng = np.random.default_rng(seed)
    roles = [0, 0, 0, *row.spec.helpers]
    n = 2 * len(roles)
    logp = -rng.exponential(1.0, (n, 4))
    mask = np.arange(4) < rng.integers(1, 5, n)[:, None]
    rewards = rng.integers(0, 2, n).astype(float)
    return Batch(
        logp, logp, logp, rewards, np.repeat([0, 1], n // 2), mask.astype(float), np.array(roles * 2)
    )


def holds(declared: bool, error, tolerance: float = 1e-9, tries: int = 12) -> None:
    """`error(seed)` is below the tolerance for all seeds if declared, and above it for one if not."""
    assert all(error(seed) <= tolerance for seed in range(tries)) == declared


@rows
def test_a_shift_of_all_rewards_is_ignored(row):
    def error(seed: int) -> float:
        batch = whole(row, seed)
        moved = batch._replace(rewards=batch.rewards + 3.0)
        return np.abs(advantage(row, moved) - advantage(row, batch)).max()

    holds(row.shift, error)


@rows
def test_equal_rewards_give_exactly_nothing(row):
    def error(seed: int) -> float:
        batch = whole(row, seed)
        value = np.random.default_rng(seed).normal(0, 10.0 ** (seed % 9 - 4))
        spread = 1 + 0.1 * batch.groups * (
            row.sums == "group"
        )  # a group signal needs equality in groups only
        return np.abs(advantage(row, batch._replace(rewards=value * spread))).max()

    holds(row.silent, error, tolerance=0.0)


@rows
@pytest.mark.parametrize("kind", ["linear", "invariant"])
def test_scaling_rewards(row, kind):
    def error(seed: int) -> float:
        batch = whole(row, seed)
        factor = (0.25, 4.0)[seed % 2]
        expected = advantage(row, batch) * (factor if kind == "linear" else 1.0)
        return np.abs(advantage(row, batch._replace(rewards=factor * batch.rewards)) - expected).max()

    holds(row.scale == kind, error, tolerance=3e-3)  # eps up to 1e-4 beside a spread of 1/8


@rows
@pytest.mark.parametrize("kind", ["group", "round", "tokens"])
def test_advantages_sum_to_zero(row, kind):
    """A sum over each group is a sum over the round too."""

    def error(seed: int) -> float:
        batch = whole(row, seed)
        a = advantage(row, batch)
        if kind == "group":
            return max(abs(a[batch.groups == group].sum()) for group in (0, 1))
        return abs(a.sum()) if kind == "round" else abs(a @ batch.mask.sum(axis=1))

    implied = row.sums == kind or (kind == "round" and row.sums == "group")
    holds(implied, error)


@rows
@quick
@given(seed=seeds)
def test_a_better_reward_never_gets_less_than_a_worse_one_of_its_group(row, seed):
    batch = whole(row, seed)
    rng = np.random.default_rng(seed)
    batch = batch._replace(rewards=rng.choice([0.0, 0.3, 1.0], len(batch.rewards)))
    a, trained = advantage(row, batch), batch.having(0)
    for i, j in product(np.flatnonzero(trained), repeat=2):
        if batch.groups[i] == batch.groups[j] and batch.rewards[i] > batch.rewards[j]:
            assert a[i] >= a[j] - 1e-12


@rows
def test_what_is_read(row):
    """Changing other rewards of the group, or of other queries, changes an advantage exactly where declared."""

    def error(where) -> bool:
        for seed in range(12):
            batch = whole(row, seed)
            other = where(batch) & (np.arange(len(batch.rewards)) != 0)
            noise = np.random.default_rng(seed).normal(0, 1, len(other))  # a shift alone may cancel
            moved = batch._replace(rewards=np.where(other, batch.rewards + noise, batch.rewards))
            if abs(advantage(row, moved)[0] - advantage(row, batch)[0]) > 1e-9:
                return True
        return False

    # A moving average compares with the past alone: nothing of this round but the rollout's own reward.
    reads_group = row.reads != "own" and row.spec.kind != "moving_average"
    assert error(lambda batch: batch.groups == 0) == reads_group
    assert error(lambda batch: batch.groups == 1) == (row.reads == "round")


@rows
def test_advantages_of_zero_one_rewards_are_bounded(row):
    """From a fresh state, through three rounds; the largest group compared holds 3 and the helpers."""
    n = 3 + row.spec.helpers.count(1)
    bound = row.bound(6 if row.reads == "round" else n)
    for seed in range(10):
        state = rule_of(row).init(np, QUERIES)
        for part in range(3):
            batch = whole(row, 100 * seed + part)
            a, state = row.spec.advance(batch.cleaned(), state)
            assert np.all(np.isfinite(a)) and np.all(np.abs(a[batch.having(0)]) <= bound * (1 + 1e-9))


@rows
def test_a_rollout_with_nothing_beside_it_gets_what_its_policy_says(row):
    policy = getattr(row.spec, "singleton", None)
    if policy is None:
        assert row.reads == "own" or row.spec.kind in ("greedy", "moving_average")
        return
    for reward in (1.0, 0.3, -2.0):
        one = np.ones((1, 1))
        batch = Batch(-one, -one, -one, np.array([reward]), np.zeros(1, dtype=int), one)
        a = row.spec.advance(batch, row.spec.init(np, QUERIES))[0][0]
        # Whitening takes what the policy gave to zero: the round holds nothing else.
        assert a == (reward if policy == "raw" and row.spec.kind != "group_mean_whitened" else 0.0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def expected_update(row: SignalRow, pi: np.ndarray, rewards: np.ndarray, rollouts: int) -> np.ndarray:
    """(K,) E[sum_i w_i (e_arm - pi)] over all outcomes of one query's round; greedy rollouts pull argmax pi."""
    rule = rule_of(row, rollouts)
    total = np.zeros(len(pi))
    roles = np.array(rule.roles)
    drawn = int((roles < 2).sum())
    for outcome in product(range(len(pi)), repeat=drawn):
        arms = np.array([*outcome, *[int(np.argmax(pi))] * (len(roles) - drawn)])
        logp = np.log(pi)[arms][:, None]
        zeros = np.zeros(len(arms), dtype=int)
        batch = Batch(logp, logp, logp, rewards[arms], zeros, np.ones_like(logp), roles)
        w = rule.weights(batch, state_of(rule))[0][:, 0]
        total += np.prod(pi[arms[:drawn]]) * (w @ (np.eye(len(pi))[arms] - pi))
    return total


@rows
def test_expected_update_by_enumeration(row):
    """E[update] = c pi (r - r.pi) with the declared c; no c fits where none is declared.

    Two success probabilities. Four rollouts are the fewest that tell a standardised signal from a constant
    factor: at three, one success and two have the same spread.
    """
    extra = row.spec.helpers.count(1)
    rollouts = 2 if row.expectation is not None else 4 - extra
    n = rollouts + extra
    factors = []
    for p in (0.2, 0.7):
        pi, rewards = np.array([p, 0.6 * (1 - p), 0.4 * (1 - p)]), np.array([1.0, 0.0, 0.0])
        if row.expectation is None:  # two arms suffice
            pi, rewards = np.array([p, 1 - p]), rewards[:2]
        gradient = pi * (rewards - rewards @ pi)
        update = expected_update(row, pi, rewards, rollouts)
        assert abs(update.sum()) < 1e-12  # the logits' gauge
        factors.append(update @ gradient / (gradient @ gradient))
        if row.expectation is not None:
            np.testing.assert_allclose(update, row.expectation(n) * gradient, atol=1e-12)
    if row.expectation is None:
        assert abs(factors[0] - factors[1]) > 1e-3


@pytest.mark.parametrize("row", [r for r in SIGNAL_ROWS if r.expectation and r.expectation(2) == 1], ids=str)
@quick
@given(seed=seeds)
def test_unbiased_signals_are_unbiased_for_any_rewards(row, seed):
    if row.spec.kind == "sign":  # its expectation is that of P(r > reference)
        return
    rng = np.random.default_rng(seed)
    pi, rewards = softmax(rng.normal(0, 1, 3)), rng.normal(0, 1, 3)
    exact = pi * (rewards - rewards @ pi)
    np.testing.assert_allclose(expected_update(row, pi, rewards, 2), exact, atol=1e-12)


@rows
def test_a_signal_survives_json(row):
    rule = rule_of(row)
    again = Rule.model_validate_json(rule.model_dump_json())
    assert again == rule and again.hash == rule.hash and hash(again) == hash(rule)
    assert row.spec.kind == again.signal.kind


def test_signals_are_told_apart_by_their_hash():
    hashes = {rule_of(row).hash for row in SIGNAL_ROWS}
    assert len(hashes) == len(SIGNAL_ROWS)


def test_no_signal_is_missing_from_the_table():
    from theory.rules import signals

    kinds = {row.spec.kind for row in SIGNAL_ROWS}
    assert kinds == {getattr(signals, name)().kind for name in signals.__all__ if name != "Signal"}


@quick
@given(seed=seeds)
def test_the_round_of_the_table_has_helpers_where_they_are_drawn(seed):
    """The generators reach what the properties need: all roles, absent rollouts, groups of one."""
    rounds = [round_of(s, roles=True) for s in range(seed % 1000, seed % 1000 + 40)]
    assert {int(role) for batch in rounds for role in batch.role} == {0, 1, 2}
    assert any((batch.member.sum(1) == 1).any() for batch in rounds)
    assert any((~batch.present).any() for batch in rounds)
