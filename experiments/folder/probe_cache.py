"""Probes that are measured once on this machine, whichever run folder asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from experiments.folder.run_folder import TrainingFolder
from experiments.specs.run_spec import mark_of
from llm_bridge.models.cache import build_once
from llm_bridge.models.cache_folder import left_out
from theory.trees.joint_probe import JointProbe
from theory.trees.probe import Probe
from theory.warning import CacheWarning

P = TypeVar("P", Probe, JointProbe)
SWITCH = "ONEARM_PROBE_CACHE"


def probe_of(
    run: TrainingFolder,
    mark: str,
    measured: Callable[[], P],
    save: Callable[[Path, P, str], None],
    load: Callable[[Path, str], P | None],
) -> P:
    """The probe of a run: from its folder, from this machine's cache, or measured; saved in the folder.

    The key in the cache is all that a probe depends on: queries and verifiers, adapter, longest response, seed and the
    probe's own settings (`mark`), the model's weights and the version of onearm.
    $ONEARM_PROBE_CACHE = off leaves the cache out.

    Arguments:
        mark: the probe stage of the run's spec, or of another that measures the very same.
        save, load: write a probe of a stage to a folder; read it, None where it is not there.
    Warns: `CacheWarning` where a file is not what it was when it was made, and where the cache cannot be written; the
        probe is measured then.
    """
    stage = run.spec.stage("probe")
    if (found := load(run.out, stage)) is not None:
        return found
    probe, kept = _kept_or_measured(mark, run.language_model.fingerprint, measured, save, load)
    if kept:
        run.progress("kept probe", 1, 1)
    save(run.out, probe, stage)
    return probe


def _kept_or_measured(
    mark: str,
    model: str,
    measured: Callable[[], P],
    save: Callable[[Path, P, str], None],
    load: Callable[[Path, str], P | None],
) -> tuple[P, bool]:
    """The probe, and whether the cache had it; else it is measured and left there."""
    if left_out(SWITCH):
        return measured(), False
    key = mark_of({"stage": mark, "model": model, "onearm": metadata.version("onearm")})
    measuring, made = False, list[P]()

    def build(folder: Path) -> None:
        nonlocal measuring
        measuring = True
        made.append(measured())
        measuring = False
        save(folder, made[0], mark)

    try:
        folder = build_once(f"probes/{key}", build)
    except OSError as error:
        if measuring:  # no fault of the cache's: a joint probe needs room for its scores
            raise
        warnings.warn(
            f"the probe is not kept for other runs: {error}, or {SWITCH}=off", CacheWarning, stacklevel=4
        )
        return made[0] if made else measured(), False
    found = made[0] if made else load(folder, mark)
    assert found is not None
    return found, not made
