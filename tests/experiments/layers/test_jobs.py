"""Worlds beside one another: each in a process of its own, none lost where another fails."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from experiments.layers.jobs import CORES, side_by_side


def noted(name: str, out: Path, broken: str = "") -> int:
    """Write down who ran it, with how many threads."""
    import torch

    if name == broken:
        raise ValueError(f"{name} is broken")
    time.sleep(0.1 if broken else 0.0)  # so that the broken one is heard of first
    (out / name).write_text(f"{os.getpid()} {torch.get_num_threads()}")
    return len(name)


def test_one_job_runs_here_in_the_order_given(tmp_path):
    order: list[str] = []
    assert side_by_side(lambda name: order.append(name) or 1, ["a", "b", "c"], 1) == 3
    assert order == ["a", "b", "c"]
    assert side_by_side(partial(noted, out=tmp_path), ["alone"], 4) == 5
    assert (tmp_path / "alone").read_text().split()[0] == str(os.getpid())


def test_two_jobs_run_elsewhere_with_their_share_of_the_cores(tmp_path):
    assert side_by_side(partial(noted, out=tmp_path), ["a", "bb", "ccc"], 2) == 6
    for name in ("a", "bb", "ccc"):
        pid, threads = (tmp_path / name).read_text().split()
        assert pid != str(os.getpid()) and int(threads) == max(1, CORES // 2)


def test_where_one_fails_the_others_end_first(tmp_path):
    with pytest.raises(ValueError, match="b is broken"):
        side_by_side(partial(noted, out=tmp_path, broken="b"), ["a", "b", "c"], 2)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}
