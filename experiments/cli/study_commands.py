"""`onearm study NAME`: what is measured, tabulated or drawn for a page of the documentation, one command for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from experiments.cli.console import reporting

Page = Annotated[Path, typer.Option(help="The page that is written.")]
Folder = Annotated[Path, typer.Option(help="Folder for what is written.")]


class Study(NamedTuple):
    """A study: what its command says of itself, and what it does."""

    text: str
    act: Callable[..., None]


def _table(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs of several queries.")],
    to: Annotated[Path, typer.Option(help="The page whose sections are written; others stay.")] = Path(
        "docs/forecasts.md"
    ),
) -> None:
    with reporting(as_json=False):
        from experiments.studies import forecast_table

        forecast_table.write(folders, to)


def _findings(to: Page = Path("docs/findings.md")) -> None:
    with reporting(as_json=False):
        from experiments.studies import findings

        findings.write(to)


def _gallery(
    out: Folder = Path("figures/gallery"),
    only: Annotated[str | None, typer.Option(help="Name of the one picture to draw.")] = None,
) -> None:
    with reporting(as_json=False):
        from experiments.studies import gallery

        gallery.draw(out, only)


def _agreement(
    only: Annotated[
        str | None, typer.Option(help="Names of the laws to measure, with commas between.")
    ] = None,
) -> None:
    with reporting(as_json=False):
        from experiments.studies import law_agreement

        law_agreement.measure(only.split(",") if only else ())


def _laws(to: Page = Path("docs/laws.md")) -> None:
    with reporting(as_json=False):
        from experiments.studies import laws_page

        laws_page.write(to)


def _approximations(out: Folder = Path("runs/approximations")) -> None:
    with reporting(as_json=False):
        from experiments.studies.approximations import approximations

        approximations(out)


STUDIES = {
    "table": Study("Write how good the forecasts of finished runs were.", _table),
    "findings": Study(
        "Measure again what theory says about the papers' findings, and write the page.", _findings
    ),
    "gallery": Study("Draw what the simulator shows, and where the laws break.", _gallery),
    "agreement": Study(
        "Measure how well every law agrees with its simulation (about ten minutes).", _agreement
    ),
    "laws": Study("Write the table of laws, with the agreements as they were last measured.", _laws),
    "approximations": Study(
        "Measure what each approximation of a probe costs, on a model small enough to enumerate.",
        _approximations,
    ),
}
"""Name -> study. The help of `onearm study` is made of this table."""

app = typer.Typer(
    no_args_is_help=True, help="Measure, tabulate or draw what a page of the documentation shows."
)
for name, study in STUDIES.items():
    app.command(name, help=study.text)(study.act)
