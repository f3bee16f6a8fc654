"""Verifiers of the simulator on text: the same law, and a reason where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from bandit_sim.verifiers import Clean, Format, NegativeOnly, Noisy, Overlong, PlusMinus, Shaped, Term
from experiments.run.pay import no_pay_on_text, pay_of
from theory.refusal import Refusal

TRUTH = np.array([0.0, 1.0, 0.0, 1.0])
LENGTH = np.array([1, 2, 3, 4])
UNIFORM = np.array([0.05, 0.15, 0.15, 0.25])


@pytest.mark.parametrize(
    ("verifier", "paid"),
    [
        (PlusMinus(), [-1, 1, -1, 1]),
        (NegativeOnly(), [-1, 0, -1, 0]),
        # Misjudged below .1 where wrong, below .2 where right.
        (Noisy(false_positive=0.1, false_negative=0.2), [1, 0, 0, 1]),
        (Noisy(false_positive=0.1, false_negative=0.2, pays=PlusMinus()), [1, -1, -1, 1]),
        # -clip((l - 3) / 2 + 1): 0 at one token, a half at two, whole from three on.
        (Overlong(limit=3, buffer=2), [0, -0.5, -1, -1]),
        (Shaped(terms=(Term(pays=Clean()), Term(weight=0.5, pays=PlusMinus()))), [-0.5, 1.5, -0.5, 1.5]),
    ],
)  # fmt: skip
def test_pay_is_what_the_uniform_number_picks_from_the_law(verifier, paid):
    pay = pay_of(verifier)
    assert pay is not None and no_pay_on_text(verifier) is None
    got = pay(UNIFORM, TRUTH, LENGTH)
    np.testing.assert_allclose(got, paid, atol=1e-15)
    assert got.dtype == np.float64 and got.flags.writeable


def test_the_reward_itself_needs_no_pay():
    assert pay_of(Clean()) is None


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (Format(wrong=0.5), "verifier format: format draws by chance whether a response is well-formed"),
        (Shaped(terms=(Term(pays=Clean()), Term(pays=Format(wrong=0.5)))), "verifier shaped: format draws"),
        (Noisy(), "noisy with rates 0 misjudges nothing"),
    ],
)
def test_what_means_nothing_on_text_is_refused_with_its_reason(verifier, message):
    with pytest.raises(Refusal, match=message):
        pay_of(verifier)
