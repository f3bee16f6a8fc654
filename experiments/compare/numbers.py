"""What each stage of a run comes to, as numbers: what commands print and write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.folder.probe_store import folder_of
from experiments.forecast.coarse import rounding_of
from experiments.forecast.correction import relinearised_numbers
from experiments.run.run import Run
from experiments.scoring import scores
from experiments.scoring.scores import Interval, smooth
from experiments.scoring.smoothing import default_width
from experiments.specs import RunSpec
from theory.forecast import SETS
from theory.trees.joint_probe import JointProbe

WINDOWS = 4
"""Equal parts of a run for which the surprise of the outcomes is summed: drift shows late, chance anywhere."""
PREFIX = {"training": "", "held_out": "held_out_"}
"""What stands before the numbers of a set of queries: those trained on are the run's own."""


def probe_numbers(run: Run) -> dict[str, Any]:
    """The bandit measured on the base model, as probe.json has it; of several queries, a row for each."""
    joint, spec = run.probe(), run.spec
    count = len(joint.probes)
    rows = [
        {"query": query.prompt} | json.loads((folder_of(run.out, q, count) / "probe.json").read_text())
        for q, query in enumerate(spec.asked)
    ]
    return rows[0] if count == 1 else of_spec(spec) | of_sets(spec, joint) | {"probes": rows}


def forecast_numbers(run: Run) -> dict[str, Any]:
    """The forecast alone: the everyday use. Never trains."""
    made, joint, spec = run.forecast(), run.probe(), run.spec
    numbers = of_spec(spec) | of_sets(spec, joint) | {"step": made.step}
    for name in made.sets:
        width = width_of(spec, name)
        members = smooth(made.members["kernel", name], width)
        p0 = mean_p0(spec, joint, name)[0]
        prefix = PREFIX[name]
        numbers |= {
            **times(f"{prefix}time_to_double_forecast", scores.crossing_interval(members, 2 * p0)),
            **times(f"{prefix}time_to_half_forecast", scores.crossing_interval(members, 0.5)),
            # As the last round is drawn: before its update.
            f"{prefix}success_at_end": float(made.success["kernel", name][-2]),
        }
    numbers |= drift_shares(run.drift())
    numbers |= (
        relinearised_numbers(run.out, spec.stage("forecast"))
        | costs(joint)
        | {"seconds_simulate": made.seconds}
    )
    for name in made.sets:
        curve = made.success["kernel", name][:-1]
        numbers[f"{PREFIX[name]}forecast_mean"] = smooth(curve, width_of(spec, name)).tolist()
    return finite(numbers)


def train_numbers(run: Run) -> dict[str, Any]:
    """The run itself."""
    observed, spec = run.train(), run.spec
    tenth = max(1, spec.rounds // 10)
    success = observed.success("training")
    numbers = of_spec(spec) | {
        "success_first_tenth": float(success[:, :tenth].mean()),
        "success_last_tenth": float(success[:, -tenth:].mean()),
    }
    if spec.held_out is not None:
        numbers["held_out_success_first"], numbers["held_out_success_last"] = (
            float(x) for x in observed.success("held_out").mean(axis=0)[[0, -1]]
        )
    return numbers | {
        "unparsable": observed.unparsable,
        "seconds_train": observed.seconds,
        "tokens_train": observed.token_count,
    }


def title_of(spec: RunSpec) -> str:
    """The query, or how many there are."""
    if len(spec.asked) == 1:
        return spec.queries[0].prompt
    apart = f"; {len(spec.apart)} held out" if spec.apart else ""
    return f"{len(spec.queries)} queries, {spec.batch} per round{apart}"


def of_spec(spec: RunSpec) -> dict[str, Any]:
    """What is run."""
    several = {
        "queries": [query.prompt for query in spec.queries],
        "held_out": [query.prompt for query in spec.apart],
        "batch": spec.batch,
    }
    single = {"answer": spec.queries[0].answer}
    return {
        "query": title_of(spec),
        **(single if len(spec.asked) == 1 else several),
        "model": spec.model.name,
        "rule": spec.rule.model_dump(mode="json"),
        "pay": spec.pay.model_dump(mode="json"),
        "spec_hash": spec.stage("overlay"),
        "rounds": spec.rounds,
        "replicas": spec.replicas,
        "eta": spec.rule.optimiser.eta,
    }


def of_sets(spec: RunSpec, joint: JointProbe) -> dict[str, Any]:
    """Base success of each set of queries, with its 95% interval; of several queries each one's too."""
    numbers: dict[str, Any] = {}
    for name in SETS if spec.held_out else SETS[:1]:
        p0, low, high = mean_p0(spec, joint, name)
        prefix = PREFIX[name]
        numbers |= {f"{prefix}p0": p0, f"{prefix}p0_low": low, f"{prefix}p0_high": high}
    if len(joint.probes) > 1:
        numbers["p0_of_each"] = [probe.p0 for probe in joint.probes]
    return numbers


def mean_p0(spec: RunSpec, joint: JointProbe, name: str) -> tuple[float, float, float]:
    """Mean of a set's p0 with its 95% interval; probes of different queries are independent."""
    first = len(spec.queries)
    probes = joint.probes[:first] if name == "training" else joint.probes[first:]
    p0 = np.array([probe.p0 for probe in probes])
    low, high = np.array([probe.p0_interval() for probe in probes]).T
    if len(p0) == 1:
        return float(p0[0]), float(low[0]), float(high[0])
    down, up = (float(np.sqrt(((side - p0) ** 2).sum()) / len(p0)) for side in (low, high))
    mean = float(p0.mean())
    return mean, max(mean - down, 0.0), min(mean + up, 1.0)


def width_of(spec: RunSpec, name: str) -> int:
    """Rounds over which a set's curves are smoothed; looks at held-out queries are not."""
    return default_width(spec.rounds) if name == "training" else 1


def costs(joint: JointProbe) -> dict[str, Any]:
    """What the probe took, and how coarse the model's numbers are."""
    records = [probe.meta for probe in joint.probes]
    return {
        "seconds_probe": sum(record.seconds for record in records),
        "tokens_probe": sum(record.tokens for record in records),
        **rounding_of(joint),
    }


def drift_shares(looks: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Network less linearisation, as a share of the rise that is forecast, half-way and at the end."""
    shares = [None, None] if looks is None else [look["drift_of_rise"] for look in (looks[0], looks[-1])]
    return {"drift_of_rise_half": shares[0], "drift_of_rise_end": shares[1]}


def times(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One z for several overlays: whether the forecasts err together, over the whole run and in each window.

    Each run's z is of its outcomes against replay of its own draws, so runs are independent, and under right
    forecasts a pooled z is standard normal.
    Arguments: rows with `residual_z` and `residual_z_windows`, as `overlay` writes them; others are left out.
    """
    counted = [row for row in rows if row.get("residual_z") is not None]
    if not counted:
        return {"overlays": 0}
    windows = np.array([row["residual_z_windows"] for row in counted])
    return {
        "overlays": len(counted),
        "residual_z": scores.pooled_z([row["residual_z"] for row in counted]),
        "residual_z_windows": [scores.pooled_z(column) for column in windows.T],
    }


def finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinity are not JSON: null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
