"""A joint probe in a folder: a folder of probes/ for each query, and gram.safetensors."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save_file

from experiments.folder import store
from experiments.folder.probe_store import load_probe, save_probe
from theory.trees.joint_probe import JointProbe

GRAM = "gram.safetensors"
"""Written last: where it is, the probe is whole."""


def save_joint(out: Path, joint: JointProbe, stage: str) -> None:
    """A probe of each query, and the inner products of all their scores."""
    for q, probe in enumerate(joint.probes):
        folder = _folder(out, q)
        folder.mkdir(parents=True, exist_ok=True)
        save_probe(folder, probe, stage)
    with store.replacing(out / GRAM) as temporary:
        save_file({"gram": joint.gram}, temporary, {"stage": stage})


def load_joint(out: Path, stage: str, queries: int) -> JointProbe | None:
    """The saved joint probe of so many queries, where it is there whole and belongs to this stage; else None."""
    if (saved := store.load_arrays(out / GRAM, stage)) is None:
        return None
    found = [load_probe(_folder(out, q), stage) for q in range(queries)]
    probes = tuple(probe for probe in found if probe is not None)
    return JointProbe(probes, saved[0]["gram"]) if len(probes) == queries else None


def _folder(out: Path, query: int) -> Path:
    return out / "probes" / f"{query:02d}"
