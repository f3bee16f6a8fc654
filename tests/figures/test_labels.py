"""Labels: spread without overlap, in order, as near as they can; words cut to a width."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import optimize

from figures.labels import fit, size, spread
from figures.style import new_figure, rc

boxes = st.lists(st.tuples(st.floats(-20, 120), st.floats(1, 15)), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(boxes)
def test_boxes_stay_inside_in_order_and_apart(drawn):
    centres, heights = map(list, zip(*drawn, strict=True))
    placed = spread(centres, heights, 0, 100)
    order = np.argsort(centres, kind="stable")
    edges = [(placed[i] - heights[i] / 2, placed[i] + heights[i] / 2) for i in order]
    assert edges[0][0] >= -1e-9 and edges[-1][1] <= 100 + 1e-9
    assert all(below[1] <= above[0] + 1e-9 for below, above in pairwise(edges))


def test_boxes_with_room_stay_where_they_want_to_be():
    assert spread([20, 80, 50], [10, 10, 10], 0, 100) == [20, 80, 50]


@pytest.mark.parametrize("centres", [[50, 50, 50], [1, 2, 90], [40, 44, 60, 61], [95, 99, 100]])
def test_positions_are_the_least_squares_ones(centres):
    heights = [10.0] * len(centres)
    apart = [{"type": "ineq", "fun": lambda y, i=i: y[i + 1] - y[i] - 10} for i in range(len(centres) - 1)]
    start = np.linspace(5, 95, len(centres))
    best = optimize.minimize(
        lambda y: np.sum((y - centres) ** 2), start, bounds=[(5, 95)] * len(centres), constraints=apart
    )
    np.testing.assert_allclose(spread(centres, heights, 0, 100), best.x, atol=1e-3)


def test_words_are_cut_to_the_width_but_never_what_is_kept():
    with rc():
        text = new_figure(8, 5).text(0, 0, "a model\nname " + 20 * "that goes on ", fontsize=6.5)
        fit(text, 700, keep=", nothing fitted")
        assert text.get_text().startswith("a model name") and text.get_text().endswith("…, nothing fitted")
        assert size(text)[0] <= 700


def test_dollar_signs_are_money_not_mathematics():
    with rc():
        text = fit(new_figure(8, 5).text(0, 0, "$3 plus $\\frac$?", fontsize=6.5), 900)
        assert size(text)[0] > 0 and text.get_text() == "$3 plus $\\frac$?"


def test_a_figure_that_cannot_measure_text_is_rejected():
    with pytest.raises(TypeError, match="new_figure"):
        size(Figure().text(0, 0, "words"))
