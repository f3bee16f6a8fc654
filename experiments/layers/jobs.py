"""Worlds beside one another: a process for each, which has its share of the cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread

CORES = os.cpu_count() or 1


def side_by_side(run_world: Callable[[str], int], worlds: Sequence[str], jobs: int) -> int:
    """Run every world, at most `jobs` at once; returns the sum of what `run_world`, which can be pickled, returns.

    The last ones begin first: models, which take longest. Where one fails the others run to their end before its error
    is raised, so that nothing is lost. With one job, or one world, they run here.
    """
    if min(jobs, len(worlds)) < 2:
        return sum(map(run_world, worlds))
    # Forking a process in which JAX or torch has started threads can hang.
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(max(1, CORES // jobs),)
    )
    with pool:
        running = [pool.submit(run_world, name) for name in reversed(worlds)]
        try:
            return sum(done.result() for done in as_completed(running))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(threads: int) -> None:
    """Take a share of the cores: products of two processes that each take all get in one another's way. And end with
    the process that began this one: the same call again would run the same cells."""
    import torch

    torch.set_num_threads(threads)
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
