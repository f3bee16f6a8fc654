"""The mutation helper changes what it says, and tells a comparison that cannot see from one that can."""

import numpy as np
import pytest

from tests.theory.laws.mutation import mutants, survivors


def area(radius):
    return 3.0 * radius**2


def test_every_number_and_variable_of_a_formula_is_changed_in_turn():
    values = sorted(mutant(2.0) for _, mutant in mutants(area))
    wanted = sorted([3.3 * 4, 3 * (2**1.1) ** 2, 3 * 2**2.2])
    np.testing.assert_allclose(values, wanted, rtol=1e-12)
    assert area(2.0) == 12.0


def test_a_blind_comparison_is_found_out():
    sees = lambda law: abs(law(2.0) - 12) < 1e-9  # noqa: E731
    assert survivors(area, sees) == []
    assert len(survivors(area, lambda law: law(1.0) < 3.1)) == 2  # at radius 1 no exponent shows
    with pytest.raises(AssertionError, match="no mutant was rejected"):
        survivors(area, lambda law: True)
    with pytest.raises(AssertionError, match="rejects the law itself"):
        survivors(area, lambda law: law(2.0) == 13)
