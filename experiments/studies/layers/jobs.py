"""Worlds beside one another: a process for each, and none is lost where another fails."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import NamedTuple

from theory.refusal import Refusal

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PLAIN: tuple[type[Exception], ...] = (Refusal, ImportError, OSError, MemoryError)
"""Errors whose message says all; of others the traceback is shown too."""


class Failure(NamedTuple):
    """Why a world ended early, in types that can be pickled: not every exception can."""

    kind: type[Exception]
    message: str


def side_by_side(run_world: Callable[[str], int], worlds: Sequence[str], jobs: int) -> int:
    """Run every world, at most `jobs` at once; returns the sum of what `run_world`, which can be pickled, returns.

    The last ones begin first: models, which take longest. With one job, or one world, they run here, in their order.

    Errors: where worlds fail the others run to their end, and then one error names each of them: the first one's kind.
    """
    count = min(jobs, len(worlds))
    if count < 2:
        ended = {name: _tried(run_world, name) for name in worlds}
    else:
        # Forking a process in which JAX or torch has started threads can hang.
        pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_begin, initargs=(max(1, CORES // count),)
        )
        with pool:
            running = {name: pool.submit(_tried, run_world, name) for name in reversed(worlds)}
            try:
                ended = {name: running[name].result() for name in worlds}
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    failed = {name: what for name, what in ended.items() if isinstance(what, Failure)}
    if failed:
        kind = next(iter(failed.values())).kind
        raise kind("\n".join(f"{name}: {what.message}" for name, what in failed.items()))
    return sum(what for what in ended.values() if not isinstance(what, Failure))


def _tried(run_world: Callable[[str], int], name: str) -> int | Failure:
    try:
        return run_world(name)
    except Exception as error:
        for kind in PLAIN:
            if isinstance(error, kind):
                return Failure(kind, str(error))
        return Failure(RuntimeError, f"{error}\n{traceback.format_exc()}")


def _begin(threads: int) -> None:
    """Take a share of the cores for torch, whose products get in one another's way where two processes each take all.
    And end with the process that began this one: the same call again would run the same cells."""
    import torch

    torch.set_num_threads(threads)
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
