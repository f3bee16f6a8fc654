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
(the forecast) and after it was trained. Nothing was fitted. f / o: forecast and observed, in rounds; a dash is a level
not reached. Coverage: share of rounds within the 50% and the 90% band. CRPS of the mean success: the tree kernel's,
beside a sequence kernel, a bandit without shared parameters, "nothing is learned", and a logistic curve that has seen
the first quarter of the run; "queries apart" is the tree kernel without what one query does to another. z: the
outcomes against what each replica's own history forecasts; a pooled z beyond 2 says that forecasts err together. Where
a run was explained, a second table splits the gap between the trained network and the forecast: drift (the network
has left its linear regime), truncation (what the probe leaves out, and its noise), chance (this run's draws).
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
        folders: of `onearm overlay`: with a run for each query (summary.json), or with one run (overlay.json), of one
            query or, with --together, of several.
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
    found = _read(folder)
    rows = [row for row in found if "error" not in row]
    if not rows:
        raise Refusal(f"{folder}: every query of its summary.json ended in an error; run it again")
    several = "batch" in rows[0]
    lines = _sets(rows[0]) if several else _queries(rows, [row for row in found if "error" in row])
    return _heading(rows[0]), "\n".join([*lines, *_explained(folder, rows)])


def _read(folder: Path) -> list[dict[str, Any]]:
    """The numbers of the overlays in a folder: of a run for each query, or of one run."""
    if (folder / "summary.json").exists():
        return json.loads((folder / "summary.json").read_text())["queries"]
    if (folder / "overlay.json").exists():
        return [json.loads((folder / "overlay.json").read_text())]
    raise Refusal(
        f"{folder} holds no finished overlay; make one with: onearm overlay --queries ... --out {folder}"
    )


def _heading(row: dict[str, Any]) -> str:
    """Model, rule and size; of several queries in one run how many there are."""
    parts = [f"{row['replicas']} replicas", f"{row['rounds']} rounds"]
    if "relinearised_rounds" in row:
        parts.append(f"relinearised after {', '.join(map(str, row['relinearised_rounds']))}")
    if "batch" not in row:
        return ", ".join([row["model"], _rule(row), *parts])
    together = f"{len(row['queries'])} queries together, {row['batch']} per round"
    return f"{row['model']}, {_rule(row)}: {', '.join([together, *parts])}"


def _queries(rows: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each query that had a run of its own, and what they come to together."""
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
        crps = _crps(row, "", ("kernel", "sequence_kernel", "tabular", "constant", "logistic"))
        cells = [
            _line(row["query"]), text_of(row["p0"]), *times, _coverage(row), *crps, text_of(row["residual_z"])
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    best = sum(row["crps_kernel"] < min(row["crps_tabular"], row["crps_constant"]) for row in rows)
    beaten = sum(row["crps_kernel"] < row["crps_logistic"] for row in rows)
    agree = [row[f"time_to_{n}_agrees"] for row in rows for n in ("double", "half")]
    agree = [x for x in agree if x is not None]
    together = pooled(rows)
    missing = "; ".join(_line(row["query"]) for row in failed)
    lines.append(
        f"\nThe tree kernel has a lower CRPS than tabular and constant in {best} of {len(rows)}, than the logistic "
        f"curve in {beaten}; {sum(agree)} of {len(agree)} times agree within their combined 95% interval; pooled z "
        f"{text_of(together['residual_z'])}, by quarter {text_of(together['residual_z_windows'])}."
        + (f" Not forecast: {missing}." if missing else "")
    )
    return lines


def _sets(row: dict[str, Any]) -> list[str]:
    """A line for the queries that one run trained on, and one for those held out. Under Adam nothing is simulated
    without the kernel between queries, nor without shared parameters; z is of the rollouts trained on."""
    lines = [
        "| success on | p0 | end f / o | coverage 50 / 90 "
        "| CRPS tree | queries apart | sequence | tabular | constant | logistic | z |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    sets = [("", "queries trained on"), ("held_out_", f"{len(row['held_out'])} queries held out")]
    for prefix, words in sets[: 2 if row["held_out"] else 1]:
        end = f"{row[f'{prefix}end_forecast']:.3f} / {row[f'{prefix}end_observed']:.3f}"
        crps = _crps(row, prefix, ("kernel", "apart", "sequence_kernel", "tabular", "constant", "logistic"))
        z = text_of(None if prefix else row.get("residual_z"))
        cells = [words, text_of(row[f"{prefix}p0"]), end, _coverage(row, prefix), *crps, z]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _coverage(row: dict[str, Any], prefix: str = "") -> str:
    return f"{row[f'{prefix}coverage_50']:.2f} / {row[f'{prefix}coverage_90']:.2f}"


def _crps(row: dict[str, Any], prefix: str, engines: Sequence[str]) -> list[str]:
    return [text_of(row.get(f"{prefix}crps_{engine}")) for engine in engines]


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
        f"| query | replicas | after rounds | {' | '.join(GAPS)} |",
        "|---|---|---|" + "---|" * len(GAPS),
    ]
    return [*head, *lines]


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
