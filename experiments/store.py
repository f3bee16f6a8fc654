"""The run folder: every file is written under a temporary name and renamed, and carries its stage's hash."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from experiments.forecast import ENGINES, Forecast
from experiments.specs import FileSpec
from theory.prefix_tree import Responses, Tokens, grow
from theory.probe import Probe

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well: no half-written file is ever read."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def open_folder(out: Path, spec: FileSpec) -> None:
    """Make `out` the folder of `spec`, or find that it already is.

    Errors: ValueError where the folder cannot be written, or holds another spec (fields named): results are
    never overwritten by a different run.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(
            f"--out {out} cannot be written ({error.strerror}); choose a folder you may write to"
        ) from error
    path = out / "spec.toml"
    if path.exists():
        changed = type(spec).read(path).differences(spec)
        if changed:
            raise ValueError(
                f"--out {out} holds another run ({'; '.join(changed[:5])}); "
                "give another folder, or delete this one to start anew"
            )
        return
    with replacing(path) as temporary:
        spec.write(temporary)


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
    return Probe(responses, layout, a["gram"], meta, a.get("scores"), float(a.get("share", 1.0)))


def read_probe(folder: Path) -> Probe:
    """The probe that a folder holds, whatever run it belongs to. Errors: ValueError where there is none."""
    summary = folder / "probe.json"
    stage = json.loads(summary.read_text())["stage"] if summary.exists() else ""
    probe = load_probe(folder, stage)
    if probe is None:
        raise ValueError(f"folder {folder} holds no probe; make one with: onearm probe --out {folder}")
    return probe


def save_forecast(out: Path, forecast: Forecast, p0: float, stage: str) -> None:
    """forecast.parquet: one row per round and engine; quantiles and members are of the unsmoothed observable."""
    rows: dict[str, list[Any]] = {k: [] for k in ("engine", "round", "success", "mean", "members")}
    for q in QUANTILES:
        rows[f"q{round(100 * q):02d}"] = []
    for name in ENGINES:
        members = forecast.members[name]
        levels = np.quantile(members, QUANTILES, axis=0)
        for t in range(members.shape[1]):
            rows["engine"].append(name)
            rows["round"].append(t + 1)
            rows["success"].append(float(forecast.success[name][t]))
            rows["mean"].append(float(members[:, t].mean()))
            rows["members"].append(members[:, t].astype(np.float32))
            for i, q in enumerate(QUANTILES):
                rows[f"q{round(100 * q):02d}"].append(float(levels[i, t]))
    notes = {"stage": stage, "p0": repr(p0), "step": repr(forecast.step), "seconds": repr(forecast.seconds)}
    with replacing(out / "forecast.parquet") as temporary:
        pq.write_table(pa.table(rows).replace_schema_metadata(notes), temporary)


def load_forecast(out: Path, stage: str) -> Forecast | None:
    path = out / "forecast.parquet"
    if not path.exists():
        return None
    table = pq.read_table(path)
    notes = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    if notes.get("stage") != stage:
        return None
    engine = np.array(table["engine"].to_pylist())
    members: dict[str, NDArray[np.float64]] = {}
    success: dict[str, NDArray[np.float64]] = {}
    every = table["members"].to_pylist()
    for name in ENGINES:
        at = np.flatnonzero(engine == name)
        members[name] = np.array([every[i] for i in at], dtype=np.float64).T
        success[name] = np.array(table["success"].to_pylist(), dtype=np.float64)[at]
    return Forecast(members, success, float(notes["step"]), float(notes["seconds"]))


@dataclass(frozen=True)
class Observed:
    """A run: rewards (S, T, n), the responses behind them with their log probabilities (S, T, n) when they
    were sampled, how many were unparsable, and its cost."""

    rewards: NDArray[np.float64]
    logprobs: NDArray[np.float64]
    tokens: list[list[list[Tokens]]]
    unparsable: int
    seconds: float

    @property
    def outcomes(self) -> NDArray[np.float64]:
        """(S, T) mean reward of the round's rollouts."""
        return self.rewards.mean(axis=2)

    @property
    def token_count(self) -> int:
        return sum(len(t) for run in self.tokens for turn in run for t in turn)

    def first(self, replicas: int) -> Observed:
        """The run of the first so many replicas; counts and cost stay those of the whole."""
        return replace(
            self,
            rewards=self.rewards[:replicas],
            logprobs=self.logprobs[:replicas],
            tokens=self.tokens[:replicas],
        )


def load_arrays(path: Path, stage: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]] | None:
    """Arrays and notes of a safetensors file of this stage; None where there is none."""
    if not path.exists():
        return None
    with safe_open(path, "numpy") as file:
        notes = file.metadata() or {}
        if notes.get("stage") != stage:
            return None
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118


COLUMNS = pa.schema([
    ("replica", pa.int32()),
    ("round", pa.int32()),
    ("query", pa.int32()),
    ("rollout", pa.int32()),
    ("tokens", pa.list_(pa.int32())),
    ("text", pa.string()),
    ("outcome", pa.float64()),
    ("reward", pa.float64()),
    ("logprob", pa.float64()),
])  # fmt: skip


def write_observed(path: Path, rows: Sequence[dict[str, Any]], notes: dict[str, str]) -> None:
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), COLUMNS).replace_schema_metadata(notes), temporary)


def read_rows(path: Path, stage: str) -> tuple[list[dict[str, Any]], dict[str, str]] | None:
    """Rows and notes of an observed file of this stage, else None; one that is half-written is not there."""
    found = read_noted(path)
    if found is None or found[1].get("stage") != stage:
        return None
    return found[0].to_pylist(), found[1]


def read_noted(path: Path) -> tuple[pa.Table, dict[str, str]] | None:
    """A Parquet file's table and notes, else None; one that is half-written is not there."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid:
        return None
    return table, {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}


def load_observed(out: Path, stage: str) -> Observed | None:
    found = read_rows(out / "observed.parquet", stage)
    if found is None:
        return None
    rows, notes = found
    shape = tuple(1 + max(row[k] for row in rows) for k in ("replica", "round", "rollout"))
    shape = (shape[0], shape[1] - 1, shape[2])
    rewards, logprobs = np.zeros(shape), np.zeros(shape)
    tokens: list[list[list[Tokens]]] = [[[()] * shape[2] for _ in range(shape[1])] for _ in range(shape[0])]
    for row in rows:
        s, t, i = row["replica"], row["round"] - 1, row["rollout"]
        rewards[s, t, i], logprobs[s, t, i] = row["reward"], row["logprob"]
        tokens[s][t][i] = tuple(row["tokens"])
    return Observed(
        rewards, logprobs, tokens, sum(row["outcome"] is None for row in rows), float(notes["seconds"])
    )
