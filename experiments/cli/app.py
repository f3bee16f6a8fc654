"""The command line, `onearm`: one command per stage of the work; `onearm --help` lists them."""

from __future__ import annotations

import typer

from experiments.cli import (
    contexts_command,
    doctor_command,
    explain_command,
    law_command,
    layers_command,
    screen_command,
    simulate_command,
    stage_commands,
    study_commands,
)
from experiments.exports import export

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Forecast reinforcement fine-tuning of a language model before it is trained.",
    epilog="Everyday use: onearm forecast --query 'What is 17 + 25?' --answer 42 --out runs/mine (never trains). "
    "To hold the forecast against a real run: onearm overlay, with the same arguments.",
)
app.command()(simulate_command.simulate)
app.command()(contexts_command.contexts)
app.command("export")(export.command)
app.add_typer(law_command.app, name="law")
app.command()(screen_command.screen)
app.add_typer(layers_command.app, name="layers")
for stage in stage_commands.STAGES:
    app.command(stage.name, help=stage.text)(stage_commands.command_of(stage))
app.command()(explain_command.explain)
app.add_typer(study_commands.app, name="study")
app.command()(doctor_command.doctor)


def main() -> None:
    """Entry point of the console script."""
    app()
