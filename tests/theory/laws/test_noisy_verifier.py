"""A verifier that errs: every pull and every misjudgement through the simulator, tails by integration, mutants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.laws.engine import one_round
from tests.theory.laws.mutation import survivors
from theory.laws import clocks, noisy_verifier, two_class
from theory.refusal import Refusal
from theory.rules import SGD, GroupMeanStd, Raw, Rule

rate = st.floats(0, 1)
ERRORS = [(0.1, 0.2), (0.0, 0.4), (0.7, 0.6)]  # J = .7, .6, -.3


def seen(signal, rollouts: int, errors: tuple[float, float]):
    rule = Rule(signal=signal, optimiser=SGD(eta=1), rollouts=rollouts)
    return one_round([0.3, 0.7], 1, rule, misjudged=errors).mean / (2 * 0.3 * 0.7)  # two logits


RAW = {errors: seen(Raw(), 1, errors) for errors in ERRORS}
STD = {errors: seen(GroupMeanStd(eps=0), 3, errors) for errors in ERRORS}


def is_the_enumerated_gap(advantage_gap) -> bool:
    """Finite groups, raw reward, and endless groups as J/sqrt(rho (1-rho)) with rho = .1 and .9 at q = 0 and 1."""
    limit = advantage_gap([0.25, 0.5], 0.1, 0.1)  # rho = .3, .5
    return (
        all(abs(advantage_gap(0.3, *e, False) - gap) < 1e-9 for e, gap in RAW.items())
        and all(abs(advantage_gap(0.3, *e, True, 3) - gap) < 1e-9 for e, gap in STD.items())
        and np.allclose(limit, [0.8 / np.sqrt(0.21), 0.8 / 0.5], rtol=1e-9)
    )


def test_the_gap_equals_enumeration_of_pulls_and_misjudgements():
    helpers = ("youden", "paid")
    # index + 0 q gives the shape of q.
    equivalent = ("0 -> 0.0", "q -> q ** 1.1 in 0 * q")
    assert survivors(noisy_verifier.advantage_gap, is_the_enumerated_gap, equivalent=equivalent) == []
    for law in helpers:
        agrees = {
            "youden": lambda f: abs(f(0.1, 0.3) - 0.6) < 1e-12,
            "paid": lambda f: abs(f(0.4, 0.1, 0.3) - (0.4 * 0.9 + 0.6 * 0.3)) < 1e-12,
        }[law]
        assert survivors(getattr(noisy_verifier, law), agrees) == []


@given(q=st.floats(0.01, 0.99), false_negative=rate, false_positive=rate)
def test_the_sign_is_that_of_the_youden_index(q, false_negative, false_positive):
    index = noisy_verifier.youden(false_negative, false_positive)
    for normalised, rollouts in ((False, None), (True, 4)):
        gap = noisy_verifier.advantage_gap(q, false_negative, false_positive, normalised, rollouts)
        if abs(index) > 1e-6:
            assert gap == 0 or np.sign(gap) == np.sign(index)
    assert 0 <= noisy_verifier.paid(q, false_negative, false_positive) <= 1


@given(q=st.floats(0.01, 0.99))
def test_a_clean_verifier_is_the_signal_itself(q):
    assert noisy_verifier.advantage_gap(q) == pytest.approx(two_class.advantage_gap("group_mean_std", q))
    assert noisy_verifier.advantage_gap(q, normalised=False) == 1


@pytest.mark.parametrize(
    ("false_negative", "false_positive", "times"),
    [(0.2, 0.1, (1e5, 1e6)), (0.0, 0.3, (2e3, 2e4)), (0.7, 0.8, (1e5, 1e6)), (0.4, 1.0, (2e3, 2e4))],
)
def test_tails_have_their_exponents_and_constants(false_negative, false_positive, times):
    """J = .7, .7, -.5, -.4; the correct mass is followed to the times, in log-odds, with C = 1.5."""
    index = 1 - false_negative - false_positive
    drift = lambda q: q * (1 - q) * noisy_verifier.advantage_gap(q, false_negative, false_positive)  # noqa: E731
    q = clocks.flow(np.array(times), 0.5, 1.5 * 0.4, drift)
    left = 1 - q if index > 0 else q

    def agrees(law) -> bool:
        return np.abs(law(np.array(times), 0.4, false_negative, false_positive, 1.5) / left - 1).max() < 5e-3

    assert agrees(noisy_verifier.tail)
    assert not agrees(lambda *a: 1.1 * noisy_verifier.tail(*a))
    assert not agrees(lambda *a: noisy_verifier.tail(*a) ** 1.1)


def test_a_useless_verifier_has_no_tail():
    with pytest.raises(Refusal, match="makes J = 0: nothing moves"):
        noisy_verifier.tail(10.0, 1.0, 0.25, 0.75)
