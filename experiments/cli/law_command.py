"""`onearm law`: the table of laws, and any of them printed or drawn; a subcommand per law, made when asked for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from experiments.cli.console import Json, reporting, show
from theory.refusal import Refusal

if TYPE_CHECKING:
    from theory.laws import Law

ROWS = 12
"""Points of a curve that are printed; --json gives all."""


class Laws(TyperGroup):
    """The laws of `theory.laws.LAWS` as commands; the table is imported only when one is looked up."""

    def list_commands(self, ctx: Any) -> list[str]:
        from theory.laws import LAWS

        return list(LAWS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from theory.laws import LAWS

        return _command(LAWS[cmd_name]) if cmd_name in LAWS else None


app = typer.Typer(
    cls=Laws,
    no_args_is_help=True,
    help="Print or draw a law of the dynamics: onearm law birth-chain --p0 0.05",
)


@app.callback(invoke_without_command=True)
def table(
    as_list: Annotated[
        bool,
        typer.Option("--list", help="The table: law, source, prediction, check, measured agreement, status."),
    ] = False,
    as_json: Json = False,
) -> None:
    if not as_list:
        return
    from rich.console import Console
    from rich.table import Table

    from experiments.studies.law_agreement import read
    from theory.laws import LAWS

    measured = read()
    rows = [
        {k: getattr(row, k) for k in ("name", "source", "predicts", "check")}
        | {"agreement": measured.get(row.name, {}).get("agreement", "not measured"), "status": row.status}
        for row in LAWS.values()
    ]
    if as_json:
        show("laws", {"laws": rows}, as_json)
        raise typer.Exit
    printed = Table(
        *("law", "source", "predicts", "check", "measured agreement", "status"),
        show_edge=False,
        pad_edge=False,
    )
    for row in rows:
        printed.add_row(*row.values())
    Console().print(printed)
    raise typer.Exit


def _command(row: Law) -> Any:
    """A command whose options are the law's parameters."""

    def command(**given: Any) -> None:
        out, as_json, simulated, seeds = (given.pop(name) for name in ("out", "as_json", "simulate", "seeds"))
        given = {name: value for name, value in given.items() if value is not None}
        with reporting(as_json):
            if seeds is not None and not simulated:
                raise Refusal(
                    f"--seeds {seeds} changes nothing without --simulate; add it, or leave --seeds out"
                )
            if simulated:
                _simulate(row, given, seeds, out, as_json)
                return
            series = row(**given)
            if out is not None:
                _draw(row, series, out)
            if as_json:
                numbers = {name: values.tolist() for name, values in series.items()}
                show(row.name, {"law": row.name, **row.parameters, **given, **numbers}, as_json)
                return
            _print(row, series)

    options: dict[str, tuple[Any, Any]] = {
        # None stands for "not given": a simulation has defaults of its own.
        name: (Annotated[type(default) | None, typer.Option(show_default=str(default))], None)
        for name, default in row.parameters.items()
    }
    options["simulate"] = (
        Annotated[bool, typer.Option("--simulate", help="Draw what holds the law to account beside it, and measure "
                                     "how well they agree.")],
        False,
    )  # fmt: skip
    options["seeds"] = (Annotated[int | None, typer.Option(help="Seeds of --simulate.")], None)
    options["out"] = (
        Annotated[Path | None, typer.Option(help="Folder for the picture and the numbers.")],
        None,
    )
    options["as_json"] = (Json, False)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    single = typer.Typer(add_completion=False)
    single.command(row.name, help=f"{row.predicts}.\n\nSource: {row.source}. Checked against: {row.check}.")(
        command
    )
    return typer.main.get_command(single)


def _simulate(row: Law, given: dict[str, Any], seeds: int | None, out: Path | None, as_json: bool) -> None:
    """The law beside its trial: printed side by side, and drawn on one picture."""
    from rich.console import Console
    from rich.table import Table

    from experiments.folder.store import replacing, write_json
    from experiments.studies.law_trials import TRIALS
    from experiments.studies.law_trials.picture import draw_held
    from figures.style import save_figure

    held = TRIALS[row.name](seeds, **given)
    numbers = held.numbers()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{row.name}-simulated.json", numbers)
        figure = draw_held(held)
        for suffix in ("png", "svg"):
            with replacing(out / f"{row.name}-simulated.{suffix}") as temporary:
                save_figure(figure, temporary)
    if as_json:
        show(row.name, numbers, as_json)
        return
    along = next(iter(held.series))
    title = f"{row.predicts}; held against: {held.trial.against}"
    printed = Table("series", along, "law", "seen", "error", title=title, show_edge=False, pad_edge=False)
    x = held.series[along]
    for name, s in held.seen.items():
        picked = sorted({*range(0, len(s.at), max(1, len(s.at) // 4)), len(s.at) - 1})
        for i in picked:
            law = held.series[name][s.at[i]]
            bound = "" if s.sense == "=" else f" {s.sense}"
            printed.add_row(
                name + bound, f"{x[s.at[i]]:.4g}", f"{law:.5g}", f"{s.mean[i]:.5g}", f"{s.error[i]:.2g}"
            )
    Console().print(printed)
    fixed = ", ".join(f"{name} {value:.4g}" for name, value in held.parameters.items())
    seeded = f"{held.seeds:,} seeds" if held.trial.seeds else "exact"
    Console().print(
        f"with {fixed or 'no parameters'}; {seeded}, {held.points} points: {held}", highlight=False
    )


def _print(row: Law, series: dict[str, Any]) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    printed = Table(*series, title=row.predicts, show_edge=False, pad_edge=False)
    length = len(next(iter(series.values())))
    for i in np.unique(np.linspace(0, length - 1, min(length, ROWS)).astype(int)):
        printed.add_row(*(f"{values[i]:.5g}" for values in series.values()))
    Console().print(printed)


def _draw(row: Law, series: dict[str, Any], out: Path) -> None:
    import numpy as np

    from experiments.folder.store import replacing, write_json
    from figures.lines import Line, draw_lines
    from figures.style import save_figure

    out.mkdir(parents=True, exist_ok=True)
    finite = {k: [float(x) if np.isfinite(x) else None for x in v] for k, v in series.items()}
    write_json(out / f"{row.name}.json", finite)
    (along, x), *curves = series.items()
    lines = [Line(name, x, y) for name, y in curves if np.isfinite(y).any()][:6]
    figure = draw_lines(lines, row.predicts, f"law {row.name}", xlabel=along.replace("_", " "), ylabel="")
    for suffix in ("png", "svg"):
        with replacing(out / f"{row.name}.{suffix}") as temporary:
            save_figure(figure, temporary)
