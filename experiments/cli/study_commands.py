"""`onearm study NAME`: what is measured, tabulated or drawn for a page of the documentation, one command for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from experiments.cli.console import reporting
from theory.extras import require

Page = Annotated[Path, typer.Option(help="The page that is written.")]
Folder = Annotated[Path, typer.Option(help="Folder for what is written.")]


def _table(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs of several queries.")],
    to: Annotated[Path, typer.Option(help="The page whose sections are written; others stay.")] = Path(
        "docs/forecasts.md"
    ),
) -> None:
    from experiments.studies import forecast_table

    forecast_table.write(folders, to)


def _findings(to: Page = Path("docs/findings.md")) -> None:
    from experiments.studies import findings

    findings.write(to)


def _gallery(
    out: Folder = Path("figures/gallery"),
    only: Annotated[str | None, typer.Option(help="Name of the one picture to draw.")] = None,
) -> None:
    from experiments.studies import gallery

    gallery.draw(out, only)


def _agreement(
    only: Annotated[
        str | None, typer.Option(help="Names of the laws to measure, separated by commas.")
    ] = None,
) -> None:
    from experiments.studies import law_agreement

    law_agreement.measure(only.split(",") if only else ())


def _laws(to: Page = Path("docs/laws.md")) -> None:
    from experiments.studies import laws_page

    laws_page.write(to)


def _approximations(out: Folder = Path("runs/approximations")) -> None:
    from experiments.studies.approximations import approximations

    approximations(out)


class Study(NamedTuple):
    """A study: what it does, the extra that this takes, and what its command says of itself."""

    act: Callable[..., None]
    needs: str
    text: str


STUDIES = {
    "table": Study(_table, "llm", "Write how good the forecasts of finished runs were."),
    "findings": Study(
        _findings, "sim", "Measure again what theory says about the papers' findings, and write the page."
    ),
    "gallery": Study(_gallery, "sim", "Draw what the simulator shows, and where the laws break."),
    "agreement": Study(
        _agreement, "sim", "Measure how well every law agrees with its simulation (about ten minutes)."
    ),
    "laws": Study(_laws, "sim", "Write the table of laws, with the agreements as they were last measured."),
    "approximations": Study(
        _approximations,
        "llm",
        "Measure what each approximation of a probe costs, on a model small enough to enumerate.",
    ),
}
"""Name -> study. The help of `onearm study` is made of this table."""


def _command_of(study: Study) -> Callable[..., None]:
    @wraps(study.act)  # for its options
    def command(**given: Any) -> None:
        with reporting(as_json=False):
            require(study.needs)
            study.act(**given)

    return command


app = typer.Typer(
    no_args_is_help=True, help="Measure, tabulate or draw what a page of the documentation shows."
)
for name, study in STUDIES.items():
    app.command(name, help=study.text)(_command_of(study))
