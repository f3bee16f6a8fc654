"""What a user can mend is one line and exit code 2; a bug keeps its traceback; users' text is printed as it stands."""

from __future__ import annotations

import errno
import json
import traceback
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import typer

from experiments.cli.console import REPORT, reporting, show
from theory.refusal import Refusal
from theory.warning import QueryWarning

HUGE = 2**55
ODD = "[red]What[/] is [3, 4]? :smile: [/no]"
"""A query with everything that a terminal library might read as style."""


def raise_xla() -> None:
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1152921504606846976 bytes.")


def raise_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    "allocate", [lambda: torch.empty(HUGE), lambda: np.empty(HUGE), lambda: bytearray(HUGE), raise_xla, raise_cuda]
)  # fmt: skip
def test_out_of_memory_says_what_to_lower(
    allocate: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """The allocators' own errors: torch's CPU, NumPy's, Python's; XLA's and CUDA's by their words."""
    with pytest.raises(typer.Exit) as left, reporting(True):
        allocate()
    assert left.value.exit_code == 2
    said = capsys.readouterr()
    for word in ("out of memory", "--replicas", "--max-tokens", "--probe-rollouts", "--batch"):
        assert word in " ".join(said.err.split())
    assert "--replicas" in json.loads(said.out)["error"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Refusal("eta = -1; give more than 0"), "eta = -1; give more than 0"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/run"), "/data/run: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "q.jsonl"), "q.jsonl: Permission denied"),
        (OSError("model x is not on the hub"), "model x is not on the hub"),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), "pip install 'onearm[trl]'"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_user_can_mend_is_one_line(
    error: Exception, line: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left, reporting(as_json):
        raise error
    said = capsys.readouterr()
    assert left.value.exit_code == 2
    assert said.err.startswith("error: ") and line in said.err and said.err.count("\n") == 1
    assert line in json.loads(said.out)["error"] if as_json else said.out == ""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        ValueError("operands could not be broadcast together"),
        KeyError("p0"),
        ModuleNotFoundError("No module named 'experiments.gone'", name="experiments.gone"),
        ImportError("cannot import name 'gone' from 'theory'", name="theory"),
    ],
)
def test_a_bug_keeps_its_traceback_and_asks_for_a_report(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)) as raised, reporting(True):
        raise error
    assert raised.value is error
    shown = "".join(traceback.format_exception(error))
    assert "Traceback" in shown and shown.rstrip().endswith(REPORT)
    assert "onearm doctor" in REPORT and "://" not in REPORT
    said = capsys.readouterr()
    assert type(error).__name__ in json.loads(said.out)["error"] and said.err == ""


@pytest.mark.parametrize(
    "leaving", [typer.Exit(3), typer.Abort(), BrokenPipeError(errno.EPIPE, "Broken pipe")]
)
def test_leaving_is_no_error(leaving: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(leaving)) as raised, reporting(True):
        raise leaving
    assert raised.value is leaving and not hasattr(leaving, "__notes__")
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_says_that_it_can_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left, reporting(False):
        raise KeyboardInterrupt
    assert left.value.exit_code == 130 and "goes on from here" in capsys.readouterr().err


def test_text_of_users_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reporting(False):
        warnings.warn(QueryWarning(f"left out: {ODD}"), stacklevel=1)
        show(ODD, {"query": ODD, ODD: [ODD]}, as_json=False)
        raise Refusal(f"query {ODD!r} is trained on and held out")
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"warning: left out: {ODD}",
        f"error: query {ODD!r} is trained on and held out",
    ]
    assert said.out.count(ODD) == 4
