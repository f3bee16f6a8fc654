"""The ladder and the phase diagrams: readable, and what they are given is what they show."""

import numpy as np
import pytest

from figures.layers import Panel, draw_ladder, draw_phase
from figures.style import save_figure
from theory.refusal import Refusal

T = np.arange(21)


def panel(number: int, **changes) -> Panel:
    p = 0.05 + 0.9 * T / 20
    words = {"title": f"{number} layer", "words": "variant", "at": T, "run": p, "run_error": 0.02 + 0 * p}
    return Panel(**{**words, **changes})


def test_a_ladder_can_be_read_with_and_without_its_parts(assert_readable, tmp_path):
    told = {
        "forecast_at": T,
        "forecast": T / 25,
        "band": np.array([T / 30, T / 22]),
        "below_at": T,
        "below": T / 40,
    }
    lacking = Panel(
        "6 dress", "adam: shared features are a kernel, which carries function values and not parameters"
    )
    figure = draw_ladder(
        [panel(0), panel(1, **told), lacking, panel(3, **told | {"band": None})], "The layers, a world"
    )
    assert_readable(figure)
    assert [len(axes.lines) for axes in figure.axes] == [1, 3, 0, 3]
    save_figure(figure, tmp_path / "a.png")
    save_figure(figure, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_ladder_without_layers_is_refused():
    with pytest.raises(Refusal, match="panels is empty"):
        draw_ladder([], "none")


@pytest.mark.parametrize("signed", [True, False])
def test_a_phase_diagram_can_be_read(signed, assert_readable):
    x, y = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7]), np.linspace(0, 0.5, 6)
    values = np.linspace(-1 if signed else 0, 1, 48).reshape(6, 8)
    figure = draw_phase(
        x, y, values, "What an advantage adds", "words", "p0", "overlap", "gain", signed=signed,
        border=(np.linspace(0.02, 0.04, 6), y),
    )  # fmt: skip
    assert_readable(figure)
    shown = figure.axes[0].collections[0].get_array()
    np.testing.assert_allclose(np.asarray(shown).reshape(6, 8), values)


def test_a_fine_diagram_on_two_log_axes_has_no_numbers_in_it(assert_readable):
    c1, c3 = np.geomspace(0.0015, 0.05, 24), np.geomspace(0.05, 0.5, 24)
    figure = draw_phase(
        c1, c3, 1 + np.sqrt(c3[:, None] / c1), "The best group", "law", "c1", "c3", "rollouts", log="xy",
        points=(np.array([0.01]), np.array([0.2])),
    )  # fmt: skip
    assert_readable(figure)
    assert not figure.axes[0].texts


def test_values_of_another_shape_are_named():
    with pytest.raises(Refusal, match=r"values have shape \(2, 3\)"):
        draw_phase([1, 2], [1, 2, 3], np.zeros((2, 3)), "t", "s", "x", "y", "z")
