"""`onearm layers run | report`: both papers' questions, layer by layer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from experiments.cli.console import Json, errors, reporting, show, telling
from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.studies.layers.run import AnyWorld, Cell

app = typer.Typer(
    no_args_is_help=True,
    help="Both papers' questions, layer by layer, in the simulator and on language models.",
    epilog="onearm layers run --quick && onearm layers report --quick",
)
Quick = Annotated[
    bool,
    typer.Option(
        "--quick/--full", help="Few variants, seeds and replicas; or all of them, which takes a night."
    ),
]
Out = Annotated[Path, typer.Option(help="The store. The same call again goes on where it stopped.")]
Number = Annotated[int | None, typer.Option("--layer", help="Only the layer of this number.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--world", help="Only this world: simulator, or a model's name in worlds.toml. May be repeated."
    ),
]


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

        def tell(done: int, total: int, cell: Cell, what: str) -> None:
            errors.print(f"{done + 1}/{total}  {cell.world}  {cell.variant.key}: {what}", highlight=False)

        compared = (key for finding in asked for compare in finding.compare for key, _ in compare.keys)
        run_all(most_wanted_first(todo, list(dict.fromkeys(compared))), worlds, tell)
        return sum(cell.refused is not None for cell in todo)


@app.command()
def run(
    quick: Quick = True,
    layer: Number = None,
    world: Where = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Worlds that run at once, each with its share of the cores.")
    ] = 2,
    out: Out = Path("runs/layers"),
    as_json: Json = False,
) -> None:
    """Predict every variant in every world, and only then run it; killed at any point, go on from there."""
    with reporting(as_json):
        from experiments.studies.layers.findings import FILE, read_findings
        from experiments.studies.layers.jobs import side_by_side
        from experiments.studies.layers.run import expect

        layers, worlds, scale, todo = _all(quick, out, layer, world)
        read_findings(
            variants=[v.key for row in layers for v in row.variants]
        )  # with an error, before it is noted
        expect(out / scale, FILE)
        one = partial(_run_world, quick=quick, out=out, layer=layer)
        skipped = side_by_side(one, list(worlds), jobs)
        show("layers", {"ran": len(todo) - skipped, "refused": skipped, "out": str(out / scale)}, as_json)


@app.command()
def report(
    quick: Quick = True,
    out: Out = Path("runs/layers"),
    tables: Annotated[
        Path | None, typer.Option(help="Write the tables as Markdown to this file too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge the findings by what has run, and write one page with all of it: OUT/SCALE/report.html and report.md."""
    with reporting(as_json):
        from experiments.folder.compile_cache import keep_compiled
        from experiments.studies.layers.report import PAGE, TABLES
        from experiments.studies.layers.report import report as make

        keep_compiled()
        layers, worlds, scale, todo = _all(quick, out, None, None)
        verdicts = make(out / scale, layers, worlds, scale, todo)
        if tables is not None:
            tables.write_text((out / scale / TABLES).read_text())
        show("findings", {**verdicts, "page": str(out / scale / PAGE)}, as_json)
