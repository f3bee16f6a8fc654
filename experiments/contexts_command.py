"""`onearm contexts`: several queries in one run, others held out; forecast, trained, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.console import Json, bars, reporting, show

Flag = typer.Option


def contexts(
    queries: Annotated[
        str, Flag(help="What is trained on: a JSONL or Parquet file, builtin, gsm8k:FILE, math:FILE, ...")
    ],
    held_out: Annotated[
        str | None, Flag(help="What is never trained on, and looked at beside: as --queries.")
    ] = None,
    batch: Annotated[int | None, Flag(help="Queries per round. Default: all of them.")] = None,
    every: Annotated[int, Flag(help="Rounds from one look at the held-out queries to the next.")] = 5,
    looks: Annotated[int, Flag(help="Rollouts of each held-out query and replica at a look.")] = 4,
    model: Annotated[str, Flag(help="Registry name, hub name or local folder.")] = "smollm2-135m",
    rule: Annotated[
        str, Flag(help="Update rule: minimalist, rloo, group-mean, trl-grpo, ...")
    ] = "minimalist",
    rollouts: Annotated[
        int | None, Flag(help="Rollouts per query and round. Default: the rule's own.")
    ] = None,
    eta: Annotated[float, Flag(help="Step size of the optimiser.")] = 0.3,
    rounds: Annotated[int, Flag(help="Updates per replica.")] = 40,
    replicas: Annotated[int, Flag(help="Independent runs, trained beside one another.")] = 16,
    max_tokens: Annotated[int, Flag(help="Longest response, in tokens.")] = 10,
    seed: Annotated[int, Flag(help="Every random draw follows from it.")] = 0,
    probe_rollouts: Annotated[int, Flag(help="Rollouts of the base model that measure each query.")] = 512,
    train: Annotated[bool, Flag(help="Train too; --no-train makes the forecast alone.")] = True,
    device: Annotated[str, Flag(help="cpu, cuda, mps or auto.")] = "cpu",
    dtype: Annotated[str, Flag(help="float32, float64 or bfloat16.")] = "float32",
    out: Annotated[Path, Flag(help="Run folder. The same call again goes on where it stopped.")] = Path(
        "runs/contexts"
    ),
    as_json: Json = False,
) -> None:
    """Forecast and train several queries at once: what one teaches another, and queries never trained on.

    Example: onearm contexts --queries train.jsonl --held-out test.jsonl --batch 4
    """
    with reporting(as_json):
        from experiments.compile_cache import keep_compiled
        from experiments.contexts import ContextsRun, ContextsSpec, HeldOut
        from experiments.contexts_overlay import overlay
        from experiments.specs import ModelSpec, ProbeSpec
        from llm_bridge.queries import parse_source
        from theory.rules.dialects import preset

        keep_compiled()
        asked = tuple(parse_source(queries, seed=seed))
        apart = None
        if held_out is not None:
            apart = HeldOut(queries=tuple(parse_source(held_out, seed=seed)), every=every, rollouts=looks)
        spec = ContextsSpec(
            queries=asked,
            batch=len(asked) if batch is None else batch,
            held_out=apart,
            model=ModelSpec(name=model, device=device, dtype=dtype),  # pyright: ignore[reportArgumentType]
            rule=preset(rule, eta=eta, rollouts=rollouts),
            rounds=rounds,
            replicas=replicas,
            max_tokens=max_tokens,
            seed=seed,
            probe=ProbeSpec(rollouts=probe_rollouts),
        )
        with bars(as_json) as progress:
            run = ContextsRun(spec, out, progress)
            result: dict[str, Any] = overlay(run) if train else _foretold(run)
        show("contexts", result, as_json)


def _foretold(run: Any) -> dict[str, Any]:
    """The forecast alone: mean success of each set over the rounds."""
    made, joint = run.forecast(), run.probe()
    return {
        "p0": [probe.p0 for probe in joint.probes],
        **{f"{name}_{kernel}": x.mean(axis=0).tolist() for (kernel, name), x in made.members.items()},
        "seconds_simulate": made.seconds,
    }
