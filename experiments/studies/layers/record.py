"""What a variant was predicted to do, and what it did: both written once, with a time stamp and the spec's hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from experiments.folder import store
from experiments.specs import mark_of
from theory.refusal import Refusal
from theory.rules.spec import Spec

Array = NDArray[np.float64]
PREDICTION, RESULT, END = "prediction.json", "result.parquet", "end.parquet"


FORMER = {"pay": "verifier"}
"""Fields by the names they had when records were first written, under which they still enter a hash."""


def hash_of(spec: Spec) -> str:
    """12 hex digits that change with any field of a spec."""
    return mark_of({FORMER.get(name, name): value for name, value in spec.model_dump(mode="json").items()})


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Prediction:
    """Success as forecast before the run.

    Arguments:
        spec: hash of what it is about.
        by: the theory that made it.
        reason: why there is no curve, where there is none.
        at: (T,) rounds of the curves.
        success: (T,) mean success; None where `reason` says why.
        low, high: (T,) 5 and 95% of the mean over the run's replicas; None for a mean field, which has no spread.
        held_out: (T,) mean success of the held-out queries, where there are some.
        without_sharing: (T,) the same theory for responses that share nothing.
        ends: of "training" (`success`) and "held_out", where the curve is smoothed or ends before the last update:
            mean success of the base model and after the last update.
        made: time stamp.
    """

    spec: str
    by: str
    reason: str | None = None
    at: list[int] | None = None
    success: list[float] | None = None
    low: list[float] | None = None
    high: list[float] | None = None
    held_out: list[float] | None = None
    without_sharing: list[float] | None = None
    ends: dict[str, list[float]] | None = None
    made: str = ""


@dataclass(frozen=True)
class End:
    """Success of the trained replicas, measured after the run; `base` is the base model's by the same draws.

    Arguments:
        success, base: (S,) mean over the queries trained on.
        held_out, held_out_base: (S,) mean over those held out, or None.
        result: hash of the file of the run that it is about.
        seconds: it took.
    """

    success: Array
    base: Array
    held_out: Array | None
    held_out_base: Array | None
    result: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """A run, seed by seed.

    Arguments:
        spec: hash of what was run.
        at: (T,) rounds of the columns: updates before them.
        success: (S, T) success; exact, or the mean outcome of the round's rollouts.
        held_out: (S, T) success of the held-out queries, or None.
        p0: base success.
        rollouts: outcomes behind a cell of `success`; 0 where it is exact.
        prediction: hash of the prediction's file when the run began.
        started, made: time stamps.
        seconds: it took.
        end: success after the last update, where the curves are sampled.
    """

    spec: str
    at: NDArray[np.integer]
    success: Array
    held_out: Array | None
    p0: float
    rollouts: int
    prediction: str
    started: str
    made: str
    seconds: float
    end: End | None = None


def write_prediction(folder: Path, made: Prediction) -> None:
    """Write it once. Errors: Refusal where a prediction of this spec is there: it is never changed after."""
    if read_prediction(folder, made.spec) is not None:
        raise Refusal(f"{folder / PREDICTION} is there already; a prediction is written once, before its run")
    folder.mkdir(parents=True, exist_ok=True)
    store.write_json(folder / PREDICTION, {**made.__dict__, "made": now()})


def read_prediction(folder: Path, spec: str) -> Prediction | None:
    """The prediction of this spec in a folder, or None."""
    path = folder / PREDICTION
    if not path.exists():
        return None
    found = Prediction(**json.loads(path.read_text()))
    return found if found.spec == spec else None


def fingerprint(folder: Path, name: str = PREDICTION) -> str:
    """12 hex digits of a file, which what is made after it carries: a later change of it would show."""
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12]


def write_result(folder: Path, result: Result) -> None:
    columns: dict[str, Any] = {"seed": list(range(len(result.success))), "success": list(result.success)}
    if result.held_out is not None:
        columns["held_out"] = list(result.held_out)
    notes = {
        "at": json.dumps([int(t) for t in result.at]),
        **{
            name: repr(getattr(result, name))
            if name in ("p0", "rollouts", "seconds")
            else getattr(result, name)
            for name in ("spec", "p0", "rollouts", "prediction", "started", "made", "seconds")
        },
    }
    _write(folder / RESULT, columns, notes)


def write_end(folder: Path, end: End) -> None:
    columns = {
        name: getattr(end, name)
        for name in ("success", "base", "held_out", "held_out_base")
        if getattr(end, name) is not None
    }
    _write(folder / END, columns, {"result": end.result, "seconds": repr(end.seconds)})


def _write(path: Path, columns: dict[str, Any], notes: dict[str, str]) -> None:
    with store.replacing(path) as temporary:
        table = pa.table(columns).replace_schema_metadata(notes)
        # Numbers of single precision in columns of double: split by bytes, the empty half costs nothing.
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False, use_byte_stream_split=True)


def read_result(folder: Path, spec: str) -> Result | None:
    """The result of this spec in a folder, whole, or None; with its end, where that was measured."""
    found = store.read_noted(folder / RESULT)
    if found is None or found[1].get("spec") != spec:
        return None
    table, notes = found
    success = _column(table, "success")
    assert success is not None
    return Result(
        spec, np.array(json.loads(notes["at"])), success, _column(table, "held_out"), float(notes["p0"]),
        int(notes["rollouts"]), notes["prediction"], notes["started"], notes["made"], float(notes["seconds"]),
        _read_end(folder),
    )  # fmt: skip


def _read_end(folder: Path) -> End | None:
    """The end of the run that is in the folder, whole, or None."""
    found = store.read_noted(folder / END)
    if found is None or found[1].get("result") != fingerprint(folder, RESULT):
        return None
    table, notes = found
    success, base = _column(table, "success"), _column(table, "base")
    assert success is not None and base is not None
    held_out = _column(table, "held_out"), _column(table, "held_out_base")
    return End(success, base, *held_out, notes["result"], float(notes["seconds"]))


def _column(table: pa.Table, name: str) -> Array | None:
    return np.array(table[name].to_pylist(), dtype=np.float64) if name in table.column_names else None
