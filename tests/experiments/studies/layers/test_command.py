"""`onearm layers` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli.app import app


def call(*words: object):
    return CliRunner().invoke(app, ["layers", *map(str, words)])


@pytest.mark.parametrize("command", ["run", "report"])
def test_help_teaches(command):
    result = call(command, "--help")
    assert result.exit_code == 0 and "--quick" in result.output and "--json" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--layer", 9], "--layer 9: the layers are 0 to 7"),
        (["run", "--world", "mars"], "--world mars: choose simulator, tiny-arithmetic"),
        (["report"], "run first: onearm layers run --quick"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, words, message):
    result = call(*words, "--json", "--out", tmp_path)
    assert result.exit_code == 2
    assert message in json.loads(result.stdout)["error"]
