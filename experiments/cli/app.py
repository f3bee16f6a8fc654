"""The command line, `onearm`: a table of its commands, in the order in which they are used."""

from __future__ import annotations

import typer

from experiments.cli import (
    doctor_command,
    explain_command,
    export_command,
    forecast_command,
    law_command,
    layers_command,
    overlay_command,
    probe_command,
    screen_command,
    simulate_command,
    study_command,
    train_command,
)
from experiments.cli.command import Command

THEORY = "Simulator and theory"
COMMANDS: tuple[Command | typer.Typer, ...] = (
    screen_command.COMMAND,
    probe_command.COMMAND,
    forecast_command.COMMAND,
    train_command.COMMAND,
    overlay_command.COMMAND,
    explain_command.COMMAND,
    export_command.COMMAND,
    simulate_command.COMMAND,
    law_command.app,
    layers_command.app,
    study_command.app,
    doctor_command.COMMAND,
)
"""A command is a row here and a file `NAME_command.py`; a group of commands is a `typer.Typer` with a name."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Forecast reinforcement fine-tuning of a language model before it is trained.",
    epilog="Everyday use: onearm forecast --query 'What is 17 + 25?' --answer 42 --out runs/mine (never trains). "
    "To hold the forecast against a real run: onearm overlay, with the same options.",
)
for row in COMMANDS:
    if isinstance(row, Command):
        row.add_to(app)
    else:
        app.add_typer(row, rich_help_panel=THEORY)


def main() -> None:
    """Entry point of the console script."""
    app()
