"""A probe in a run folder: probe.safetensors and probe.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from experiments.folder.store import replacing, write_json
from theory.refusal import Refusal
from theory.trees.prefix_tree import Responses, grow
from theory.trees.probe import Probe


def save_probe(out: Path, probe: Probe, stage: str) -> None:
    """probe.safetensors (responses, Gram matrix, tree) and probe.json (what they are)."""
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
        "tree_node": tree.node,
        "tree_probability": tree.probability,
        "tree_path": tree.path,
        "tree_reward": tree.reward,
        "tree_depth": tree.depth,
        "tree_length": tree.length,
        "tree_kernel": tree.kernel,
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
        "meta": probe.meta,
    }
    write_json(out / "probe.json", summary)


def summary_of_kernel(probe: Probe) -> dict[str, float]:
    """kernel_cc, kernel_cw: mean sequence kernels correct-correct and correct-wrong under the base policy."""
    tree = probe.tree()
    kernel, mass = tree.sequence_kernel(), tree.leaf_probability()
    right, wrong = mass * (tree.reward > 0), mass * (tree.reward <= 0)
    right, wrong = right / right.sum(), wrong / max(wrong.sum(), 1e-300)
    return {"kernel_cc": float(right @ kernel @ right), "kernel_cw": float(right @ kernel @ wrong)}


def load_probe(out: Path, stage: str) -> Probe | None:
    """The saved probe, where it is there whole and belongs to this stage; else None."""
    summary = out / "probe.json"
    if not summary.exists() or not (out / "probe.safetensors").exists():
        return None
    data = json.loads(summary.read_text())
    if data["stage"] != stage:
        return None
    a, meta = load_file(out / "probe.safetensors"), data["meta"]
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
    layout = grow(
        responses,
        vocabulary=meta["vocabulary"],
        cut=meta["cut"],
        leaf_cut=meta["leaf_cut"],
        keep=meta["keep"],
    )
    return Probe(
        responses, layout, a["gram"], meta, a.get("scores"), float(a["share"].item()) if "share" in a else 1.0
    )


def read_probe(folder: Path) -> Probe:
    """The probe that a folder holds, whatever run it belongs to. Errors: Refusal where there is none."""
    summary = folder / "probe.json"
    stage = json.loads(summary.read_text())["stage"] if summary.exists() else ""
    probe = load_probe(folder, stage)
    if probe is None:
        raise Refusal(f"folder {folder} holds no probe; make one with: onearm probe --out {folder}")
    return probe
