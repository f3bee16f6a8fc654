"""The report of a run of the layers: one self-contained HTML page, and the same tables as Markdown."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from experiments.folder.store import replacing
from experiments.studies.layers.controls import controls
from experiments.studies.layers.findings import FILE, judge, read_findings
from experiments.studies.layers.ladder import Layer
from experiments.studies.layers.measures import success
from experiments.studies.layers.phases import phases
from experiments.studies.layers.pictures import budget, diagrams, ladder
from experiments.studies.layers.record import Result
from experiments.studies.layers.run import EXPECTATIONS, AnyWorld, Cell, Scale, mark_of_table
from experiments.studies.layers.simulator import SimulatorWorld
from figures.style import DPI, rc, save_figure
from theory.refusal import Refusal

PACKAGES = ("onearm", "numpy", "scipy", "jax", "torch", "transformers")
PAGE, TABLES = "report.html", "report.md"
EARLY = (
    "Where a star follows, the forecast number lags behind what is measured: success is the last point of a smoothed\n"
    "curve, held-out success that at three quarters of the run."
)
RECORDS = (
    EXPECTATIONS,
    "phases.json",
    "*/*/prediction.json",
    "*/*/spec.toml",
    "*/*/result.parquet",
    "*/*/end.parquet",
)
"""What of a store is enough for the report, and for a second run to leave its cells as they are."""


def report(
    out: Path, layers: Sequence[Layer], worlds: dict[str, AnyWorld], scale: Scale, todo: Sequence[Cell]
) -> dict[str, Any]:
    """Write OUT/report.html, OUT/report.md and the pictures as PNG; returns the verdicts by finding.

    Errors: Refusal where nothing has run yet.
    """
    if not any(cell.spec is not None and cell.result is not None for cell in todo):
        raise Refusal(
            f"{out} holds no result of this scale; run first: onearm layers run --{scale} --out {out}"
        )
    keys = [v.key for layer in layers for v in layer.variants]
    rows = judge(read_findings(FILE, keys), todo)
    there: dict[str, dict[str, Cell]] = {name: {} for name in worlds}
    for cell in todo:
        there[cell.world][cell.variant.key] = cell
    figures = _figures(out, layers, worlds, scale, there)
    for name, figure in figures.items():
        with replacing(out / f"{name}.png") as temporary:
            save_figure(figure, temporary)
    facts = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "scale": scale,
        "out": out.name,
        "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}},
        "rows": rows,
        "early": EARLY if any(s.ends_early for row in rows for s in row.seen) else "",
        "controls": controls(layers, there),
        "layers": layers,
        "cells": todo,
        "worlds": worlds,
        "directions": _directions(out, todo),
        "seeds": sorted({world.seed for world in worlds.values()}),
        "shares": _shares(todo),
        "seconds": sum(
            cell.result.seconds + (cell.result.end.seconds if cell.result.end else 0.0)
            for cell in todo
            if cell.spec is not None and cell.result is not None
        ),
        "pictures": {name: _embedded(figure) for name, figure in figures.items()},
    }
    made = Environment(
        loader=PackageLoader("experiments.studies.layers", "templates"), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"chance": _chance, "number": _number, "interval": _interval, "ended": _ended}
    for template, name in (("report.html.j2", PAGE), ("report.md.j2", TABLES)):
        made.autoescape = template.startswith("report.html")
        with replacing(out / name) as temporary:
            temporary.write_text(made.get_template(template).render(facts))
    return {row.finding.id: row.overall for row in rows}


def _figures(
    out: Path,
    layers: Sequence[Layer],
    worlds: dict[str, AnyWorld],
    scale: Scale,
    there: dict[str, dict[str, Cell]],
) -> dict[str, Figure]:
    ran = [name for name, cells in there.items() if any(c.spec and c.result for c in cells.values())]
    figures = {f"ladder-{name}": ladder(name, layers, there[name]) for name in ran}
    for name, world in worlds.items():
        if isinstance(world, SimulatorWorld) and name in ran:
            split = budget(there[name])
            figures |= {"fixed-budget": split} if split is not None else {}
            figures |= diagrams(phases(world, scale, out), world.step.sgd)
    return figures


def _embedded(figure: Figure) -> str:
    """A picture as a data URL: the page needs no other file."""
    buffer = io.BytesIO()
    with rc():
        figure.savefig(buffer, format="png", dpi=DPI // 2, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _directions(out: Path, todo: Sequence[Cell]) -> dict[str, Any]:
    """When this table of findings was noted, when the first run of it began, and whether in this order.

    Errors: Refusal where the store holds no note of the table that is judged by now.
    """
    path, mark = out / EXPECTATIONS, mark_of_table(FILE)
    tables = json.loads(path.read_text())["tables"] if path.exists() else []
    noted = [table["noted"] for table in tables if table["hash"] == mark]
    if not noted:
        raise Refusal(
            f"{path} does not hold the table of findings as it is now ({mark}); `onearm layers run` notes it"
        )
    first = min(cell.result.started for cell in todo if cell.spec is not None and cell.result is not None)
    return {"hash": mark, "noted": noted[0], "first": first, "before": noted[0] < first}


def _shares(todo: Sequence[Cell]) -> dict[str, str]:
    """World -> how many of its runs of this scale are there, of those that it does not refuse."""
    shares: dict[str, str] = {}
    for world in dict.fromkeys(cell.world for cell in todo):
        asked = [cell for cell in todo if cell.world == world and cell.refused is None]
        shares[world] = f"{sum(cell.result is not None for cell in asked)} of {len(asked)}"
    return shares


def _chance(p: float) -> str:
    return "< .0001" if p < 1e-4 else f"{p:.4f}"


def _number(value: float | None) -> str:
    """Three digits, without an exponent; a dash for nothing."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}".replace("-0.0000", "0.0000") if abs(value) < 0.01 else f"{value:.3f}"


def _ended(result: Result) -> float:
    """Mean success at the end."""
    return float(success(result).mean())


def _interval(seen: Any) -> str:
    return f"{_number(seen.mean)} [{_number(seen.low)}, {_number(seen.high)}]"
