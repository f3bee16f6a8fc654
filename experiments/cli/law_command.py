"""`onearm law`: the table of laws, and any of them printed or drawn; a subcommand per law, made when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from experiments.cli.command import Command, Given, Option
from experiments.cli.console import output, show
from experiments.cli.options import OUTPUT
from theory.refusal import Refusal

if TYPE_CHECKING:
    from theory.laws import Law

ROWS = 12
"""Points of a curve that are printed; --json gives all."""
COLUMNS = ("law", "source", "predicts", "check", "measured agreement", "status")
PARAMETERS, TRIAL = "Parameters of the law", "Simulation"
COMMON = (
    Option(
        "simulate", bool, "Simulate what the law describes, and measure how well the two agree.", False, panel=TRIAL,
        flag="--simulate",
    ),
    Option("seeds", int | None, "Number of seeds of --simulate.", panel=TRIAL, shown="those of make agreement"),
    Option("out", Path | None, "Folder for the picture and the numbers.", panel=OUTPUT),
)  # fmt: skip


class Laws(TyperGroup):
    """The laws of `theory.laws.LAWS` as commands; the table is imported only when one is looked up."""

    def list_commands(self, ctx: Any) -> list[str]:
        from theory.laws import LAWS

        return list(LAWS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from theory.laws import LAWS

        if cmd_name not in LAWS:
            return None
        single = typer.Typer(add_completion=False)
        _command(LAWS[cmd_name]).add_to(single)
        return typer.main.get_command(single)


app = typer.Typer(
    cls=Laws,
    name="law",
    no_args_is_help=True,
    help="Print or draw what theory predicts: onearm law birth-chain --p0 0.05",
)


def table(given: Given) -> None:
    if not given.as_list:
        return
    from experiments.studies.law_agreement import read
    from theory.laws import LAWS

    measured = read()
    rows = [
        {name: getattr(row, name) for name in ("name", "source", "predicts", "check")}
        | {"agreement": measured.get(row.name, {}).get("agreement", "not measured"), "status": row.status}
        for row in LAWS.values()
    ]
    if given.as_json:
        show("laws", {"laws": rows}, given.as_json)
        raise typer.Exit
    printed = Table(*COLUMNS, show_edge=False, pad_edge=False)
    for row in rows:
        printed.add_row(*row.values())
    output().print(printed)
    raise typer.Exit


LIST = Option(
    "as_list", bool, "Print the table: law, source, prediction, check, measured agreement, status.", False,
    flag="--list",
)  # fmt: skip
app.callback(invoke_without_command=True)(Command("table", table, (LIST,)).callback())


def _command(row: Law) -> Command:
    """A command whose options are the law's parameters."""

    def act(given: Given) -> None:
        parameters = given.some(*row.parameters)
        if given.seeds is not None and not given.simulate:
            raise Refusal(
                f"--seeds {given.seeds} changes nothing without --simulate; add it, or leave --seeds out"
            )
        if given.simulate:
            _simulate(row, parameters, given.seeds, given.out, given.as_json)
            return
        series = row(**parameters)
        if given.out is not None:
            _draw(row, series, given.out)
        if given.as_json:
            numbers = {name: values.tolist() for name, values in series.items()}
            show(row.name, {"law": row.name, **row.parameters, **parameters, **numbers}, given.as_json)
            return
        _print(row, series)

    options = tuple(
        # None stands for "not given": a simulation has defaults of its own.
        Option(name, type(default) | None, "", shown=str(default), panel=PARAMETERS)
        for name, default in row.parameters.items()
    )
    text = f"{row.predicts}.\n\nSource: {row.source}. Checked against: {row.check}."
    return Command(row.name, act, (*options, *COMMON), escape(text))


def _simulate(row: Law, given: dict[str, Any], seeds: int | None, out: Path | None, as_json: bool) -> None:
    """The law beside its trial: printed side by side, and drawn on one picture."""
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
    output().print(printed)
    fixed = ", ".join(f"{name} {value:.4g}" for name, value in held.parameters.items())
    seeded = f"{held.seeds:,} seeds" if held.trial.seeds else "exact"
    output().print(f"with {fixed or 'no parameters'}; {seeded}, {held.points} points: {held}")


def _print(row: Law, series: dict[str, Any]) -> None:
    import numpy as np

    printed = Table(*series, title=row.predicts, show_edge=False, pad_edge=False)
    length = len(next(iter(series.values())))
    for i in np.unique(np.linspace(0, length - 1, min(length, ROWS)).astype(int)):
        printed.add_row(*(f"{values[i]:.5g}" for values in series.values()))
    output().print(printed)


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
