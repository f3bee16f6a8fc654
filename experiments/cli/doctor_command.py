"""`onearm doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import json

from rich.text import Text

from experiments.cli.command import Command, Given
from experiments.cli.console import errors


def doctor(given: Given) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from experiments.cli.doctor import examine

    checks = examine()
    if given.as_json:
        ok = all(check.ok for check in checks if check.needed)
        print(json.dumps({"ok": ok, "checks": [check._asdict() for check in checks]}))
        return
    for check in checks:
        mark, style = (
            ("ok", "green") if check.ok else ("missing", "red") if check.needed else ("optional", "")
        )
        line = Text.assemble((f"{mark:<8}", style), f" {check.name:<22} {check.found}")
        errors.print(line, soft_wrap=True)
        if not check.ok:
            errors.print(f"        {check.fix}", soft_wrap=True)


COMMAND = Command("doctor", doctor, panel="This machine")
