"""`onearm law`: the table of laws, and any of them printed or drawn; a subcommand per law, made when asked for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from experiments.console import Json, reporting, show

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
        bool, typer.Option("--list", help="The table: law, source, prediction, check, status.")
    ] = False,
    as_json: Json = False,
) -> None:
    if not as_list:
        return
    from rich.console import Console
    from rich.table import Table

    from theory.laws import LAWS

    rows = [
        {k: getattr(row, k) for k in ("name", "source", "predicts", "check", "status")}
        for row in LAWS.values()
    ]
    if as_json:
        show("laws", {"laws": rows}, as_json)
        raise typer.Exit
    printed = Table(*("law", "source", "predicts", "check", "status"), show_edge=False, pad_edge=False)
    for row in rows:
        printed.add_row(*row.values())
    Console().print(printed)
    raise typer.Exit


def _command(row: Law) -> Any:
    """A command whose options are the law's parameters."""

    def command(**given: Any) -> None:
        out, as_json = given.pop("out"), given.pop("as_json")
        with reporting(as_json):
            series = row(**given)
            if out is not None:
                _draw(row, series, out)
            if as_json:
                show(
                    row.name,
                    {"law": row.name, **given, **{k: v.tolist() for k, v in series.items()}},
                    as_json,
                )
                return
            _print(row, series)

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=type(default))
        for name, default in row.parameters.items()
    ]
    for name, kind in (
        ("out", Annotated[Path | None, typer.Option(help="Folder for the picture and the numbers.")]),
        ("as_json", Json),
    ):
        default = False if name == "as_json" else None
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        )
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    single = typer.Typer(add_completion=False)
    single.command(row.name, help=f"{row.predicts}.\n\nSource: {row.source}. Checked against: {row.check}.")(
        command
    )
    return typer.main.get_command(single)


def _print(row: Law, series: dict[str, Any]) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    printed = Table(*series, title=row.predicts, show_edge=False, pad_edge=False)
    length = len(next(iter(series.values())))
    for i in np.unique(np.linspace(0, length - 1, min(length, ROWS)).astype(int)):
        printed.add_row(*(f"{values[i]:.5g}" for values in series.values()))
    Console().print(printed)


def markdown() -> str:
    """The table of laws as a page of the documentation."""
    from theory.laws import LAWS

    rows = [f"| `{x.name}` | {x.predicts} | {x.source} | {x.check} | {x.status} |" for x in LAWS.values()]
    head = (
        "# The laws\n\nWritten by `make laws`; `onearm law NAME --help` names a law's parameters, "
        "`onearm law NAME --out DIR` draws it.\nStatus: exact at any size of the arguments; mean field as the step "
        "size goes to zero; asymptotic to leading order of a stated limit.\n\n"
        "| law | predicts | source | checked against | status |\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _draw(row: Law, series: dict[str, Any], out: Path) -> None:
    import numpy as np

    from experiments.store import replacing, write_json
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


if __name__ == "__main__":
    Path("docs").mkdir(exist_ok=True)
    Path("docs/laws.md").write_text(markdown())
