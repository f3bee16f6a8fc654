"""`onearm study NAME`: what is measured, tabulated or drawn for a page of the documentation, one command for each."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from experiments.cli.command import Command, Given, Option, group
from experiments.cli.console import show
from experiments.cli.options import OUTPUT


def page(to: str) -> Option:
    """The option of a study that writes a page."""
    return Option("to", Path, "The page to write.", Path(to), panel=OUTPUT)


def folder(out: str) -> Option:
    """The option of a study that fills a folder."""
    return Option("out", Path, "Folder for what is written.", Path(out), panel=OUTPUT)


FOLDERS = Option("folders", list[Path], "Folders of finished runs of several queries.", ..., positional=True)
PICTURE = Option("only", str | None, "Name of the one picture to draw.", shown="all")
LAWS = Option("only", str | None, "Names of the laws to measure, with commas between them.", shown="all")


def aside(given: Given) -> AbstractContextManager[Any]:
    """With --json, what a study prints while it works goes to standard error."""
    return redirect_stdout(sys.stderr) if given.as_json else nullcontext()


def table(given: Given) -> None:
    """Write how good the forecasts of finished runs were. Sections of other runs stay in the page."""
    from experiments.studies import forecast_table

    forecast_table.write(given.folders, given.to)
    show("table", {"to": str(given.to)}, given.as_json)


def findings(given: Given) -> None:
    """Measure again what theory says about the papers' findings, and write the page."""
    from experiments.studies import findings

    findings.write(given.to)
    show("findings", {"to": str(given.to)}, given.as_json)


def gallery(given: Given) -> None:
    """Draw what the simulator shows, and where the laws break."""
    from experiments.studies import gallery

    with aside(given):
        gallery.draw(given.out, given.only)
    show("gallery", {"out": str(given.out)}, given.as_json)


def agreement(given: Given) -> None:
    """Measure how well every law agrees with its simulation (about ten minutes)."""
    from experiments.studies import law_agreement

    with aside(given):
        law_agreement.measure(given.only.split(",") if given.only else ())
    show("agreement", {"to": str(law_agreement.FILE)}, given.as_json)


def laws(given: Given) -> None:
    """Write the table of laws, with the agreements as they were last measured."""
    from experiments.studies import laws_page

    laws_page.write(given.to)
    show("laws", {"to": str(given.to)}, given.as_json)


def approximations(given: Given) -> None:
    """Measure what each approximation of a probe costs, on a model small enough to enumerate."""
    from experiments.studies.approximations import approximations

    with aside(given):
        approximations(given.out)
    show("approximations", {"out": str(given.out)}, given.as_json)


app = group(
    "study",
    "Measure, tabulate or draw what a page of the documentation shows.",
    Command("table", table, (FOLDERS, page("docs/forecasts.md")), needs="llm"),
    Command("findings", findings, (page("docs/findings.md"),), needs="sim"),
    Command("gallery", gallery, (PICTURE, folder("figures/gallery")), needs="sim"),
    Command("agreement", agreement, (LAWS,), needs="sim"),
    Command("laws", laws, (page("docs/laws.md"),), needs="sim"),
    Command("approximations", approximations, (folder("runs/approximations"),), needs="llm"),
)
