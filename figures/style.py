"""How every figure looks: one rc dict, one colour per thing, and how a figure is written to disk."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from theory.refusal import Refusal

CM = 1 / 2.54
DPI = 300  # also while drawing: text measured at another resolution comes out a little wider
SMALL, MEDIUM = 6.5, 7.5  # points at the printed width; nothing is ever set smaller than SMALL

# Okabe and Ito (2008): told apart with any common colour vision.
INK, GREY = "#000000", "#5A5A5A"
BLUE, VERMILLION, ORANGE, SKY = "#0072B2", "#D55E00", "#E69F00", "#56B4E9"
GREEN, PURPLE = "#00795C", "#A4558A"  # a little darker than theirs, so that small text is readable
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)

RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so a figure is the same on every machine
    "font.size": SMALL,
    "axes.titlesize": MEDIUM,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "axes.labelpad": 2.5,
    "lines.linewidth": 1.0,
    "lines.solid_capstyle": "round",
    "text.usetex": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: searchable, editable
    "svg.hashsalt": "onearm",
}


def rc() -> AbstractContextManager[None]:
    """Context in which figures are made and written; nothing global changes.  `with rc(): ...`"""
    return mpl.rc_context(RC)


def new_figure(width_cm: float, height_cm: float) -> Figure:
    """An empty figure with an Agg canvas (text can be measured), without pyplot; width and height in cm."""
    figure = Figure(figsize=(width_cm * CM, height_cm * CM), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, *paths: Path | str) -> None:
    """Write a figure as PNG (300 dpi) or SVG, by suffix; the same figure gives the same bytes.

    Errors: Refusal for another suffix.
    """
    metadata = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": "onearm"}}
    for path in map(Path, paths):
        if path.suffix not in metadata:
            raise Refusal(f"figure path {path} ends in {path.suffix!r}; use .png or .svg")
        with rc():
            figure.savefig(path, dpi=DPI, metadata=metadata[path.suffix])
