"""The lumped engine against the dense one (laws), against enumeration (one round), and against itself (bits)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import FALSE_ALARM, SEEDS, p_values, smallest
from scipy import stats

from bandit_sim import Arms, expected_step, simulate
from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import birth, lumped
from bandit_sim.classes.cohorts import Pulled, arms_in, grow, pick, start, step
from bandit_sim.classes.rows import rows_for, tables
from bandit_sim.classes.uniforms import uniforms
from bandit_sim.rounds.optimiser import realise
from theory.pay import Clean, Format, Noisy, PlusMinus, Shaped, Term
from theory.refusal import Refusal
from theory.rules.rule import Rule

AT = [1, 4, 10, 16]


@pytest.fixture(autouse=True)
def _compile_quickly():
    """Not here: seeds and rounds outweigh compilation, and equal bits must hold for optimised programs."""


MANY_VALUES = Shaped(
    terms=(
        Term(weight=3.0, pays=Clean()),
        Term(weight=0.5, pays=Noisy(false_positive=0.25, false_negative=0.25)),
        Term(weight=0.125, pays=Format(right=0.5, wrong=0.5)),
    )
)
"""3 truth + (truth turned round in one of four) / 2 + (a fair coin) / 8: eight values, each class left to chance."""


def make(eta, signal="raw", rollouts=1, **fields):
    spec = {
        "signal": signal if isinstance(signal, dict) else {"kind": signal},
        "optimiser": {"kind": "sgd", "eta": eta},
        "rollouts": rollouts,
    }
    return Rule.model_validate(spec | fields)


def small_arms(flip=0.0):
    """14 arms of 4 masses; the correct ones are of 2 masses, so classes, splits and merges all occur."""
    masses = np.array([0.05] + [0.03] * 3 + [0.14] * 4 + [0.05] * 6)
    reward = np.array([1.0] * 4 + [0.0] * 10)
    return ArmClasses.from_masses(masses, reward, flip=np.full(14, flip))


RULES = {
    "raw": (make(1.0), None, 0.0),
    "group mean-std, 8": (make(0.4, "group_mean_std", 8), None, 0.0),
    "leave-one-out, 4": (make(1.0, "leave_one_out", 4), None, 0.0),
    "plus-minus": (make(0.5), PlusMinus(), 0.0),
    "noisy pay": (make(1.0), Noisy(), 0.2),
}


def numpy_runs(rule, flip, seeds=SEEDS, seed=0):
    """(seeds, AT) success by a plain loop over rounds with every arm by itself: the oracle of noisy pay."""
    rng = np.random.default_rng(seed)
    arms = small_arms().expand()
    theta = np.tile(arms.logits, (seeds, 1))
    curves = []
    for _ in range(AT[-1] + 1):
        pi = np.exp(theta)
        pi /= pi.sum(axis=1, keepdims=True)
        curves.append(pi @ arms.reward)
        choice = (rng.random((seeds, 1)) > np.cumsum(pi, axis=1)).sum(axis=1)
        paid = np.where(rng.random(seeds) < flip, 1 - arms.reward[choice], arms.reward[choice])
        theta -= rule.optimiser.eta * paid[:, None] * pi
        theta[np.arange(seeds), choice] += rule.optimiser.eta * paid
    return np.stack(curves, axis=1)[:, AT]


@functools.cache
def dense_runs(name):
    rule, pay, flip = RULES[name]
    arms = small_arms().expand()
    with jax.enable_x64(True):
        if flip:
            return numpy_runs(rule, flip)
        if isinstance(pay, PlusMinus):  # the dense engine pays the arm's own reward, and success is 2 p - 1
            signed = Arms(arms.logits, 2 * arms.reward - 1)
            return (1 + simulate(signed, rule, AT[-1] + 1, SEEDS, 7)["success"][:, AT]) / 2
        return simulate(arms, rule, AT[-1] + 1, SEEDS, 7)["success"][:, AT]


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_law_of_p_is_that_of_the_dense_engine(name):
    rule, pay, flip = RULES[name]
    got = lumped.run(small_arms(flip), rule, AT, SEEDS, 1, pay=pay, slots=14)["success"]
    comparisons = len(RULES) * len(AT) * 2
    assert smallest(got, dense_runs(name)) > FALSE_ALARM / comparisons


@pytest.mark.slow
def test_the_law_test_notices_a_step_size_five_percent_off():
    """Power of the test above, on its own samples."""
    got = lumped.run(small_arms(), make(1.05), AT, SEEDS, 1, slots=14)["success"]
    assert smallest(got, dense_runs("raw")) < 1e-12


@pytest.mark.parametrize(("signal", "pay"), [("raw", None), ("raw", PlusMinus()), ("group_mean", None)])
def test_one_round_takes_the_values_and_the_mean_of_enumeration(signal, pay):
    """Values of p after one pull to 1e-12; their mean within 4.5 standard errors (false alarm 7e-6)."""
    rule = make(
        2.0, **{"signal": {"kind": signal} | ({"singleton": "raw"} if signal == "group_mean" else {})}
    )
    arms = small_arms().expand()
    truth = arms.reward
    paid = truth if pay is None else 2 * truth - 1
    pi = np.exp(arms.logits) / np.exp(arms.logits).sum()
    after = []
    for a in range(14):
        theta = arms.logits + 2.0 * paid[a] * ((np.arange(14) == a) - pi)
        after.append(np.exp(theta) @ truth / np.exp(theta).sum())
    got = lumped.run(small_arms(), rule, [0, 1], 10_240, 3, pay=pay)["success"][:, 1]
    assert np.abs(got[:, None] - np.array(after)).min(axis=1).max() < 1e-12
    assert len(np.unique(np.round(got, 12))) == len(np.unique(np.round(after, 12)))
    mean = pi @ after
    assert abs(got.mean() - mean) < 4.5 * np.sqrt(pi @ (after - mean) ** 2 / 10_240)
    if pay is None:
        with jax.enable_x64(True):
            assert expected_step(arms, rule) == pytest.approx(mean - pi @ truth, abs=1e-14)


@pytest.mark.parametrize(
    "rule",
    [
        make(0.4, "group_mean_std", 8),
        make(1.0, optimiser={"kind": "adam", "eta": 0.05}, kl={"kind": "k3", "beta": 0.1}),
    ],
    ids=["group", "adam and kl"],
)
def test_no_bit_depends_on_the_buffer_the_seeds_or_the_rounds_recorded(rule):
    """A buffer of two slots overflows at once and is grown; a block of seeds cut out of another run is itself."""
    arms = small_arms()
    observe = ("success", "entropy")
    full = lumped.run(arms, rule, [0, 3, 20], 2100, 5, slots=16, observe=observe)
    tight = lumped.run(arms, rule, [0, 3, 20], range(1000, 1100), 5, slots=2, observe=observe)
    thinned = lumped.run(arms, rule, np.arange(25), 10, 5, slots=16, observe=observe)
    for name in full:
        assert np.array_equal(full[name][1000:1100], tight[name]), name
    assert np.array_equal(full["success"][:10], thinned["success"][:, [0, 3, 20]])
    assert len(np.unique(full["success"][:, 2])) > 500, "seeds differ"


@functools.cache
def quick_step(optimiser):
    change = realise(make(1.0, optimiser={"kind": optimiser, "eta": 0.5}).optimiser)
    return jax.jit(lambda *given: step(*given, change))


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), optimiser=st.sampled_from(["sgd", "adam"]))
def test_every_step_conserves_arms_and_equals_the_dense_step(seed, optimiser):
    """Random draws and weights; the dense twin keeps every arm by itself, and which arm a cohort's member is does not
    matter as long as distinct members are distinct arms.
    """
    rng, rollouts = np.random.default_rng(seed), 3
    counts, logits = np.array([3, 4, 5]), rng.normal(size=3)
    spec = {"kind": optimiser, "eta": 0.5}
    rule = make(1.0, optimiser=spec)
    with jax.enable_x64(True):
        change = realise(rule.optimiser)
        classes = tables(logits, counts, np.zeros(3), np.zeros(3), jnp.float64)
        cohorts = start(classes, rows_for(3, 13), 1, change)
        theta = jnp.asarray(np.repeat(logits, counts))
        kind, state = np.repeat(np.arange(3), counts), change.init(theta)
        for _ in range(4):
            chosen = rng.integers(0, 12, rollouts)
            weight = rng.choice([0.0, 1.0, -0.5, rng.normal()], rollouts)
            # A cohort's members are the dense arms of its class and logit, in their order.
            rows, members, held = [], [], np.asarray(arms_in(classes, cohorts))[:, 0]
            for a in chosen:
                gap = np.abs(np.asarray(cohorts.logit)[:, 0] - float(theta[a])) + (
                    np.asarray(cohorts.kind)[:, 0] != kind[a]
                )
                near = np.flatnonzero((gap < 1e-9) & (held > 0))
                alike = np.flatnonzero(
                    (np.abs(np.asarray(theta) - float(theta[a])) < 1e-9) & (kind == kind[a])
                )
                place = int(np.flatnonzero(alike == a)[0])
                assert held[near].sum() == len(alike)
                at = int(np.searchsorted(np.cumsum(held[near]), place, side="right"))
                rows.append(near[at])
                members.append(place - np.cumsum(held[near])[at] + held[near][at])
            column = [jnp.asarray(np.array(x, float))[:, None] for x in (rows, members)]
            row = np.array(rows)
            pulled = Pulled(*column, *(x[row] for x in (cohorts.kind, cohorts.logit, cohorts.unit)))
            cohorts, short = quick_step(optimiser)(classes, cohorts, pulled, jnp.asarray(weight)[:, None])
            assert not bool(short[0])
            pi = jax.nn.softmax(theta)
            gradient = jnp.zeros(12).at[chosen].add(weight) - weight.sum() * pi
            with jax.numpy_dtype_promotion("standard"):
                move, state = change.update(-gradient, state, theta)
            theta = theta + move
            held = np.asarray(arms_in(classes, cohorts))[:, 0]
            assert held.min() >= 0 and held.sum() == 12 and float(cohorts.change.sum()) == 0
            assert np.all(np.bincount(np.asarray(cohorts.kind)[:, 0].astype(int), held) == counts)
            spread = np.repeat(np.asarray(cohorts.logit)[:, 0], held.astype(int))
            assert np.allclose(np.sort(spread), np.sort(np.asarray(theta)), atol=1e-9)
            assert float(cohorts.mass.sum()) == pytest.approx(
                float(jnp.exp(theta - cohorts.top[0]).sum()), rel=1e-9
            )


def test_growing_keeps_the_state_and_a_full_buffer_says_so():
    rule = make(1.0)
    with jax.enable_x64(True):
        change = realise(rule.optimiser)
        classes = tables(np.zeros(1), np.array([10**18]), np.ones(1), np.zeros(1), jnp.float64)
        cohorts = start(classes, 2, 2, change)
        zero = jnp.zeros((1, 2), jnp.float64)
        pulled = Pulled(zero, zero, zero, cohorts.logit[:1], cohorts.unit[:1])
        first, short = step(classes, cohorts, pulled, jnp.array([[1.0, 0.0]]), change)
        assert not short.any()
        assert first.change.tolist() == [[-1, 0], [1, 0]]
        _, short = step(
            classes, first, pulled._replace(logit=first.logit[:1]), jnp.array([[2.0, 2.0]]), change
        )
        assert short.tolist() == [True, False]
        larger = grow(first, 5)
        second, short = step(
            classes, larger, pulled._replace(logit=first.logit[:1]), jnp.array([[2.0, 2.0]]), change
        )
        assert not short.any()
        assert second.change.tolist() == [[-2, -1], [1, 1], [1, 0], [0, 0], [0, 0]]


def test_equal_arms_merge_so_a_zero_sum_signal_needs_few_slots():
    """10^18 arms, 8 rollouts: every wrong pull touches a new arm; it joins those touched under as many successes."""
    arms = ArmClasses.two_class(arms=10**18, correct=1, p0=0.3)
    rule = make(0.1, "group_mean_std", 8)
    got = lumped.run(arms, rule, [0, 50], 64, 0, slots=16, observe=("success", "class_mass", "distinct"))
    assert np.allclose(got["class_mass/0"] + got["class_mass/1"], 1, atol=1e-12)
    assert np.all(got["distinct"][:, 1] == 1)
    assert got["success"][:, 1].mean() > 0.4


def test_rare_classes_are_sampled_at_their_odds():
    """Classes of mass 1e-9 and up, given that the uniform lies below 2^-20: chi-square, false alarm 1e-4.

    The uniforms are the engine's own, with their upper 20 bits taken as zero.
    """
    rare = 1e-9 * 2.0 ** np.arange(9)
    masses = np.append(rare, 1 - rare.sum())
    arms, _ = ArmClasses.from_masses(masses, np.zeros(10), count=np.full(10, 10**6)).rarest_first()
    assert np.allclose(arms.masses(), masses, rtol=1e-9)
    with jax.enable_x64(True):
        classes = tables(arms.logit, arms.count, arms.reward, arms.flip, jnp.float64)
        cohorts = start(classes, rows_for(10, 2), 100_000, realise(make(1.0).optimiser))
        fine = uniforms(jax.random.key(0), (100_000,), jnp.float64)
        below = jnp.floor(fine * 2.0**44) * 2.0**-64
        row = np.asarray(pick(classes, cohorts, cohorts.mass, below).row).astype(int)
        wanted = np.append(rare, 2.0**-20 - rare.sum()) * 2.0**20 * 100_000
        assert stats.chisquare(np.bincount(row, minlength=10)[:10], wanted).pvalue > 1e-4
        # Over the whole range only the last class is ever seen here: 1e5 draws times 5e-7.
        row = pick(classes, cohorts, cohorts.mass, fine).row
        assert float((row < 9).sum()) <= 3


def test_two_rollouts_meet_in_one_arm_at_the_right_rate():
    """Uniform over 20 arms, 2 rollouts: one in 20 pairs; 20,480 pairs, 4.5 standard deviations."""
    arms = ArmClasses.from_masses(np.full(20, 0.05), np.ones(20))
    got = lumped.run(arms, make(0.1, "raw", 2), [0, 1], 20_480, 0, observe=("distinct",))["distinct"][:, 1]
    assert set(got) == {1.0, 2.0}
    assert abs((got == 1).mean() - 0.05) < 4.5 * np.sqrt(0.05 * 0.95 / 20_480)


def test_a_rule_that_reads_log_probabilities_gets_them():
    """One round of K3 from a policy that has moved: p after two rounds, every pair of pulls enumerated."""
    rule = make(1.0, kl={"kind": "k3", "beta": 0.5})
    arms = ArmClasses.from_masses([0.5, 0.25, 0.25], [1, 0, 0])
    base, wanted = np.log([0.5, 0.25, 0.25]), []
    for first in range(3):
        pi = np.exp(base)
        theta = base + float(first == 0) * ((np.arange(3) == first) - pi)
        pi = np.exp(theta) / np.exp(theta).sum()
        for second in range(3):
            w = float(second == 0) + 0.5 * np.expm1(base[second] - np.log(pi[second]))
            after = np.exp(theta + w * ((np.arange(3) == second) - pi))
            wanted.append(after[0] / after.sum())
    got = lumped.run(arms, rule, [2], 500, 0)["success"][:, 0]
    assert np.abs(got[:, None] - np.array(wanted)).min(axis=1).max() < 1e-12
    assert len(np.unique(np.round(got, 10))) == len(np.unique(np.round(wanted, 10)))


def test_rewards_of_any_number_of_values_reach_the_signal():
    """Mean 3 p0 + (p0 3/4 + (1 - p0) / 4) / 2 + 1/16; 4.5 standard errors of the sample (false alarm 7e-6)."""
    given = dict(pay=MANY_VALUES, observe=("reward",))
    got = lumped.run(small_arms(), make(0.01), [0], 10_240, 0, **given)["reward"]
    wanted = 3 * 0.14 + (0.14 * 0.75 + 0.86 * 0.25) / 2 + 1 / 16
    assert abs(got.mean() - wanted) < 4.5 * got.std() / np.sqrt(10_240)
    assert set(np.unique(got)) == {
        3.0 * t + 0.5 * j + 0.125 * c for t in (0, 1) for j in (0, 1) for c in (0, 1)
    }


def test_float32_and_float64_agree_while_nothing_is_rare():
    got = [
        lumped.run(small_arms(), make(1.0), AT, 10_240, 2, dtype=t)["success"]
        for t in (jnp.float32, jnp.float64)
    ]
    assert np.abs(got[0].mean(axis=0) - got[1].mean(axis=0)).max() < 2e-3


CHAIN = ArmClasses.two_class(arms=14, correct=1, p0=0.1)


@pytest.mark.parametrize("p0", [0.1, 0.7])
def test_the_birth_chain_has_the_law_of_the_lumped_engine(p0):
    arms = ArmClasses.two_class(arms=14, correct=1, p0=p0)
    observe = ("success", "entropy", "reward", "distinct", "class_mass")
    at = [0, 2, 8, 20, 60]
    fast = lumped.run(arms, make(1.0), at, SEEDS, 1, observe=observe)
    slow = lumped.run(arms, make(1.0), at, SEEDS, 2, observe=observe, special=False)
    assert set(fast) == set(slow)
    for name in fast:
        pairs = zip(fast[name].T, slow[name].T, strict=True)
        assert min(p for a, b in pairs for p in p_values(a, b)) > FALSE_ALARM / (
            len(fast) * len(at) * 2 * 2
        ), name
    assert np.isin(np.round(slow["success"], 10), np.round(fast["success"], 10)).all(), (
        "the values of p are the chain's"
    )


def test_the_birth_chain_does_not_mind_which_seeds_or_rounds_are_asked_for():
    full = birth.run(CHAIN, make(1.0), [0, 5, 5000], 2100, 3, observe=("success", "reward"))
    part = birth.run(CHAIN, make(1.0), [0, 5, 5000], range(1500, 1510), 3, observe=("success", "reward"))
    assert all(np.array_equal(full[k][1500:1510], part[k]) for k in full)
    # 1 - p falls like 13 / (14 eta m): every seed has succeeded nearly always by now.
    assert full["success"][:, 2].min() > 0.999


@pytest.mark.parametrize(
    ("arms", "fields"),
    [
        (CHAIN, {"rule": make(1.0, "raw", 2)}),
        (CHAIN, {"pay": PlusMinus()}),
        (CHAIN, {"rule": make(1.0, kl={"kind": "k3", "beta": 0.1})}),
        (CHAIN, {"rule": make(1.0, optimiser={"kind": "adam", "eta": 0.1})}),
        (small_arms(), {}),
    ],
)
def test_the_birth_chain_is_used_only_where_it_holds(arms, fields):
    given = {"rule": make(1.0), "pay": None} | fields
    assert not birth.applies(arms, given["rule"], given["pay"], [10])
    assert birth.applies(CHAIN, make(1.0), None, [10])


@pytest.mark.parametrize("rule", [make(1.0), make(0.1, "group_mean_std", 8)], ids=["raw", "group"])
def test_a_quintillion_arms(rule):
    """The correct 10 arms hold p0; the law hardly knows 10^18 from 10^6 wrong arms (4 standard errors)."""
    means = []
    for arms in (10**6, 10**18):
        made = ArmClasses.two_class(arms=arms, correct=10, p0=0.2)
        got = lumped.run(made, rule, [0, 40], 4096, arms % 7, observe=("success", "entropy"), slots=20)
        assert np.allclose(got["success"][:, 0], 0.2, rtol=1e-12)
        wanted = -0.2 * np.log(0.02) - 0.8 * np.log(0.8 / float(arms - 10))
        assert np.allclose(got["entropy"][:, 0], wanted, rtol=1e-12)
        means.append((got["success"][:, 1].mean(), got["success"][:, 1].std() / 64))
    assert abs(means[0][0] - means[1][0]) < 4 * np.hypot(means[0][1], means[1][1])
    assert means[1][0] > 0.21


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at": [3, 1]}, r"at = \[3, 1\]; give strictly increasing"),
        ({"at": [-1]}, r"give strictly increasing round numbers from 0"),
        ({"at": [0.5]}, r"at = \[0.5\]; give a list of whole round numbers"),
        ({"seeds": 0}, r"seeds = 0; give at least 1"),
        ({"observe": ("regrets",)}, r"observe: 'regrets' is unknown; choose success"),
        (
            {"observe": ("held_out",)},
            r"'held_out' is not recorded by the engines of arms in classes.*Contexts",
        ),
        ({"observe": ()}, r"observe is empty"),
        ({"dtype": jnp.int32}, r"dtype = .*; give float64 or float32"),
        ({"slots": 0}, r"slots = 0; give at least 1"),
    ],
)
def test_bad_input_is_named(fields, message):
    given = {"at": [0], "seeds": 4, "key": 0} | fields
    at, seeds, key = (given.pop(k) for k in ("at", "seeds", "key"))
    with pytest.raises(Refusal, match=message):
        lumped.run(small_arms(), make(1.0), at, seeds, key, **given)
