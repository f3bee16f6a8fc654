"""The word chain: one correct arm is the birth chain; several equal enumeration and simulated seeds."""

from itertools import product
from math import comb

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_sim import Arms, replay, simulate
from tests.theory.laws.mutation import survivors
from theory.laws import birth_chain
from theory.laws.word_chain import word_chain
from theory.refusal import Refusal
from theory.rules import preset

MASSES = [0.25, 0.05, 0.7]


@given(p0=st.floats(0.01, 0.9), eta=st.floats(0.01, 5))
def test_one_correct_arm_is_the_birth_chain(p0, eta):
    words = word_chain([p0, 1 - p0], 1, eta, 10)
    mean, spread = birth_chain.success_moments(birth_chain.ladder(p0, eta, 10, 2.0), 10)
    np.testing.assert_allclose(words.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(words.spread, spread, atol=1e-7)
    assert words.probability.sum() == pytest.approx(1)


def enumerated(eta: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.array(list(product(range(3), repeat=rounds)))
    choices = np.pad(draws, ((0, 0), (0, 1)))[..., None]
    rewards = (choices < 2).astype(float)
    chance = np.ones(len(draws))
    with jax.enable_x64(True):
        rule = preset("minimalist", eta=eta)
        p = replay(Arms.from_masses(MASSES, [1, 1, 0]), rule, choices, rewards)
        first = replay(Arms.from_masses(MASSES, [1, 0, 0]), rule, choices, rewards)  # pi of arm 0 alone
    mass = np.stack([first, p - first, 1 - p], axis=-1)
    for t in range(rounds):
        chance *= mass[np.arange(len(draws)), t, draws[:, t]]
    return chance, p


CHANCE, PATHS = enumerated(2.0, 5)


def equals_enumeration(chain) -> bool:
    law = chain(MASSES, 2, 2.0, 5)
    mean = CHANCE @ PATHS
    spread = np.sqrt(np.maximum(CHANCE @ (PATHS - mean) ** 2, 0))
    last = (law.probability @ law.success, law.probability @ law.success**3)
    return (
        np.abs(law.mean - mean).max() < 1e-12
        and np.abs(law.spread - spread).max() < 1e-7
        and np.allclose(last, (mean[-1], CHANCE @ PATHS[:, -1] ** 3), atol=1e-12)
    )


def test_several_correct_arms_equal_enumeration():
    assert CHANCE.sum() == pytest.approx(1)
    # Left out: the guard on memory, and powers of an identity matrix.
    assert survivors(word_chain, equals_enumeration, equivalent=("whole(", "np.eye")) == []


def test_order_matters_so_that_counts_are_no_state():
    """Arms 0 then 1 and 1 then 0 leave different policies (eta = 2)."""
    with jax.enable_x64(True):
        arms, rule = Arms.from_masses(MASSES, [1, 1, 0]), preset("minimalist", eta=2.0)
        p = replay(arms, rule, [[[0], [1], [0]], [[1], [0], [0]]], np.ones((2, 3, 1)))
    assert abs(p[0, 2] - p[1, 2]) > 0.01


def test_simulated_seeds_have_its_mean():
    """8,192 seeds, 12 rounds, each round within 4.5 standard errors (false alarm 1e-4 over all)."""
    law = word_chain(MASSES, 2, 1.0, 12)
    arms = Arms.from_masses(MASSES, [1, 1, 0])
    p = simulate(arms, preset("minimalist", eta=1.0), 13, 8192, 5)["success"]
    error = law.spread[1:] / np.sqrt(len(p))
    assert np.all(np.abs(p.mean(axis=0) - law.mean)[1:] < 4.5 * error)
    wrong = word_chain(MASSES, 2, 1.1, 12)
    assert np.any(np.abs(p.mean(axis=0) - wrong.mean)[1:] > 4.5 * error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.5], 2, 1.0, 3), r"correct = 2 of 2 arms; give 1 <= correct <= arms - 1"),
        (([0.2, 0.2, 0.6], 2, 1.0, 30), "rounds = 30 with 2 correct arms makes too many words"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(Refusal, match=message):
        word_chain(*arguments)


@given(
    correct=st.lists(st.floats(0.05, 1), min_size=2, max_size=2),
    wrong=st.lists(st.floats(0.05, 1), min_size=1, max_size=3),
    eta=st.floats(0.1, 3),
    level=st.floats(0.1, 0.9),
)
def test_no_start_reaches_a_level_faster_than_the_bound(correct, wrong, eta, level):
    """All words of eight rounds: P(p_8 >= level) is P(T <= 8), since p never falls."""
    masses = np.array([*correct, *wrong]) / (sum(correct) + sum(wrong))
    p0 = float(masses[:2].sum())
    law = word_chain(masses, 2, eta, 8)
    reached = float(law.probability[law.success >= level].sum())
    if level > p0:
        assert reached <= birth_chain.reached_at_most(p0, eta, level, 8, float(masses[2:].max()))[-1] + 1e-9


def test_no_mutant_of_the_bound_is_its_formula():
    """logit .6 - logit .2 = ln 6 = 1.79176; / (.05 1.9) = 18.86: at least 19 of forty rounds at .6."""
    wanted = sum(comb(40, k) * 0.6**k * 0.4 ** (40 - k) for k in range(19, 41))
    agrees = lambda f: abs(f(0.2, 0.05, 0.6, 40, 0.9)[-1] - wanted) < 1e-9  # noqa: E731
    # The number of successes is rounded up, so that a tenth more or less of a part may not show.
    left = survivors(birth_chain.reached_at_most, agrees, 1.4, equivalent=("1e-12",))
    assert left == []
