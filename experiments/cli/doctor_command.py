"""`onearm doctor`: what this machine has, and what is missing."""

from __future__ import annotations

import json

from experiments.cli.console import Json, errors, reporting


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    with reporting(as_json):
        from experiments.cli.doctor import examine

        checks = examine()
        if as_json:
            print(
                json.dumps(
                    {"ok": all(c.ok for c in checks if c.needed), "checks": [c._asdict() for c in checks]}
                )
            )
            return
        for check in checks:
            lacking = "[red]missing [/]" if check.needed else "optional"
            mark = "[green]ok[/]      " if check.ok else lacking
            errors.print(f"{mark} {check.name:<22} {check.found}", highlight=False, soft_wrap=True)
            if not check.ok:
                errors.print(f"        {check.fix}", markup=False, highlight=False, soft_wrap=True)
