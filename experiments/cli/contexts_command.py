"""`onearm contexts`: several queries in one run, others held out; forecast, trained, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.console import Json, bars, reporting, show
from experiments.cli.options import (
    AdapterBlocks,
    Device,
    DType,
    Eta,
    MaxTokens,
    MicroBatch,
    Model,
    Out,
    Precision,
    ProbeRollouts,
    QuerySet,
    Recompute,
    Replicas,
    Rollouts,
    Rounds,
    RuleName,
    Seed,
    Size,
    Sketch,
    Source,
    Split,
    VerifierName,
    training_fields,
)  # fmt: skip
from theory.extras import require
from theory.refusal import Refusal

Flag = typer.Option


def contexts(
    queries: QuerySet,
    size: Size = None,
    split: Split = None,
    verifier: VerifierName = None,
    held_out: Annotated[
        str | None,
        Flag(help="What is never trained on, and looked at beside: as --queries, or how many of its last."),
    ] = None,
    batch: Annotated[int | None, Flag(help="Queries per round. Default: all of them.")] = None,
    every: Annotated[int, Flag(help="Rounds from one look at the held-out queries to the next.")] = 5,
    looks: Annotated[int, Flag(help="Rollouts of each held-out query and replica at a look.")] = 4,
    model: Model = "smollm2-135m",
    rule: RuleName = "minimalist",
    rollouts: Rollouts = None,
    eta: Eta = 0.3,
    rounds: Rounds = 40,
    replicas: Replicas = 16,
    max_tokens: MaxTokens = 10,
    seed: Seed = 0,
    probe_rollouts: ProbeRollouts = 512,
    precision: Precision = None,
    train: Annotated[bool, Flag(help="Train too; --no-train makes the forecast alone.")] = True,
    device: Device = "cpu",
    dtype: DType = "float32",
    source: Source = "auto",
    adapter_blocks: AdapterBlocks = None,
    sketch: Sketch = None,
    micro_batch: MicroBatch = 16,
    recompute: Recompute = False,
    out: Out = Path("runs/contexts"),
    as_json: Json = False,
) -> None:
    """Forecast and train several queries at once: what one teaches another, and queries never trained on.

    Example: onearm contexts --queries builtin --held-out 5 --batch 4
    """
    given = locals()
    with reporting(as_json):
        require("llm")
        from experiments.compare.contexts_overlay import overlay
        from experiments.folder.compile_cache import keep_compiled
        from experiments.run.contexts import ContextsRun
        from experiments.specs.contexts_spec import ContextsSpec, HeldOut
        from llm_bridge.queries.sources import parse_source

        keep_compiled()
        fields = training_fields(given)
        asked = parse_source(queries, seed=seed, size=size, split=split, verifier=verifier)
        others: list[Any] = []
        if held_out is not None and held_out.isdecimal():
            asked, others = _parted(asked, int(held_out))
        elif held_out is not None:
            others = parse_source(held_out, seed=seed, verifier=verifier)
        apart = HeldOut(queries=tuple(others), every=every, rollouts=looks) if others else None
        spec = ContextsSpec(
            queries=tuple(asked), batch=len(asked) if batch is None else batch, held_out=apart, **fields
        )
        with bars(as_json) as progress:
            run = ContextsRun(spec, out, progress, micro_batch=micro_batch, recompute=recompute)
            result: dict[str, Any] = overlay(run) if train else _foretold(run)
        show("contexts", result, as_json)


def _parted(queries: list[Any], last: int) -> tuple[list[Any], list[Any]]:
    """The queries without the last so many, and these."""
    if not 1 <= last < len(queries):
        raise Refusal(f"--held-out {last} of {len(queries)} queries; give 1 to {len(queries) - 1}")
    return queries[:-last], queries[-last:]


def _foretold(run: Any) -> dict[str, Any]:
    """The forecast alone: mean success of each set over the rounds."""
    made, joint = run.forecast(), run.probe()
    return {
        "p0": [probe.p0 for probe in joint.probes],
        **{f"{name}_{kernel}": x.mean(axis=0).tolist() for (kernel, name), x in made.members.items()},
        "seconds_simulate": made.seconds,
    }
