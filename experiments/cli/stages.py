"""What the commands of a run's stages share: probe, forecast, train and overlay take the same options."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from experiments.cli.command import Command, Given
from experiments.cli.console import errors, output, say, show
from experiments.cli.options import ASKED, OUT, TRAINED
from experiments.cli.plan import begin_of, plan_of
from experiments.cli.progress import progress
from experiments.words import text_of
from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.run.run import Run
    from experiments.specs import RunSpec

SIMULATES, COMPARES = ("forecast", "overlay"), ("overlay",)
COLUMNS = (
    "p0", "time_to_double_forecast", "time_to_double_observed", "time_to_half_forecast", "time_to_half_observed",
    "coverage_50", "coverage_90", "crps_kernel", "crps_sequence_kernel", "crps_tabular", "crps_constant",
    "crps_logistic", "residual_mean", "residual_variance", "residual_z",
)  # fmt: skip
"""What the table of several runs shows."""


def stage(name: str, text: str) -> Command:
    """The command of a stage; all take the same arguments, so that a forecast becomes an overlay by its name."""
    options = (*ASKED, *TRAINED, replace(OUT, default=Path(f"runs/{name}")))

    def act(given: Given) -> None:
        from experiments.cli.given_spec import specs_of

        specs = specs_of(given, options)
        if name in SIMULATES:
            from experiments.folder.compile_cache import keep_compiled

            keep_compiled()
        if given.queries is None or given.together:
            show(name, _numbers(name, specs[0], given.out, given), given.as_json)
        else:
            _each(name, specs, given)

    return Command(name, act, options, text, panel="Language models", needs="llm")


def _numbers(name: str, spec: RunSpec, out: Path, given: Given, model: Any = None) -> dict[str, Any]:
    """The numbers of one run's stage, which is found in its folder or made."""
    from experiments.run.run import Run

    with progress(given.as_json, begin_of(name, spec), plan_of(spec)) as told:
        run = Run(spec, out, told, model, micro_batch=given.micro_batch, recompute=given.recompute)
        return _act(name)(run)


def _act(name: str) -> Callable[[Run], dict[str, Any]]:
    """What a stage does; a probe loads no simulator."""
    from experiments.compare import numbers

    if name == "overlay":
        from experiments.compare.overlay import overlay_numbers

        return overlay_numbers
    return {
        "probe": numbers.probe_numbers, "forecast": numbers.forecast_numbers, "train": numbers.train_numbers
    }[name]  # fmt: skip


def _each(name: str, specs: Sequence[RunSpec], given: Given) -> None:
    """Each query in a folder of its own; one that is refused is reported and the others go on."""
    from experiments.compare.numbers import pooled
    from experiments.folder.store import write_json
    from llm_bridge.models.language_model import load_model

    with progress(given.as_json, f"{given.model}: loading the model"):
        model = load_model(given.model, device=given.device, dtype=given.dtype, source=given.source)
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for i, spec in enumerate(specs):
        query = spec.queries[0].prompt
        folder = given.out / f"{i:02d}-{_slug(query)}"
        errors.print(f"{i + 1}/{len(specs)}  {query}", soft_wrap=True)
        try:
            rows.append({"folder": folder.name, **_numbers(name, spec, folder, given, model)})
        except Refusal as error:
            rows.append({"folder": folder.name, "query": query, "error": str(error)})
            say("error", error, "red")
        summary = {"command": name, "queries": rows}
        if name in COMPARES:  # Do the forecasts err together? Other stages compare nothing.
            summary["pooled"] = pooled(rows)
        given.out.mkdir(parents=True, exist_ok=True)  # No run has made it where all were refused.
        write_json(given.out / "summary.json", summary)
    if given.as_json:
        print(json.dumps(summary))
    else:
        _table(rows)
        if "pooled" in summary:
            show("pooled", summary["pooled"], as_json=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _slug(text: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)[:40].rstrip("-") or "query"


def _table(rows: Sequence[dict[str, Any]]) -> None:
    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    table = Table("query", *(key.replace("_", "\n") for key in keys), show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(row["folder"], *(text_of(row.get(key)) if "error" not in row else "-" for key in keys))
    output(None if sys.stdout.isatty() else 200).print(table)
