"""`onearm export`: a rule as a Python file for a trainer."""

from __future__ import annotations

from pathlib import Path

from experiments.cli.command import Command, Given, Option
from experiments.cli.console import show
from experiments.cli.options import OUTPUT, ROLLOUTS, RULE

OPTIONS = (
    Option("rule", str, "Update rule. One of {rules}.", ..., positional=True),
    Option("eta", float | None, "Step size of the optimiser.", panel=RULE, shown="the rule's own"),
    ROLLOUTS,
    Option("to", str, "Whose trainer: {trainers}.", ..., panel=OUTPUT),
    Option("out", Path, "The Python file to write.", ..., panel=OUTPUT),
)


def export(given: Given) -> None:
    """Write a rule as a Python file for TRL or verl, so that what was forecast here runs there.

    Example: onearm export rloo --to trl --out rule.py
    """
    from experiments.exports.export import export as source_of
    from theory.rules.dialects import preset

    chosen = preset(given.rule, eta=given.eta, rollouts=given.rollouts)
    source = source_of(chosen, given.to)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(source)
    result = {"rule": given.rule, "to": given.to, "out": str(given.out), "hash": chosen.hash}
    show("export", result, given.as_json)


COMMAND = Command("export", export, OPTIONS, panel="Language models")
