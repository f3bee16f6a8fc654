"""`onearm explain`: why forecast and run differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from experiments.cli.console import Json, bars, reporting, show
from theory.extras import require
from theory.refusal import Refusal


def explain(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished overlays.")],
    rollouts: Annotated[int, typer.Option(help="Fresh rollouts per replica and look.")] = 64,
    replicas: Annotated[int | None, typer.Option(help="Look at the first so many replicas only.")] = None,
    at: Annotated[
        list[int] | None,
        typer.Option(help="Updates after which to look; default half and last. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why forecast and run differ: drift of the network, truncation of the probe, or chance.

    Trains the network, its linearisation and the tree kernel on the run's own draws; minutes per folder.

    Example: onearm explain runs/overlay --replicas 12
    """
    with reporting(as_json):
        require("llm")
        from experiments.compare.explain import explain as find
        from experiments.compare.explain import report
        from experiments.compare.numbers import pooled
        from experiments.folder.compile_cache import keep_compiled
        from experiments.run.run import Run
        from experiments.specs import RunSpec

        keep_compiled()
        results: list[dict[str, Any]] = []
        for folder in folders:
            if not (folder / "spec.toml").exists():
                raise Refusal(f"{folder} is no run folder; make one with: onearm overlay --out {folder}")
            with bars(as_json) as progress:
                run = Run(RunSpec.read(folder / "spec.toml"), folder, progress)
                results.append(find(run, at=at or None, rollouts=rollouts, replicas=replicas))
            if not as_json:
                Console(width=max(100, Console().width)).print(report(results[-1:]))
        show("pooled", {"runs": results, **pooled(results)} if as_json else pooled(results), as_json)
