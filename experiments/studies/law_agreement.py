"""How well every law agrees with its trial: `make agreement` measures it, the table of laws reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from theory.refusal import Refusal

FILE = Path(__file__).with_name("law_trials") / "agreement.jsonl"


def read() -> dict[str, dict[str, Any]]:
    """Law -> its agreement as it was last measured."""
    if not FILE.exists():
        return {}
    return {row["law"]: row for row in map(json.loads, FILE.read_text().splitlines())}


def measure(only: Sequence[str] = (), tell: Callable[[str], None] = print) -> None:
    """Measure the agreement of every law, or of some, and keep it; `tell` is called with a line for each.

    Errors: Refusal for a name that no law has.
    """
    from experiments.folder.store import replacing
    from experiments.studies.law_trials import TRIALS

    for name in only:
        if name not in TRIALS:
            raise Refusal(f"--only {name!r} is no law; choose {', '.join(TRIALS)}")
    measured = read()
    for name in track(only or list(TRIALS), "laws"):
        measured[name] = TRIALS[name]().summary()
        rows = [json.dumps(measured[law], allow_nan=False) for law in TRIALS if law in measured]
        with replacing(FILE) as temporary:
            temporary.write_text("\n".join(rows) + "\n")
        tell(f"{name}: {measured[name]['agreement']}")
