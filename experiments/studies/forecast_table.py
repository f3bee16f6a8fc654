"""How good forecasts were: sections of docs/forecasts.md, made of finished runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.compare.numbers import pooled
from experiments.words import text_of
from theory.refusal import Refusal
from theory.rules.dialects import name_of
from theory.rules.rule import Rule

PAGE = Path("docs/forecasts.md")
VERSIONS = ("torch", "transformers", "jax")
HEAD = """# How good the forecasts were

Every section says which command wrote it, when, and with which versions, from the numbers that each run wrote before
(the forecast) and after it was trained. Nothing was fitted. f / o: foretold and observed, in rounds; a dash is a level
not reached. Coverage: share of rounds within the 50% and the 90% band. CRPS of the mean success: the tree kernel's,
beside a sequence kernel, a bandit without shared parameters, "nothing is learned", and a logistic curve that has seen
the first quarter of the run. z: the outcomes against what each replica's own history foretells; a pooled z beyond 2
says that forecasts err together. Where a run was explained, a second table splits the gap between the trained network
and the forecast: drift (the network has left its linear regime), truncation (what the probe leaves out, and its noise),
chance (this run's draws).
"""
GAPS = {
    "network - forecast": "network - forecast",
    "drift": "network - linear (drift)",
    "truncation": "linear - tree (truncation)",
    "chance": "tree - forecast (chance)",
}
"""Columns of what was explained, and what `onearm explain` calls them."""
Section = tuple[str, str]
"""Its heading, which names model, rule and size of the runs, and the text below it."""


def page(folders: Sequence[Path], before: str = "") -> str:
    """The page with a section for each folder; sections of the page before that no folder replaces stay as they are.

    Arguments:
        folders: of `onearm overlay --queries` (summary.json), or with --together (contexts.json).
        before: the page as it stands; a section is replaced by one of the same heading, in its place.
    Errors: Refusal for a folder that holds neither, or two folders with the same heading.
    """
    made: dict[str, Path] = {}
    sections = dict(sections_of(before))
    for folder in folders:
        heading, body = _section(folder)
        if heading in made:
            raise Refusal(f"{made[heading]} and {folder} are both {heading!r}; give one of them")
        made[heading] = folder
        versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
        source = f"`onearm study table {folder}`, {date.today()}, {versions}."
        sections[heading] = f"{source}\n\n{body}"
    return "\n".join([HEAD, *(f"## {heading}\n\n{body}\n" for heading, body in sections.items())])


def sections_of(text: str) -> list[Section]:
    """The sections of a page."""
    parts = [part.partition("\n") for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]]
    return [(heading, body.strip("\n")) for heading, _, body in parts]


def _section(folder: Path) -> Section:
    if (folder / "summary.json").exists():
        return _queries(folder)
    if (folder / "contexts.json").exists():
        return _contexts(folder)
    raise Refusal(
        f"{folder} holds no finished run of several queries; make one with: onearm overlay --queries ... "
        f"--out {folder}"
    )


def _queries(folder: Path) -> Section:
    summary = json.loads((folder / "summary.json").read_text())
    rows = [row for row in summary["queries"] if "error" not in row]
    if not rows:
        raise Refusal(f"{folder}: every query of its summary.json ended in an error; run it again")
    first = rows[0]
    heading = f"{first['model']}, {_rule(first)}, {first['replicas']} replicas, {first['rounds']} rounds"
    if "relinearised_rounds" in first:
        heading += f", relinearised after {', '.join(map(str, first['relinearised_rounds']))}"
    lines = [
        "| query | p0 | double f / o | half f / o | coverage 50 / 90 "
        "| CRPS tree | sequence | tabular | constant | logistic | z |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [
            f"{text_of(row[f'time_to_{name}_forecast'])} / {text_of(row[f'time_to_{name}_observed'])}"
            for name in ("double", "half")
        ]
        crps = [
            text_of(row[f"crps_{k}"])
            for k in ("kernel", "sequence_kernel", "tabular", "constant", "logistic")
        ]
        covered = f"{row['coverage_50']:.2f} / {row['coverage_90']:.2f}"
        cells = [
            _line(row["query"]), text_of(row["p0"]), *times, covered, *crps, text_of(row["residual_z"])
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    best = sum(row["crps_kernel"] < min(row["crps_tabular"], row["crps_constant"]) for row in rows)
    beaten = sum(row["crps_kernel"] < row["crps_logistic"] for row in rows)
    agree = [row[f"time_to_{n}_agrees"] for row in rows for n in ("double", "half")]
    agree = [x for x in agree if x is not None]
    together = pooled(rows)
    failed = [_line(row["query"]) for row in summary["queries"] if "error" in row]
    lines.append(
        f"\nThe tree kernel has a lower CRPS than tabular and constant in {best} of {len(rows)}, than the logistic "
        f"curve in {beaten}; {sum(agree)} of {len(agree)} times agree within their combined 95% interval; pooled z "
        f"{text_of(together['residual_z'])}, by quarter {text_of(together['residual_z_windows'])}."
        + (f" Not forecast: {'; '.join(failed)}." if failed else "")
    )
    return heading, "\n".join([*lines, *_explained(folder, rows)])


def _explained(folder: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What `onearm explain` found in the folders of these rows, a line per look; nothing where it was not asked."""
    lines: list[str] = []
    for row in rows:
        path = folder / row.get("folder", "") / "explain.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        # A folder that has been trained anew with other settings may still hold what was found before.
        if found and (found["rounds"], found["eta"], found["p0"]) == (
            row["rounds"],
            row["rule"]["optimiser"]["eta"],
            row["p0"],
        ):
            for look in found["looks"]:
                gaps = [f"{look[gap][0]:+.3f} ± {look[gap][1]:.3f}" for gap in GAPS.values()]
                cells = [_line(row["query"]), str(found["replicas"]), str(look["updates"]), *gaps]
                lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return []
    head = [
        "\nWhy, by `onearm explain` on the run's own draws: success, with a standard error over replicas.\n",
        f"| query | replicas | after updates | {' | '.join(GAPS)} |",
        "|---|---|---|" + "---|" * len(GAPS),
    ]
    return [*head, *lines]


def _contexts(folder: Path) -> Section:
    numbers = json.loads((folder / "contexts.json").read_text())
    heading = (
        f"{numbers['model']}, {_rule(numbers)}: {len(numbers['queries'])} queries together, "
        f"{numbers['batch']} per round, {numbers['replicas']} replicas, {numbers['rounds']} rounds"
    )
    lines = [
        "| success on | p0 | end f / o | coverage 50 / 90 | CRPS joint kernel | queries apart | constant | logistic |",
        "|---|---|---|---|---|---|---|---|",
    ]
    held = len(numbers["held_out"])
    for name, words in (("training", "queries trained on"), ("held_out", f"{held} queries held out")):
        if f"{name}_p0" in numbers:
            crps = [text_of(numbers[f"{name}_crps_{k}"]) for k in ("joint", "apart", "constant", "logistic")]
            end = f"{numbers[f'{name}_end_forecast']:.3f} / {numbers[f'{name}_end_observed']:.3f}"
            covered = f"{numbers[f'{name}_coverage_50']:.2f} / {numbers[f'{name}_coverage_90']:.2f}"
            lines.append(
                f"| {words} | {text_of(numbers[f'{name}_p0'])} | {end} | {covered} | {' | '.join(crps)} |"
            )
    return heading, "\n".join(lines)


def _line(query: str) -> str:
    """A query in one line, fit for a cell."""
    return query.replace("\n", " ⏎ ").replace("|", "\\|")


def _rule(row: dict[str, Any]) -> str:
    rule = Rule.model_validate(row["rule"])
    return f"`{name_of(rule) or rule.signal.kind}`, {rule.rollouts} rollouts per query, η = {rule.optimiser.eta:g}"


def write(folders: Sequence[Path], to: Path = PAGE) -> None:
    """Write the sections of these folders into a page; its others stay as they are. Errors: those of `page`."""
    text = page(folders, to.read_text() if to.exists() else "")
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text)
