"""Probes in a folder. One query's is the folder itself; several have a folder each, and gram.safetensors across them.

one query       probe.json, probe.safetensors
several         probes/00/probe.json, probes/00/probe.safetensors, probes/01/..., gram.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from experiments.folder.store import load_arrays, replacing, write_json
from theory.refusal import Refusal
from theory.trees.joint_probe import JointProbe
from theory.trees.prefix_tree import Responses, grow
from theory.trees.probe import Probe
from theory.trees.probe_record import ProbeRecord

GRAM = "gram.safetensors"
"""Of several queries, written last: where it is, the probe is whole."""


def folder_of(out: Path, query: int, queries: int) -> Path:
    """The folder of this query's probe.json."""
    return out if queries == 1 else out / "probes" / f"{query:02d}"


def save_probe(out: Path, joint: JointProbe, stage: str) -> None:
    """Every query's probe, and of several the inner products of all their scores."""
    count = len(joint.probes)
    for q, probe in enumerate(joint.probes):
        folder = folder_of(out, q, count)
        folder.mkdir(parents=True, exist_ok=True)
        save_one(folder, probe, stage)
    if count > 1:
        with replacing(out / GRAM) as temporary:
            save_file({"gram": joint.gram}, temporary, {"stage": stage})


def load_probe(out: Path, stage: str, queries: int) -> JointProbe | None:
    """The saved probe of so many queries, where it is there whole and belongs to this stage; else None."""
    if queries == 1:
        alone = load_one(out, stage)
        return None if alone is None else JointProbe((alone,), alone.gram)
    if (saved := load_arrays(out / GRAM, stage)) is None:
        return None
    found = [load_one(folder_of(out, q, queries), stage) for q in range(queries)]
    probes = tuple(probe for probe in found if probe is not None)
    return JointProbe(probes, saved[0]["gram"]) if len(probes) == queries else None


def save_one(out: Path, probe: Probe, stage: str) -> None:
    """probe.safetensors (responses, Gram matrix, scores where they are kept) and probe.json (what they are)."""
    r, tree = probe.responses, probe.tree()
    lengths = np.array([len(t) for t in r.tokens])
    arrays: dict[str, NDArray[Any]] = {
        "response_length": lengths,
        "response_tokens": np.concatenate([np.array(t) for t in r.tokens]),
        "response_logprobs": np.concatenate([np.array(t) for t in r.logprobs]),
        "response_counts": r.counts,
        "response_rewards": r.rewards,
        "response_ended": r.ended,
        "gram": probe.gram,
    }
    if probe.scores is not None:
        arrays["scores"], arrays["share"] = probe.scores, np.array(probe.share)
    with replacing(out / "probe.safetensors") as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary, {"stage": stage})
    low, high = probe.p0_interval()
    summary = {
        "stage": stage,
        "p0": probe.p0,
        "p0_low": low,
        "p0_high": high,
        "found": probe.found,
        "missing": probe.missing,
        "distinct_responses": len(r.tokens),
        "distinct_correct": int(np.sum(r.rewards > 0)),
        "edges": len(tree.node),
        "leaves": len(tree.reward),
        "tails": len(probe.layout.tails),
        **summary_of_kernel(probe),
        "meta": probe.meta.to_json(),
    }
    write_json(out / "probe.json", summary)


def summary_of_kernel(probe: Probe) -> dict[str, float]:
    """kernel_cc, kernel_cw: mean sequence kernels correct-correct and correct-wrong under the base policy."""
    tree = probe.tree()
    kernel, mass = tree.sequence_kernel(), tree.leaf_probability()
    right, wrong = mass * (tree.reward > 0), mass * (tree.reward <= 0)
    right, wrong = right / right.sum(), wrong / max(wrong.sum(), 1e-300)
    return {"kernel_cc": float(right @ kernel @ right), "kernel_cw": float(right @ kernel @ wrong)}


def load_one(out: Path, stage: str) -> Probe | None:
    """The probe of one query, where it is there whole and belongs to this stage; else None."""
    summary = out / "probe.json"
    if not summary.exists() or not (out / "probe.safetensors").exists():
        return None
    data = json.loads(summary.read_text())
    if data["stage"] != stage:
        return None
    a, meta = load_file(out / "probe.safetensors"), ProbeRecord.from_json(data["meta"])
    ends = np.cumsum(a["response_length"])[:-1]

    def rows(name: str, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
        return tuple(tuple(kind(x) for x in part) for part in np.split(a[name], ends))

    responses = Responses(
        rows("response_tokens", int),
        rows("response_logprobs", float),
        a["response_counts"],
        a["response_rewards"],
        a["response_ended"],
    )
    layout = grow(responses, vocabulary=meta.vocabulary, cut=meta.cut, leaf_cut=meta.leaf_cut, keep=meta.keep)
    return Probe(
        responses, layout, a["gram"], meta, a.get("scores"), float(a["share"].item()) if "share" in a else 1.0
    )


def read_probe(folder: Path) -> Probe:
    """The probe of one query that a folder holds, whatever run it belongs to. Errors: Refusal where there is none."""
    summary = folder / "probe.json"
    stage = json.loads(summary.read_text())["stage"] if summary.exists() else ""
    probe = load_one(folder, stage)
    if probe is None:
        raise Refusal(f"folder {folder} holds no probe; make one with: onearm probe --out {folder}")
    return probe
