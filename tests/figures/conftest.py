"""Made-up overlay data, and the question every figure has to answer: can its words be read?"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text

from figures.labels import renderer
from figures.overlay import OverlayData, Panel
from figures.style import rc


@pytest.fixture
def overlay_data():
    return _overlay_data


@pytest.fixture
def assert_readable():
    return _assert_readable


def _overlay_data(kind: str, **changes) -> OverlayData:
    t = np.linspace(0, 1, 100)
    p, sequence, tabular = {
        "slow": (0.056 + 0.39 * t**2, 0.056 + 0.68 * t**2, np.full(100, 0.056)),
        "fast": (0.95 - 0.45 * np.exp(-5 * t), 0.98 - 0.48 * np.exp(-6 * t), 0.5 + 0.02 * t),
        "flat": (0.02 + 0.002 * t, 0.02 + 0.004 * t, np.full(100, 0.02)),
        "one line": (np.full(100, 0.3),) * 3,
        "zero": (np.zeros(100),) * 3,
        "ceiling": (np.ones(100),) * 3,
    }[kind]
    deviation = np.sqrt(p * (1 - p) / 32)
    words = dict(title="What is 17 + 25? Reply with only the number.", model="SmolLM2-135M-Instruct")
    numbers = dict(
        p0=tabular[0],
        p0_low=0.85 * tabular[0],
        p0_high=min(1.0, 1.15 * tabular[0]),
        observed=np.clip(p + 0.5 * deviation * np.sin(np.arange(100) / 5), 0, 1),
        mean=p,
        quantiles=np.clip([p + z * deviation for z in (-1.6, -0.7, 0, 0.7, 1.6)], 0, 1),
        comparisons={"sequence_kernel": sequence, "tabular": tabular},
        replica_low=np.clip(p - 3 * deviation, 0, 1),
        replica_high=np.clip(p + 3 * deviation, 0, 1),
    )
    own = {name: changes.pop(name) for name in list(changes) if name not in words}
    panels = [Panel(**{**numbers, **own})]
    return OverlayData(**{**words, **changes}, replicas=32, eta=0.01, panels=panels)


@pytest.fixture
def two_sets():
    """Queries trained on, and queries held out that are looked at now and then."""
    (trained,) = _overlay_data("slow").panels
    few = np.arange(0, 100, 5)
    apart = {name: curve[few] for name, curve in trained.comparisons.items()} | {"apart": np.full(20, 0.06)}
    held_out = replace(
        trained,
        observed=trained.observed[few],
        mean=trained.mean[few],
        quantiles=trained.quantiles[:, few],
        comparisons=apart,
        rounds=few + 1,
        title="held out",
        replica_low=None,
        replica_high=None,
    )
    panels = [replace(trained, title="trained on"), held_out]
    return OverlayData("8 queries, 4 per round; 4 held out", "SmolLM2-135M-Instruct", 16, 0.4, panels)


def _assert_readable(figure) -> None:
    """All words at least 6.5 points, inside the figure, and no two on top of each other."""
    with rc():
        figure.canvas.draw()
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
        boxes = [(t, t.get_window_extent(renderer(figure))) for t in texts]
    assert all(text.get_fontsize() >= 6.5 for text in texts)
    page = figure.bbox
    # Tick labels beyond the axis limits are kept by matplotlib but not drawn.
    hidden = set()
    for axes in figure.axes:
        ticks = axes.get_xticklabels() + axes.get_yticklabels()
        limits = axes.get_window_extent().padded(1)
        hidden |= {id(t) for t in ticks if not limits.contains(*axes.transData.transform(_anchor(axes, t)))}
    boxes = [(t.get_text(), box) for t, box in boxes if id(t) not in hidden]
    for name, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1, f"{name!r} leaves the page sideways"
        assert page.y0 <= box.y0 and box.y1 <= page.y1, f"{name!r} leaves the page up or down"
    for (first, a), (second, b) in combinations(boxes, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(overlap) <= 0, f"{first!r} and {second!r} overlap by {overlap} pixels"


def _anchor(axes, tick_label):
    x, y = tick_label.get_position()
    on_x = tick_label in axes.get_xticklabels()
    return (x, axes.get_ylim()[0]) if on_x else (axes.get_xlim()[0], y)
