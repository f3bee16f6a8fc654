"""Worlds beside one another: each in a process of its own, none lost where another fails."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.studies.layers import jobs
from experiments.studies.layers.jobs import side_by_side
from theory.refusal import Refusal


class Awkward(Refusal):
    """An error that cannot be unpickled, as many are: its arguments are not its message."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(f"{name} is broken {number} times")


def noted(name: str, out: Path, broken: dict[str, type[Exception]] | None = None) -> int:
    """Write down who ran it, with how many threads."""
    import torch

    if kind := (broken or {}).get(name):
        raise kind(2, name) if kind is Awkward else kind(f"{name} is broken")
    time.sleep(0.1 if broken else 0.0)  # so that the broken one is heard of first
    (out / name).write_text(f"{os.getpid()} {torch.get_num_threads()}")
    return len(name)


def test_one_job_runs_here_in_the_order_given(tmp_path):
    order: list[str] = []
    assert side_by_side(lambda name: order.append(name) or 1, ["a", "b", "c"], 1) == 3
    assert order == ["a", "b", "c"]
    assert side_by_side(partial(noted, out=tmp_path), ["alone"], 4) == 5
    assert (tmp_path / "alone").read_text().split()[0] == str(os.getpid())


def test_two_jobs_run_elsewhere_with_their_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "CORES", 6)
    assert side_by_side(partial(noted, out=tmp_path), ["a", "bb", "ccc"], 2) == 6
    for name in ("a", "bb", "ccc"):
        pid, threads = (tmp_path / name).read_text().split()
        assert pid != str(os.getpid()) and int(threads) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_where_some_fail_the_others_end_first_and_each_is_named(tmp_path, count):
    """And of an error of ours, which its message does not explain, the traceback is kept: of the process it was in."""
    broken = {"b": Awkward, "d": KeyError}
    with pytest.raises(Refusal, match=r"(?s)b: b is broken 2 times\nd: 'd is broken'\nTraceback.*in noted"):
        side_by_side(partial(noted, out=tmp_path, broken=broken), ["a", "b", "c", "d"], count)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


def test_an_error_of_ours_is_a_runtime_error(tmp_path):
    with pytest.raises(RuntimeError, match="b is broken"):
        side_by_side(partial(noted, out=tmp_path, broken={"b": KeyError}), ["a", "b"], 1)
