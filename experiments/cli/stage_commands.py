"""`onearm probe | forecast | train | overlay`: the stages of a run, of one query or of several."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from experiments.cli.console import Json, bars, errors, reporting, show, text_of
from experiments.cli.options import (
    AdapterBlocks,
    Answer,
    Coordinates,
    Device,
    DType,
    Eta,
    Full,
    MaxTokens,
    MicroBatch,
    Model,
    Optimiser,
    Out,
    Precision,
    ProbeRollouts,
    Prompt,
    Queries,
    Recompute,
    Relinearise,
    RelineariseNetworks,
    RelineariseRollouts,
    Replicas,
    Rollouts,
    Rounds,
    RuleName,
    Seed,
    Size,
    Sketch,
    Source,
    Split,
    Stop,
    VerifierName,
    asked_of,
    training_fields,
)
from theory.extras import require
from theory.refusal import Refusal

Act = Callable[[Any], dict[str, Any]]


class Stage(NamedTuple):
    """A stage of a `Run`, what it gives as numbers, and what its command says of itself."""

    name: str
    act: Act
    text: str


def _probe(run: Any) -> dict[str, Any]:
    run.probe()
    return json.loads((run.out / "probe.json").read_text())


def _forecast(run: Any) -> dict[str, Any]:
    from experiments.compare.overlay import foretell
    from experiments.folder.compile_cache import keep_compiled

    keep_compiled()
    return foretell(run)


def _train(run: Any) -> dict[str, Any]:
    observed = run.observe()
    tenth = max(1, run.spec.rounds // 10)
    return {
        "query": run.spec.query.prompt,
        "rounds": run.spec.rounds,
        "replicas": run.spec.replicas,
        "success_first_tenth": float(observed.outcomes[:, :tenth].mean()),
        "success_last_tenth": float(observed.outcomes[:, -tenth:].mean()),
        "unparsable": observed.unparsable,
        "seconds_train": observed.seconds,
        "tokens_train": observed.token_count,
    }


def _overlay(run: Any) -> dict[str, Any]:
    from experiments.compare.overlay import overlay
    from experiments.folder.compile_cache import keep_compiled

    keep_compiled()
    return overlay(run).numbers


STAGES = (
    Stage("probe", _probe, "Measure the bandit on the base model: p0, response tree, kernel."),
    Stage(
        "forecast",
        _forecast,
        "Forecast the learning curve from the base model alone: no training, nothing fitted.",
    ),
    Stage(
        "train",
        _train,
        "Run the real reinforcement fine-tuning: S replicas of the model beside one another.",
    ),
    Stage(
        "overlay",
        _overlay,
        "Forecast, train, and overlay the two: the picture, and numbers for how well they agree.",
    ),
)


def command_of(stage: Stage) -> Callable[..., None]:
    """Its command. They take the same arguments, so that a forecast becomes an overlay by its name."""

    def command(
        query: Prompt = None,
        answer: Answer = None,
        verifier: VerifierName = None,
        stop: Stop = None,
        queries: Queries = None,
        size: Size = None,
        split: Split = None,
        model: Model = "smollm2-135m",
        rule: RuleName = "minimalist",
        rollouts: Rollouts = None,
        eta: Eta = 0.15,
        rounds: Rounds = 80,
        replicas: Replicas = 32,
        max_tokens: MaxTokens = 10,
        seed: Seed = 0,
        probe_rollouts: ProbeRollouts = 2048,
        precision: Precision = None,
        device: Device = "cpu",
        dtype: DType = "float32",
        source: Source = "auto",
        adapter_blocks: AdapterBlocks = None,
        full: Full = False,
        optimiser: Optimiser = None,
        coordinates: Coordinates = None,
        sketch: Sketch = None,
        relinearise: Relinearise = None,
        relinearise_networks: RelineariseNetworks = None,
        relinearise_rollouts: RelineariseRollouts = None,
        micro_batch: MicroBatch = 16,
        recompute: Recompute = False,
        out: Out = Path(f"runs/{stage.name}"),
        as_json: Json = False,
    ) -> None:
        given = locals()
        with reporting(as_json):
            require("llm")
            from experiments.specs.run_spec import RunSpec
            from llm_bridge.models.language_model import load_model

            fields = training_fields(given)
            asked = asked_of(query, answer, verifier, stop, queries, seed, size, split)
            specs = [RunSpec(query=one, **fields) for one in asked]
            memory = {"micro_batch": micro_batch, "recompute": recompute}
            if queries is None:
                with bars(as_json) as progress:
                    result = _one(stage.act, specs[0], out, progress, **memory)
                show(stage.name, result, as_json)
                return
            shared = load_model(model, device=device, dtype=dtype, source=source)  # pyright: ignore[reportArgumentType]
            _many(stage, specs, out, shared, as_json, memory)

    return command


def _one(
    act: Act,
    spec: Any,
    out: Path,
    progress: Callable[[str, int, int], None],
    model: Any = None,
    **memory: Any,
) -> dict[str, Any]:
    from experiments.run.stages import Run

    return act(Run(spec, out, progress, model, **memory))


def _many(
    stage: Stage,
    specs: list[Any],
    out: Path,
    model: Any,
    as_json: bool,
    memory: dict[str, Any],
) -> None:
    """Each query in a folder of its own; one that fails is reported and the others go on."""
    from experiments.compare.overlay import pooled
    from experiments.folder.store import write_json

    rows: list[dict[str, Any]] = []
    compared = stage.name == "overlay"
    summary: dict[str, Any] = {}
    for i, spec in enumerate(specs):
        folder = out / f"{i:02d}-{_slug(spec.query.prompt)}"
        errors.print(f"{i + 1}/{len(specs)}  {spec.query.prompt}", highlight=False)
        try:
            with bars(as_json) as progress:
                rows.append(
                    {"folder": folder.name, **_one(stage.act, spec, folder, progress, model, **memory)}
                )
        except Refusal as error:
            rows.append({"folder": folder.name, "query": spec.query.prompt, "error": str(error)})
            errors.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        # "pooled": do the forecasts err together? Of overlays only; other stages compare nothing.
        summary = {"command": stage.name, "queries": rows} | ({"pooled": pooled(rows)} if compared else {})
        write_json(out / "summary.json", summary)
    if as_json:
        print(json.dumps(summary))
    else:
        _table(rows)
        if compared:
            show("pooled", summary["pooled"], as_json=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _slug(text: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)[:40].rstrip("-") or "query"


def _table(rows: list[dict[str, Any]]) -> None:
    wanted = [
        "p0", "time_to_double_forecast", "time_to_double_observed", "time_to_half_forecast", "time_to_half_observed",
        "coverage_50", "coverage_90", "crps_kernel", "crps_sequence_kernel", "crps_tabular", "crps_constant",
        "crps_logistic", "residual_mean", "residual_variance", "residual_z",
    ]  # fmt: skip
    keys = [key for key in wanted if any(key in row for row in rows)]
    table = Table("query", *(key.replace("_", "\n") for key in keys), show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(row["folder"], *(text_of(row.get(key)) if "error" not in row else "-" for key in keys))
    Console(width=200 if not sys.stdout.isatty() else None).print(table)
