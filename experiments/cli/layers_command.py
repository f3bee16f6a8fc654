"""`onearm layers run | report`: both papers' questions, layer by layer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.cli.command import Command, Given, Option, group
from experiments.cli.console import errors, show, telling
from experiments.cli.lines import lines
from experiments.cli.options import OUTPUT, RUN
from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.studies.layers.run import AnyWorld, Cell

QUICK = Option(
    "quick", bool, "Few variants, seeds and replicas; or all of them, which takes a night.", True, panel=RUN,
    flag="--quick/--full",
)  # fmt: skip
STORE = Option(
    "out", Path, "Folder of all runs. The same command again goes on where it stopped.", Path("runs/layers"),
    panel=OUTPUT,
)  # fmt: skip
LAYER = Option("layer", int | None, "Number of the only layer to run.", panel=RUN, shown="all")
WORLD = Option(
    "world", list[str] | None, "Where to run: simulator, or a model's name in worlds.toml. May be repeated.", panel=RUN,
    shown="all",
)  # fmt: skip
JOBS = Option(
    "jobs", int, "Number of worlds that run at once, each with its share of the cores.", 2, panel=RUN
)
TABLES = Option("tables", Path | None, "A Markdown file to write the tables to, too.", panel=OUTPUT)


def _all(
    quick: bool, out: Path, layer: int | None, world: list[str] | None
) -> tuple[Any, dict[str, AnyWorld], Any, list[Cell]]:
    """The layers, the worlds chosen, the scale, and the cells they make."""
    from experiments.studies.layers.ladder import read_ladder
    from experiments.studies.layers.run import cells
    from experiments.studies.layers.worlds import read_worlds

    layers, worlds = read_ladder(), read_worlds()
    if layer is not None and not 0 <= layer < len(layers):
        raise Refusal(f"--layer {layer}: the layers are 0 to {len(layers) - 1}")
    for name in world or ():
        if name not in worlds:
            raise Refusal(f"--world {name}: choose {', '.join(worlds)}")
    chosen = {name: made for name, made in worlds.items() if not world or name in world}
    scale: Literal["quick", "full"] = "quick" if quick else "full"
    return layers, chosen, scale, list(cells(layers, chosen, scale, out / scale, layer))


def _run_world(name: str, quick: bool, out: Path, layer: int | None) -> int:
    """Predict and run one world's cells; returns how many it refuses."""
    with telling():
        from experiments.folder.compile_cache import keep_compiled
        from experiments.studies.layers.findings import read_findings
        from experiments.studies.layers.run import most_wanted_first
        from experiments.studies.layers.run import run as run_all

        keep_compiled()
        layers, worlds, _, todo = _all(quick, out, layer, [name])
        asked = read_findings(variants=[v.key for row in layers for v in row.variants])

        compared = (key for finding in asked for compare in finding.compare for key, _ in compare.keys)
        wanted = most_wanted_first(todo, list(dict.fromkeys(compared)))
        # Worlds run side by side, and bars of theirs would be drawn over one another: lines on a terminal too.
        with lines(f"{name}: {len(todo)} runs", {name: f"{len(todo)} runs"}) as told:

            def tell(done: int, total: int, cell: Cell, what: str) -> None:
                errors.print(f"{done + 1}/{total}  {cell.world}  {cell.variant.key}: {what}", soft_wrap=True)
                told(cell.world, done, total)

            run_all(wanted, worlds, tell)
        return sum(cell.refused is not None for cell in todo)


def run(given: Given) -> None:
    """Predict every variant in every world, and only then run it; killed at any point, it goes on from there."""
    from experiments.studies.layers.findings import FILE, read_findings
    from experiments.studies.layers.jobs import side_by_side
    from experiments.studies.layers.run import expect

    if given.jobs < 1:
        raise Refusal(f"--jobs {given.jobs}: give at least 1")
    layers, worlds, scale, todo = _all(given.quick, given.out, given.layer, given.world)
    # With an error, before it is noted.
    read_findings(variants=[v.key for row in layers for v in row.variants])
    expect(given.out / scale, FILE)
    one = partial(_run_world, quick=given.quick, out=given.out, layer=given.layer)
    skipped = side_by_side(one, list(worlds), given.jobs)
    ran = {"ran": len(todo) - skipped, "refused": skipped, "out": str(given.out / scale)}
    show("layers", ran, given.as_json)


def report(given: Given) -> None:
    """Judge the findings by what has run, and write one page with all of it: OUT/SCALE/report.html and report.md."""
    from experiments.folder.compile_cache import keep_compiled
    from experiments.studies.layers.report import PAGE
    from experiments.studies.layers.report import TABLES as FILE
    from experiments.studies.layers.report import report as make

    keep_compiled()
    layers, worlds, scale, todo = _all(given.quick, given.out, None, None)
    verdicts = make(given.out / scale, layers, worlds, scale, todo)
    if given.tables is not None:
        given.tables.write_text((given.out / scale / FILE).read_text())
    show("findings", {**verdicts, "page": str(given.out / scale / PAGE)}, given.as_json)


app = group(
    "layers",
    "Both papers' questions, layer by layer, in the simulator and on language models.",
    Command("run", run, (QUICK, LAYER, WORLD, JOBS, STORE)),
    Command("report", report, (QUICK, TABLES, STORE)),
    epilog="onearm layers run --quick && onearm layers report --quick",
)
