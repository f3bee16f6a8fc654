"""Plain curves and the error against the step size."""

import numpy as np
import pytest

from figures.curves import draw_curves, draw_error_vs_eta
from figures.style import save_figure
from theory.refusal import Refusal


@pytest.mark.parametrize("rounds", [1, 7, 1000])
def test_curves_can_be_read(rounds, assert_readable):
    p = np.linspace(0.1, 0.9, rounds)
    assert_readable(
        draw_curves(p, np.stack([p * x for x in (0.5, 0.8, 1, 1.05, 1.1)]), "minimalist", "32 seeds")
    )


def test_bands_that_meet_keep_their_labels_apart(assert_readable):
    assert_readable(draw_curves(np.ones(20), np.ones((5, 20)), "all solved"))


def test_quantiles_of_the_wrong_shape_are_named():
    with pytest.raises(Refusal, match=r"quantiles have shape \(3, 4\)"):
        draw_curves(np.zeros(4), np.zeros((3, 4)), "wrong")


def test_errors_can_be_read_in_any_order_of_eta(assert_readable, tmp_path):
    etas = np.array([1e-2, 1e-4, 1e-3, 1e-1])
    figure = draw_error_vs_eta(etas, {"tree kernel": 3 * etas, "cut 2%": 0.01 + etas}, "one round")
    assert_readable(figure)
    save_figure(figure, tmp_path / "a.svg")
    guide = figure.axes[0].lines[0]
    slopes = np.diff(np.log(guide.get_ydata())) / np.diff(np.log(guide.get_xdata()))
    np.testing.assert_allclose(slopes, 1)
    np.testing.assert_allclose(guide.get_ydata(), 3 * np.sort(etas))


def test_zero_errors_are_left_out_and_nothing_but_zeros_rejected():
    figure = draw_error_vs_eta([0.1, 0.2], {"a": [0.0, 1.0]}, "zeros")
    assert len(figure.axes[0].lines[1].get_xdata()) == 1
    with pytest.raises(Refusal, match=r"errors\['a'\] has no positive"):
        draw_error_vs_eta([0.1, 0.2], {"a": [0.0, 0.0]}, "zeros")
    with pytest.raises(Refusal, match="errors is empty"):
        draw_error_vs_eta([0.1], {}, "none")
