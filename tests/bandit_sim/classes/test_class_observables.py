"""Observables of the engines of arms in classes: identities, enumeration of one round, and the dense engine's laws."""

from __future__ import annotations

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import FALSE_ALARM, p_values

from bandit_sim import simulate
from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import birth, event, listed, lumped
from bandit_sim.classes.pay import fixed_pay
from bandit_sim.classes.setup import set_up
from bandit_sim.classes.weigh import how_to_weigh
from theory.pay import Clean, Format, NegativeOnly, Noisy, Overlong, PlusMinus
from theory.refusal import Refusal
from theory.rules.rule import Rule

NEW = ("regret", "gradient_norm", "zero_signal")


@pytest.fixture(autouse=True)
def _compile_quickly():
    """Not here: seeds and rounds outweigh compilation."""


def make(eta, signal="raw", rollouts=1, **fields):
    spec = {"signal": {"kind": signal}, "optimiser": {"kind": "sgd", "eta": eta}, "rollouts": rollouts}
    return Rule.model_validate(spec | fields)


SMALL = ArmClasses.from_masses(
    np.array([0.05] + [0.03] * 3 + [0.14] * 4 + [0.05] * 6), np.array([1.0] * 4 + [0.0] * 10)
)
ONE = ArmClasses.two_class(arms=14, correct=1, p0=0.1)
RUNS = {
    "rows": (lumped.run, SMALL, make(0.7)),
    "cohorts": (lambda *a, **k: lumped.run(*a, special=False, **k), SMALL, make(0.7)),
    "group": (lumped.run, SMALL, make(0.4, "group_mean_std", 4)),
    "event": (event.run, SMALL, make(0.7)),
    "event, group": (event.run, SMALL, make(0.4, "leave_one_out", 2)),
    "chain": (birth.run, ONE, make(0.7)),
}


@cache
def of_dense(arms_and_rule, rounds, every, seeds, observe):
    """What the dense engine gives for the arms and the rule of a row of RUNS, once for all rows that share them."""
    _, arms, rule = RUNS[arms_and_rule]
    with jax.enable_x64(True):
        return simulate(arms.expand(), rule, rounds, seeds, 2, observe=observe, every=every)


@pytest.mark.parametrize("name", RUNS)
def test_regret_adds_up_what_success_lacks_and_a_round_without_signal_moves_nothing(name):
    run, arms, rule = RUNS[name]
    at = np.arange(40)
    got = run(arms, rule, at, 200, 3, observe=("success", "reward", "distinct", *NEW))
    lacking = np.cumsum(1 - got["success"], axis=1)
    assert np.allclose(got["regret"][:, 1:], lacking[:, :-1], atol=1e-11) and not got["regret"][:, 0].any()
    idle = got["zero_signal"] == 1
    assert set(np.unique(got["zero_signal"])) == {0.0, 1.0}
    assert np.array_equal(idle, got["gradient_norm"] == 0)
    assert not np.diff(got["success"], axis=1)[idle[:, :-1]].any()
    assert np.abs(np.diff(got["success"], axis=1)[~idle[:, :-1]]).min() > 1e-9
    if rule.rollouts == 1:
        assert np.array_equal(idle, got["reward"] == 0)
    else:
        assert np.array_equal(idle, (got["reward"] == 0) | (got["reward"] == 1))
    some = run(arms, rule, [7, 20], 200, 3, observe=("regret",))["regret"]
    assert np.allclose(some, got["regret"][:, [7, 20]], atol=1e-11), "thinning changes nothing"


@pytest.mark.parametrize("name", ["rows", "cohorts", "event", "event, group", "chain"])
def test_the_gradient_norm_of_one_round_is_that_of_enumeration(name):
    """Every value |sum_i w_i (1[a_i] - pi)| of the enumerated pulls occurs, and no other, to 1e-12."""
    run, arms, rule = RUNS[name]
    every, n = arms.expand(), rule.rollouts
    pi = np.exp(every.logits) / np.exp(every.logits).sum()
    wanted = set()
    for pulls in itertools.product(range(14), repeat=n):
        reward = every.reward[list(pulls)]
        weight = reward if n == 1 else (reward - reward[::-1]) / n  # leave-one-out of two
        push = sum(w * ((np.arange(14) == a) - pi) for w, a in zip(weight, pulls, strict=True))
        wanted.add(round(float(np.linalg.norm(push)), 12))
    got = run(arms, rule, [0], 10_240, 0, observe=("gradient_norm",))["gradient_norm"][:, 0]
    assert {round(float(x), 12) for x in got} == wanted


@pytest.mark.parametrize("name", ["rows", "group", "chain"])
def test_signal_and_noise_have_the_means_of_the_dense_engine(name):
    """Base policy and round 6, means of 1,024 and 2,048 estimates, 5 of their joint standard errors (6e-7 each)."""
    run, arms, rule = RUNS[name]
    got = run(arms, rule, [0, 6], 1024, 1, observe=("signal", "noise"))
    dense = of_dense(name, 7, 6, 2048, ("signal", "noise"))
    for metric in ("signal", "noise"):
        for j, t in enumerate([0, 6]):
            a, b = got[metric][:, j], dense[metric][:, j]
            assert abs(a.mean() - b.mean()) < 5 * np.hypot(a.std() * 2**0.5, b.std()) / np.sqrt(2048), (
                metric,
                t,
            )
            assert b.mean() > 5 * b.std() / np.sqrt(2048), "there is something to compare"


@pytest.mark.parametrize("name", ["rows", "group", "event", "chain"])
def test_laws_of_the_new_observables_are_those_of_the_dense_engine(name):
    """KS and chi-square at two rounds, 4,096 seeds, fixed keys; the false-alarm rate of `laws` over all."""
    run, arms, rule = RUNS[name]
    got = run(arms, rule, [3, 9], 4096, 1, observe=NEW)
    dense = of_dense("rows" if name == "event" else name, 10, 3, 4096, NEW)
    for metric in NEW:
        pairs = zip(got[metric].T, dense[metric][:, [1, 3]].T, strict=True)
        least = min(p for a, b in pairs for p in p_values(a, b))
        assert least > FALSE_ALARM / (4 * len(NEW) * 4), metric


def test_rows_of_single_arms_have_the_law_of_cohorts_also_where_they_are_rare():
    """4 correct arms of 10^18 at p0 = 1e-9 next to a class of mass .4 that pays: law of success and of touched arms."""
    arms = ArmClasses.from_masses([1e-9, 0.4, 0.6], [1, 1, 0], count=[4, 3, 10**18])
    observe = ("success", "distinct", "winner_share", "entropy", "class_mass")
    fast, slow = (
        lumped.run(arms, make(0.5), [0, 3, 12], 4096, key, observe=observe, special=special)
        for key, special in ((1, True), (2, False))
    )
    assert np.allclose(fast["class_mass/0"][:, 0], slow["class_mass/0"][:, 0], rtol=1e-12)
    for name in observe[:-1]:
        assert fast[name][:, 0] == pytest.approx(slow[name][:, 0], rel=1e-12)
        pairs = zip(fast[name][:, 1:].T, slow[name][:, 1:].T, strict=True)
        assert min(p for a, b in pairs for p in p_values(a, b)) > FALSE_ALARM / 16, name


def test_rows_are_used_where_weightless_classes_stay_whole_and_the_others_are_few():
    def rows(arms, rule, pay=None):
        setup = set_up(arms, rule, ("success",), 0, pay, jnp.float64, None, rule.rollouts)
        return listed.rows_of(setup.arms, setup.table, rule.rollouts)

    few = ArmClasses.two_class(arms=10**18, correct=4, p0=0.1)
    found = rows(few, make(1.0))
    assert found is not None
    assert found.held.tolist() == [1, 1, 1, 1, 1e18] and found.weight.tolist() == [1, 1, 1, 1, 0]
    assert rows(few, make(1.0, "raw", 2)) is None
    assert rows(few, make(1.0), PlusMinus()) is None, "wrong arms get weights too"
    assert rows(few, make(1.0), Noisy(false_positive=0.1)) is None
    assert rows(ArmClasses.two_class(arms=10**18, correct=1000, p0=0.1), make(1.0)) is None


def test_no_bit_of_listed_rows_depends_on_the_seeds_or_the_rounds_recorded():
    observe = ("success", "distinct", "signal")
    full = lumped.run(SMALL, make(1.0), [0, 4, 150], 1100, 5, observe=observe)
    part = lumped.run(SMALL, make(1.0), [4, 150], range(1050, 1060), 5, observe=observe)
    for name in observe:
        assert np.array_equal(full[name][1050:1060, 1:], part[name]), name


@pytest.mark.parametrize("name", ["rows", "cohorts"])
def test_chunks_that_record_nothing_change_no_bit(name):
    """Of eight chunks and more, those without a recorded round are programs of their own."""
    run, arms, rule = RUNS[name]
    last = 8 * 128
    full = run(arms, rule, np.arange(0, last + 1, 16), 40, 5)["success"]
    assert np.array_equal(run(arms, rule, [0, last], 40, 5)["success"], full[:, [0, -1]])
    assert np.ptp(full[:, -1]) > 0


@pytest.mark.parametrize(
    ("observe", "message"),
    [
        (("signal",), r"'signal' is not recorded by the event engine; use the lumped engine"),
        (("held_out",), r"'held_out' is not recorded by the engines of arms in classes; .*Contexts"),
    ],
)
def test_what_the_event_engine_cannot_record_names_who_can(observe, message):
    with pytest.raises(Refusal, match=message):
        event.run(SMALL, make(1.0), [0], 4, 0, observe=observe)


def test_auto_takes_the_engine_that_records_what_is_asked():
    rare = ArmClasses.two_class(arms=10**9, correct=2, p0=1e-3)
    got = simulate(rare, make(1.0), 4, 8, 0, observe=("success", "noise"))
    assert np.isfinite(got["noise"]).all()


@pytest.mark.parametrize(
    ("pay", "wanted"),
    [
        (None, [1.0, 0.0]),
        (Clean(), [1.0, 0.0]),
        (PlusMinus(), [1.0, -1.0]),
        (NegativeOnly(), [0.0, -1.0]),
        (Overlong(limit=2, buffer=2), [-0.5, -0.5]),
        (Noisy(false_positive=1.0), [1.0, 1.0]),
        (Noisy(false_negative=0.1), None),
        (Format(right=1.0, wrong=0.0), [1.0, 0.0]),
        (Format(wrong=0.5), None),
    ],
)
def test_a_classs_reward_is_fixed_where_the_law_of_its_pay_says_so(pay, wanted):
    paid = fixed_pay(pay, [1.0, 0.0], [0.0, 0.0])
    assert (paid is None) == (wanted is None) and (wanted is None or paid.tolist() == wanted)


@pytest.mark.parametrize(
    ("fields", "reads"),
    [
        ({}, False),
        ({"objective": {"kind": "ppo_clip"}}, False),
        ({"kl": {"kind": "k1", "beta": 0.1}}, False),
        ({"kl": {"kind": "k1", "beta": 0.1, "place": "reward"}}, True),
        ({"kl": {"kind": "k3", "beta": 0.1}}, True),
        ({"entropy": {"kind": "sampled", "beta": 0.1}}, True),
    ],
)
def test_a_rule_says_whether_it_reads_log_probabilities(fields, reads):
    rule = make(1.0, **fields)
    assert rule.reads_logprobs == reads
    assert how_to_weigh(rule, np.array([0.0, 1.0])) == ("full" if reads else "table")
