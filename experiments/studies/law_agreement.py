"""How well every law agrees with its trial: `make agreement` measures it, the table of laws reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.progress import track

FILE = Path(__file__).with_name("law_trials") / "agreement.jsonl"


def read() -> dict[str, dict[str, Any]]:
    """Law -> its agreement as it was last measured."""
    if not FILE.exists():
        return {}
    return {row["law"]: row for row in map(json.loads, FILE.read_text().splitlines())}


def main(only: str = "") -> None:
    """Measure the agreement of every law (about ten minutes on one core), or of ONLY, several by commas."""
    from experiments.folder.store import replacing
    from experiments.studies.law_trials import TRIALS

    measured, names = read(), only.split(",") if only else list(TRIALS)
    for name in names:
        if name not in TRIALS:
            raise typer.BadParameter(f"{name!r} is no law; choose {', '.join(TRIALS)}")
    for name in track(names, "laws"):
        measured[name] = TRIALS[name]().summary()
        rows = [json.dumps(measured[law], allow_nan=False) for law in TRIALS if law in measured]
        with replacing(FILE) as temporary:
            temporary.write_text("\n".join(rows) + "\n")
        typer.echo(f"{name}: {measured[name]['agreement']}")


if __name__ == "__main__":
    typer.run(main)
