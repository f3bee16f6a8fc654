"""Probes that are measured once on this machine, whichever run folder asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from experiments.folder.probe_store import load_probe, save_probe
from experiments.specs import mark_of
from llm_bridge.models.cache import build_once
from llm_bridge.models.cache_folder import left_out
from theory.trees.joint_probe import JointProbe
from theory.warning import CacheWarning

SWITCH = "ONEARM_PROBE_CACHE"


def cached_probe(
    stage: str, queries: int, model: str, measured: Callable[[], JointProbe]
) -> tuple[JointProbe, bool]:
    """A probe from this machine's cache, and True; or measured, left there, and False.

    The key in the cache is all that a probe depends on: queries and verifiers, adapter, longest response, seed and the
    probe's own settings (`stage`, the mark of a run's probe), the model's weights and the version of onearm.
    $ONEARM_PROBE_CACHE = off leaves the cache out.

    Arguments:
        queries: how many the probe is of.
        model: fingerprint of the model.
        measured: makes the probe.
    Warns: `CacheWarning` where a file is not what it was when it was made, and where the cache cannot be written; the
        probe is measured then.
    """
    if left_out(SWITCH):
        return measured(), False
    key = mark_of({"stage": stage, "model": model, "onearm": metadata.version("onearm")})
    measuring, made = False, list[JointProbe]()

    def build(folder: Path) -> None:
        nonlocal measuring
        measuring = True
        made.append(measured())
        measuring = False
        save_probe(folder, made[0], stage)

    try:
        folder = build_once(f"probes/{key}", build)
    except OSError as error:
        if measuring:  # no fault of the cache's: a probe of several queries needs room for its scores
            raise
        warnings.warn(
            f"the probe is not kept for other runs: {error}, or {SWITCH}=off", CacheWarning, stacklevel=4
        )
        return made[0] if made else measured(), False
    found = made[0] if made else load_probe(folder, stage, queries)
    assert found is not None
    return found, not made
