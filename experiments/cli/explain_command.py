"""`onearm explain`: why forecast and run differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.cli.command import Command, Given, Option
from experiments.cli.console import output, show
from experiments.cli.options import RUN
from experiments.cli.progress import progress
from theory.refusal import Refusal

OPTIONS = (
    Option(
        "folders", list[Path], "Folders of finished runs of onearm overlay.", ..., positional=True
    ),
    Option("rollouts", int, "Number of fresh rollouts per replica at each look.", 64, panel=RUN),
    Option("replicas", int | None, "Number of replicas to look at, from the first on.", panel=RUN, shown="all"),
    Option(
        "at", list[int] | None, "Round after which to look. May be repeated.", panel=RUN,
        shown="half of them, and the last",
    ),
)  # fmt: skip


def explain(given: Given) -> None:
    """Say why forecast and run differ: drift, truncation, or chance.

    Drift: the network changes as it is trained, and no longer moves as the base model would. Truncation: what the probe
    leaves out, and its noise. Chance: the draws of this run. The network, its linearisation and the forecast's tree are
    trained again on the run's own draws, which takes minutes for each folder.

    Example: onearm explain runs/overlay --replicas 12
    """
    from experiments.compare.explain import explain as find
    from experiments.compare.explain import report
    from experiments.compare.numbers import pooled
    from experiments.folder.compile_cache import keep_compiled
    from experiments.run.run import Run
    from experiments.specs import RunSpec

    keep_compiled()
    results: list[dict[str, Any]] = []
    for folder in given.folders:
        if not (folder / "spec.toml").exists():
            raise Refusal(f"{folder} is no run folder; make one with: onearm overlay --out {folder}")
        with progress(given.as_json, f"explain: {folder}") as told:
            run = Run(RunSpec.read(folder / "spec.toml"), folder, told)
            found = find(run, at=given.at or None, rollouts=given.rollouts, replicas=given.replicas)
        results.append(found)
        if not given.as_json:
            output(100).print(report([found]))
    show("pooled", {"runs": results, **pooled(results)} if given.as_json else pooled(results), given.as_json)


COMMAND = Command("explain", explain, OPTIONS, panel="Language models", needs="llm")
