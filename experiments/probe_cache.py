"""Probes that are measured once on this machine, whichever run folder asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from experiments.probe_store import load_probe, save_probe
from experiments.specs import mark_of
from llm_bridge.cache import build_once
from llm_bridge.cache_folder import left_out
from llm_bridge.warning import CacheWarning
from theory.probe import Probe

SWITCH = "ONEARM_PROBE_CACHE"


def probe_once(stage: str, model: str, measured: Callable[[], Probe]) -> tuple[Probe, bool]:
    """The probe of a stage and a model, and whether it was there: from the cache, or measured and left there.

    The key is all that a probe depends on: query and verifier, adapter, longest response, seed and the probe's own
    settings (`stage`), the model's weights (`model`) and the version of onearm.
    $ONEARM_PROBE_CACHE = off leaves it out.

    Warns: `CacheWarning` where a file is not what it was when it was made, and where the cache cannot be written; the
        probe is measured then.
    """
    if left_out(SWITCH):
        return measured(), False
    key = mark_of({"stage": stage, "model": model, "onearm": metadata.version("onearm")})
    made: list[Probe] = []

    def build(folder: Path) -> None:
        made.append(measured())
        save_probe(folder, made[0], stage)

    try:
        folder = build_once(f"probes/{key}", build)
    except OSError as error:
        warnings.warn(
            f"the probe is not kept for other runs: {error}, or {SWITCH}=off", CacheWarning, stacklevel=3
        )
        return made[0] if made else measured(), False
    found = made[0] if made else load_probe(folder, stage)
    assert found is not None
    return found, not made
