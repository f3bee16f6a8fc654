"""The laws' gallery: a picture per group, each drawn once, each with its law and the regime in which it breaks."""

import inspect
import re
from pathlib import Path

import pytest

from experiments.studies import law_gallery
from experiments.studies.gallery import PICTURES


def test_every_group_has_its_picture_in_the_gallery():
    assert [int(name.split("_")[1]) for name in law_gallery.PICTURES] == list(range(1, 10))
    assert set(law_gallery.PICTURES) <= set(PICTURES)
    assert all((Path("figures/gallery") / f"{name}.png").exists() for name in law_gallery.PICTURES)


@pytest.mark.parametrize("name", law_gallery.PICTURES)
def test_its_words_say_where_the_law_breaks(name):
    assert re.search(r"breaks? ", inspect.getsource(law_gallery.PICTURES[name]))


@pytest.mark.parametrize("name", ["law_5_regret", "law_9_fits"])
def test_law_and_simulator_share_one_axes(name):
    (axes,) = law_gallery.PICTURES[name]().axes
    styles = {line.get_linestyle() for line in axes.lines}
    assert {"-", "--"} <= styles and axes.collections  # seeds, laws, and a band
