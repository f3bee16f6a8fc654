"""A forecast in a run folder: forecast.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from experiments.folder.store import replacing
from experiments.forecast.forecast import ENGINES, Forecast

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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
