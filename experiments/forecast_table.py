"""How good forecasts were: `python -m experiments.forecast_table FOLDER ...` writes docs/forecasts.md from runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.console import reporting, text_of
from experiments.overlay import pooled
from theory.rules.dialects import name_of
from theory.rules.rule import Rule

PAGE = Path("docs/forecasts.md")
VERSIONS = ("torch", "transformers", "jax")
HEAD = """# How good the forecasts were

Written by `python -m experiments.forecast_table {folders}` on {date} ({versions}), from the numbers that each run
wrote before (the forecast) and after it was trained. Nothing was fitted. f / o: foretold and observed, in rounds; a
dash is a level not reached. Coverage: share of rounds within the 50% and the 90% band. CRPS of the mean success: the
tree kernel's, beside a sequence kernel, a bandit without shared parameters, "nothing is learned", and a logistic curve
that has seen the first quarter of the run. z: the outcomes against what each replica's own history foretells; a pooled
z beyond 2 says that forecasts err together.
"""


def page(folders: Sequence[Path]) -> str:
    """The page for these run folders: of `onearm overlay --queries` (summary.json) or `onearm contexts`.

    Errors: ValueError for a folder that holds neither.
    """
    parts = []
    for folder in folders:
        if (folder / "summary.json").exists():
            parts.append(_queries(folder))
        elif (folder / "contexts.json").exists():
            parts.append(_contexts(folder))
        else:
            raise ValueError(
                f"{folder} holds no finished run of several queries; make one with: onearm overlay --queries ... "
                f"--out {folder}, or onearm contexts"
            )
    head = HEAD.format(
        folders=" ".join(map(str, folders)),
        date=date.today(),
        versions=", ".join(f"{name} {version(name)}" for name in VERSIONS),
    )
    return "\n".join([head, *parts])


def _queries(folder: Path) -> str:
    summary = json.loads((folder / "summary.json").read_text())
    rows = [row for row in summary["queries"] if "error" not in row]
    if not rows:
        raise ValueError(f"{folder}: every query of its summary.json ended in an error; run it again")
    first = rows[0]
    lines = [
        f"\n## {first['model']}, {_rule(first)}, {first['replicas']} replicas, {first['rounds']} rounds\n",
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
        query = row["query"].replace("\n", " ⏎ ").replace("|", "\\|")
        lines.append(
            f"| {query} | {text_of(row['p0'])} | {times[0]} | {times[1]} | {covered} | {' | '.join(crps)} | "
            f"{text_of(row['residual_z'])} |"
        )
    best = sum(row["crps_kernel"] < min(row["crps_tabular"], row["crps_constant"]) for row in rows)
    beaten = sum(row["crps_kernel"] < row["crps_logistic"] for row in rows)
    agree = [row[f"time_to_{n}_agrees"] for row in rows for n in ("double", "half")]
    agree = [x for x in agree if x is not None]
    together = pooled(rows)
    failed = [row["query"] for row in summary["queries"] if "error" in row]
    lines.append(
        f"\nThe tree kernel has a lower CRPS than tabular and constant in {best} of {len(rows)}, than the logistic "
        f"curve in {beaten}; {sum(agree)} of {len(agree)} times agree within their combined 95% interval; pooled z "
        f"{text_of(together['residual_z'])}, by quarter {text_of(together['residual_z_windows'])}."
        + (f" Not forecast: {'; '.join(failed)}." if failed else "")
    )
    return "\n".join(lines)


def _contexts(folder: Path) -> str:
    numbers = json.loads((folder / "contexts.json").read_text())
    lines = [
        f"\n## {numbers['model']}, {_rule(numbers)}: {len(numbers['queries'])} queries together, "
        f"{numbers['batch']} per round, {numbers['replicas']} replicas, {numbers['rounds']} rounds\n",
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
    return "\n".join(lines)


def _rule(row: dict[str, Any]) -> str:
    rule = Rule.model_validate(row["rule"])
    return f"`{name_of(rule) or rule.signal.kind}`, {rule.rollouts} rollouts per query, η = {rule.optimiser.eta:g}"


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs of several queries.")],
    to: Annotated[Path, typer.Option(help="The page that is written.")] = PAGE,
) -> None:
    """Write how good the forecasts of finished runs were."""
    with reporting(as_json=False):
        text = page(folders)
        to.parent.mkdir(exist_ok=True)
        to.write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
