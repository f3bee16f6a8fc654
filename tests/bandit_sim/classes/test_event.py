"""The event engine against the lumped one: the same laws, and no bit more than the eventful rounds cost."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from laws import FALSE_ALARM, SEEDS, p_values
from scipy import stats

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes import event, lumped
from bandit_sim.classes.event import _busy, _rewards
from theory.pay import Noisy, PlusMinus
from theory.refusal import Refusal
from theory.rules.rule import Rule

AT = [0, 2, 7, 16]
OBSERVE = ("success", "reward", "distinct")


@pytest.fixture(autouse=True)
def _compile_quickly():
    """Not here: seeds and rounds outweigh compilation."""


def make(eta, signal="raw", rollouts=1, **fields):
    spec = {"signal": {"kind": signal}, "optimiser": {"kind": "sgd", "eta": eta}, "rollouts": rollouts}
    return Rule.model_validate(spec | fields)


def small_arms():
    masses = np.array([0.05] + [0.03] * 3 + [0.14] * 4 + [0.05] * 6)
    return ArmClasses.from_masses(masses, [1.0] * 4 + [0.0] * 10)


RULES = {
    "raw": (make(1.0), None),
    "leave-one-out of +-1, 4": (make(0.5, "leave_one_out", 4), PlusMinus()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_law_is_that_of_the_lumped_engine(name):
    rule, pay = RULES[name]
    fast = event.run(small_arms(), rule, AT, SEEDS, 1, pay=pay, observe=OBSERVE, slots=14)
    slow = lumped.run(small_arms(), rule, AT, SEEDS, 2, pay=pay, observe=OBSERVE, slots=14)
    for metric in OBSERVE:
        pairs = zip(fast[metric].T, slow[metric].T, strict=True)
        smallest = min(p for a, b in pairs for p in p_values(a, b))
        assert smallest > FALSE_ALARM / (len(RULES) * len(OBSERVE) * len(AT) * 2), metric


def test_no_bit_depends_on_the_buffer_the_seeds_or_the_rounds_recorded():
    arms, rule = small_arms(), make(1.0)
    full = event.run(arms, rule, [0, 4, 30], 1100, 5, slots=16)["success"]
    assert np.array_equal(
        full[1050:1060], event.run(arms, rule, [0, 4, 30], range(1050, 1060), 5, slots=1)["success"]
    )
    assert np.array_equal(
        full[:9], event.run(arms, rule, np.arange(31), 9, 5, slots=16)["success"][:, [0, 4, 30]]
    )


@pytest.mark.parametrize("quiet", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("q", [1e-12, 0.3, 1 - 1e-12])
def test_the_probability_that_a_round_moves_is_exact(quiet, q):
    """n = 3, r = 1 - q given exactly. Both quiet: 1 - q^3 - r^3 = 3 q r; one: 1 - r^3 = q (3 - 3 q + q^2)."""
    import jax

    r = 1 - q
    wanted = (
        3 * q * r
        if quiet == (True, True)
        else q * (3 - 3 * q + q * q)
        if quiet[0]
        else r * (3 - 3 * r + r * r)
    )
    with jax.enable_x64(True):
        busy, low, high = _busy(jnp.asarray([q]), jnp.asarray([r]), 3, quiet)
    assert float(busy[0]) == pytest.approx(wanted, rel=1e-12)
    assert float(busy[0] + low[0] + high[0]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("quiet", [(True, False), (False, True), (True, True)])
def test_rewards_have_the_law_of_rounds_that_move(quiet):
    """n = 3, q = .3: every pattern's probability is q^k r^(n-k) over P(moves); quiet ones never. False alarm 1e-4."""
    import jax

    number, q = 40_000, 0.3
    with jax.enable_x64(True):
        uniform = jax.random.uniform(jax.random.key(1), (3, number), jnp.float64)
        full = jnp.full(number, q)
        wins = np.asarray(_rewards(full, 1 - full, 3, quiet, uniform)).astype(int)
    seen = np.bincount(wins[0] * 4 + wins[1] * 2 + wins[2], minlength=8)
    wanted = np.array([q ** bin(i).count("1") * (1 - q) ** (3 - bin(i).count("1")) for i in range(8)])
    wanted[[0, 7]] *= ~np.array(quiet)
    possible = wanted > 0
    assert seen[~possible].sum() == 0
    assert stats.chisquare(seen[possible], number * wanted[possible] / wanted.sum()).pvalue > 1e-4


def test_a_billion_rounds_at_one_success_in_a_hundred_million():
    """10^18 arms, a million of them correct, p0 = 1e-8: touching one of them changes nothing that floats can hold, so
    the number of touched arms after t rounds is binomial (t, 1e-8). Chi-square at t = 10^9, false alarm 1e-4; and
    none by round 10^8 in exp(-1) of the runs.
    """
    arms = ArmClasses.two_class(arms=10**18, correct=10**6, p0=1e-8)
    at = [0, 10**8, 10**9]
    got = event.run(arms, make(0.01), at, 4096, 0, observe=("distinct", "success", "reward"), slots=4)
    assert np.allclose(got["success"], 1e-8, rtol=1e-3)
    assert abs((got["distinct"][:, 1] == 0).mean() - np.exp(-1)) < 4 * 0.48 / 64
    count = np.clip(got["distinct"][:, 2].astype(int), 4, 16)
    law = stats.binom(10**9, 1e-8)
    wanted = np.array([law.cdf(4), *law.pmf(np.arange(5, 16)), law.sf(15)])
    assert stats.chisquare(np.bincount(count - 4, minlength=13), 4096 * wanted).pvalue > 1e-4
    assert got["reward"].sum() == 0, "a rewarded round among these 12,288 has probability 1.2e-4"


def test_a_bandit_without_reward_never_moves():
    arms = ArmClasses.from_masses([0.5, 0.5], [0, 0])
    got = event.run(arms, make(1.0), [0, 10**15], 4, 0, observe=("success", "reward"))
    assert not got["success"].any() and not got["reward"].any()


@pytest.mark.parametrize(
    ("rule", "pay", "message"),
    [
        (make(1.0), PlusMinus(), r"signal raw moves the policy in every round \(rewards \[-1.0, 1.0\]\)"),
        (make(1.0), Noisy(), r"rewards are left to chance; use the lumped engine"),
        (make(1.0, optimiser={"kind": "adam", "eta": 0.1}), None, r"optimiser adam is not plain SGD"),
        (make(1.0, kl={"kind": "k3", "beta": 0.1}), None, r"no log-probabilities"),
    ],
)
def test_rules_without_quiet_rounds_are_turned_away(rule, pay, message):
    masses = ArmClasses.from_masses([0.5, 0.5], [1, 0], flip=[0.1, 0.1])
    with pytest.raises(Refusal, match=message):
        event.run(masses, rule, [0], 4, 0, pay=pay)
