"""Curves: shapes, quantiles and concatenation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.curves import Curves
from theory.refusal import Refusal

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)
arrays = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4)).map(
    lambda t: np.random.default_rng(t[0]).normal(size=t[1:])
)


@quick
@given(array=arrays, cut=st.integers(0, 5))
def test_concatenating_the_seeds_of_any_split_gives_the_whole(array, cut):
    parts = [Curves({"success": part}) for part in (array[:cut], array[cut:]) if len(part)]
    whole = Curves.concatenate(parts)
    np.testing.assert_array_equal(whole["success"], array)
    assert (whole.seeds, whole.rounds) == array.shape


@quick
@given(array=arrays)
def test_quantiles_rise_and_the_mean_lies_between_the_extremes(array):
    curves = Curves({"success": array})
    bands = curves.quantiles("success", [0, 0.05, 0.5, 0.95, 1])
    assert bands.shape == (5, array.shape[1]) and np.all(np.diff(bands, axis=0) >= 0)
    mean = curves.mean("success")
    assert np.all((bands[0] - 1e-12 <= mean) & (mean <= bands[-1] + 1e-12))
    np.testing.assert_allclose(curves.quantiles("success", 0.5)[0], np.median(array, axis=0), atol=1e-12)


def test_curves_are_a_read_only_copy():
    source = np.ones((2, 3))
    curves = Curves({"success": source})
    source[0, 0] = 7
    assert curves["success"].dtype == np.float64 and curves["success"][0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        curves["success"][0, 0] = 2


def test_what_is_wrong_with_curves_is_named():
    one = np.ones((2, 3))
    with pytest.raises(Refusal, match="metrics is empty"):
        Curves({})
    with pytest.raises(Refusal, match=r"\['success'\] has shape \(3,\)"):
        Curves({"success": np.ones(3)})
    with pytest.raises(Refusal, match=r"\['reward'\] has shape \(2, 4\), others \(2, 3\)"):
        Curves({"success": one, "reward": np.ones((2, 4))})
    with pytest.raises(KeyError, match="no metric 'reward'; these curves hold success"):
        Curves({"success": one})["reward"]
    with pytest.raises(Refusal, match="probs holds 95"):
        Curves({"success": one}).quantiles("success", [95])
    with pytest.raises(Refusal, match="parts is empty"):
        Curves.concatenate([])
    with pytest.raises(Refusal, match=r"parts\[1\] has metrics \['reward'\]"):
        Curves.concatenate([Curves({"success": one}), Curves({"reward": one})])
