"""Pay in the simulator: what noise does to the expected update, and what simulated pulls are paid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bandit_sim import Arms, TokenTree, expected_step, simulate
from bandit_sim.engines import dense
from theory.pay import Noisy, Overlong, PlusMinus, Shaped, Term
from theory.refusal import Refusal


@given(fp=st.floats(0, 1), fn=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_youden_j_scales_the_expected_direction(fp, fn, seed):
    """sum_a pi_a E[r | a] grad log pi_a = (1 - FP - FN) times that of the true rewards: zero at FP + FN = 1."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        arms = Arms.from_masses(rng.dirichlet(np.ones(6)), [1, 0, 0, 1, 0, 0])
        state, everything = dense.init(arms), jnp.arange(6)
        rewards, chances = Noisy(false_positive=fp, false_negative=fn).law(
            jnp.asarray(arms.reward), jnp.ones(6), jnp.zeros(6)
        )
        mean = sum(r * c for r, c in zip(rewards, chances, strict=True))
        pi = jnp.exp(state)
        got = dense.direction(arms, state, everything, (pi * mean)[:, None])
        true = dense.direction(arms, state, everything, (pi * arms.reward)[:, None])
        assert np.abs(got - (1 - fp - fn) * true).max() < 1e-14


@pytest.mark.parametrize(("fp", "fn"), [(0.1, 0.3), (0.4, 0.6), (0.7, 0.6)])
@pytest.mark.usefixtures("x64")
def test_success_rises_stands_or_falls_with_youden_j(make_rule, fp, fn):
    """The expected step of every arm and payment, in units of the clean one: J = .6, 0, -.3, up to O(eta)."""
    arms, rule = Arms.from_masses([0.2, 0.5, 0.2, 0.1], [1, 0, 0, 1]), make_rule(1e-5)
    ratio = expected_step(arms, rule, Noisy(false_positive=fp, false_negative=fn)) / expected_step(arms, rule)
    assert ratio == pytest.approx(1 - fp - fn, abs=1e-3)
    flipped = Arms(arms.logits, arms.reward, flip=np.where(arms.reward > 0, fn, fp))
    assert expected_step(flipped, rule, Noisy()) / expected_step(arms, rule) == pytest.approx(
        ratio, abs=1e-12
    )


def test_simulated_payments_follow_flip_and_length(make_rule):
    """Rewards of round 0 over 4,096 seeds against their law; chi-square, false-alarm rate 1e-4 over the key."""
    arms = TokenTree.grow([0.5, 0.3, 0.2], 2, lambda y: float(2 in y))
    arms = TokenTree(**{**vars(arms), "flip": np.where(arms.length == 2, 0.3, 0.1)})
    pay = Shaped(
        terms=(Term(pays=Noisy(false_positive=0.05)), Term(weight=0.5, pays=Overlong(limit=2, buffer=1)))
    )
    curves = simulate(arms, make_rule(), 1, 4096, 7, pay=pay)
    mass = np.prod(
        np.where(np.arange(2) < arms.length[:, None], np.array([0.5, 0.3, 0.2])[arms.token], 1), axis=1
    )
    rewards, chances = pay.law(*(np.asarray(x, float) for x in (arms.reward, arms.length, arms.flip)))
    values = [-0.5, 0.0, 0.5, 1.0]
    odds = [
        sum(np.sum(mass * c * (r == value)) for r, c in zip(rewards, chances, strict=True))
        for value in values
    ]
    counts = [np.sum(np.isclose(curves["reward"], value)) for value in values]
    assert sum(odds) == pytest.approx(1) and min(odds) > 0 and sum(counts) == 4096
    assert stats.chisquare(counts, np.array(odds) * 4096).pvalue > 1e-4
    assert curves["success"] == pytest.approx(mass @ arms.reward, rel=1e-5)  # the true p, whatever is paid


def test_what_has_no_effect_or_no_meaning_is_refused(make_rule):
    arms = Arms.two_class(arms=3, correct=1, p0=0.2)
    flipped = Arms(arms.logits, arms.reward, flip=np.array([0.1, 0, 0]))
    with pytest.raises(Refusal, match="arms have flip, but plus_minus never misjudges"):
        simulate(flipped, make_rule(), 1, 1, 0, pay=PlusMinus())
    with pytest.raises(Refusal, match="misjudges nothing"):
        expected_step(arms, make_rule(), Noisy())
    with pytest.raises(Refusal, match=r"flip of arm 1 is 1\.5"):
        Arms(arms.logits, arms.reward, flip=np.array([0, 1.5, 0]))
