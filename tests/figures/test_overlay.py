"""The overlay picture: words that can be read, bytes that do not change, state that stays where it was."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from figures.overlay import draw_overlay
from figures.style import save_figure
from theory.refusal import Refusal


@pytest.mark.parametrize("kind", ["slow", "fast", "flat", "one line", "zero", "ceiling"])
def test_the_words_can_be_read_at_eight_centimetres(kind, overlay_data, assert_readable):
    assert_readable(draw_overlay(overlay_data(kind)))


@pytest.mark.parametrize("width_cm", [7, 12, 17])
def test_the_words_can_be_read_at_other_widths(width_cm, overlay_data, assert_readable):
    figure = draw_overlay(overlay_data("slow"), width_cm=width_cm)
    assert_readable(figure)
    assert figure.get_figwidth() * 2.54 == pytest.approx(width_cm)


def test_long_words_are_cut_and_nothing_fitted_stays(overlay_data, assert_readable):
    figure = draw_overlay(overlay_data("slow", title="why\n$x$ " * 40, model="organisation/model-" * 9))
    assert_readable(figure)
    title, model = (text.get_text() for text in figure.texts[:2])
    assert title.endswith("…") and model.endswith("…, 32 replicas, η = 0.01, nothing fitted")


def test_the_picture_says_what_it_shows(overlay_data):
    figure = draw_overlay(overlay_data("slow"))
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("round (updates)", "success probability")
    words = " ".join(text.get_text().replace("\n", " ") for text in [*figure.texts, *axes.texts])
    for name in (
        "observed",
        "forecast",
        "sequence kernel",
        "tabular bandit",
        "replicas ± 1 sd",
        "p₀",
        "17 + 25",
    ):
        assert name in words


def test_replicas_can_be_left_out(overlay_data, assert_readable):
    figure = draw_overlay(overlay_data("slow", replica_low=None, replica_high=None))
    assert_readable(figure)
    assert not any("sd" in text.get_text() for text in figure.texts)


def test_svg_is_the_same_bytes_twice_and_its_text_is_text(tmp_path, overlay_data):
    for name in ("a", "b"):
        save_figure(draw_overlay(overlay_data("slow")), tmp_path / f"{name}.svg", tmp_path / f"{name}.png")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    words = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "observed" in words and "success probability" in words
    assert not re.search(r"\b20\d\d-\d\d-\d\d", svg)  # no date


def test_png_has_300_dots_per_inch(tmp_path, overlay_data):
    save_figure(draw_overlay(overlay_data("slow")), tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[1] == pytest.approx(8 / 2.54 * 300, abs=1)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path, overlay_data):
    before = dict(mpl.rcParams)
    save_figure(draw_overlay(overlay_data("slow")), tmp_path / "a.svg")
    assert dict(mpl.rcParams) == before


def test_other_suffixes_and_narrow_figures_are_rejected(tmp_path, overlay_data):
    with pytest.raises(Refusal, match=r"\.pdf"):
        save_figure(draw_overlay(overlay_data("slow")), tmp_path / "a.pdf")
    with pytest.raises(Refusal, match="width_cm is 5"):
        draw_overlay(overlay_data("slow"), width_cm=5)


def test_curves_of_the_wrong_length_are_named(overlay_data):
    with pytest.raises(Refusal, match="tabular has shape"):
        overlay_data("slow", comparisons={"tabular": np.zeros(7)})
    with pytest.raises(Refusal, match="quantiles have shape"):
        overlay_data("slow", quantiles=np.zeros((5, 7)))
    with pytest.raises(Refusal, match="replica_low and replica_high"):
        overlay_data("slow", replica_low=None)


def test_two_sets_of_queries_are_two_panels_on_the_same_rounds(two_sets, assert_readable):
    figure = draw_overlay(two_sets)
    assert_readable(figure)
    above, below = figure.axes
    assert above.get_title("left") == "trained on" and below.get_title("left") == "held out"
    assert above.get_xlim() == below.get_xlim() and not above.get_xlabel()
    words = " ".join(text.get_text().replace("\n", " ") for text in [*figure.texts, *below.texts])
    assert "queries apart" in words and words.count("± 1 sd") == 1
