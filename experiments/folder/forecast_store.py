"""A forecast in a run folder: forecast.parquet, a row for each engine, set of queries and round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.folder.store import read_noted, replacing
from theory.forecast import QUANTILES, Forecast

FORECAST = "forecast.parquet"


def save_forecast(out: Path, made: Forecast, stage: str) -> None:
    """success: exact mean p before the round. mean, members and quantiles (q05 ...): of the observable, not smoothed.

    The last row of a set is success after the last update, which nobody observes.
    """
    rows: dict[str, list[Any]] = {k: [] for k in ("engine", "set", "round", "success", "mean", "members")}
    levels = {f"q{round(100 * q):02d}": q for q in QUANTILES}
    rows |= {name: [] for name in levels}
    for (engine, name), success in made.success.items():
        members = made.members[engine, name]
        quantiles = np.quantile(members, list(levels.values()), axis=0)
        for i, p in enumerate(success):
            observed = i < members.shape[1]
            rows["engine"].append(engine)
            rows["set"].append(name)
            rows["round"].append(int(made.at[name][i]) + 1)
            rows["success"].append(float(p))
            rows["mean"].append(float(members[:, i].mean()) if observed else None)
            rows["members"].append(members[:, i] if observed else None)
            for level, row in zip(levels, quantiles, strict=True):
                rows[level].append(float(row[i]) if observed else None)
    notes = {"stage": stage, "step": repr(made.step), "seconds": repr(made.seconds)}
    with replacing(out / FORECAST) as temporary:
        pq.write_table(pa.table(rows).replace_schema_metadata(notes), temporary)


def load_forecast(out: Path, stage: str) -> Forecast | None:
    """The saved forecast, where it is there whole and belongs to this stage; else None."""
    found = read_noted(out / FORECAST)
    if found is None or found[1].get("stage") != stage:
        return None
    table, notes = found
    members, success, at = {}, {}, {}
    columns = [table[name].to_pylist() for name in ("engine", "set", "round", "success", "members")]
    rows = list(zip(*columns, strict=True))
    for key in dict.fromkeys((engine, name) for engine, name, *_ in rows):
        own = [row for row in rows if row[:2] == key]
        success[key] = np.array([row[3] for row in own], dtype=np.float64)
        members[key] = np.array([row[4] for row in own if row[4] is not None], dtype=np.float64).T
        at[key[1]] = np.array([row[2] - 1 for row in own], dtype=np.int64)
    return Forecast(members, success, at, float(notes["step"]), float(notes["seconds"]))
