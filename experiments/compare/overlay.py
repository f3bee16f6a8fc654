"""The overlay: a forecast and a run of the same thing, with numbers for how well they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.folder import store
from experiments.folder.forecast_store import QUANTILES
from experiments.folder.observed import Observed
from experiments.folder.run_folder import rounding_of
from experiments.forecast.drift import foretold_drift
from experiments.forecast.forecast import ENGINES, Forecast, predicted_success
from experiments.forecast.relinearise import relinearised
from experiments.run.stages import Run
from experiments.scoring import scores
from experiments.scoring.scores import Interval, smooth
from experiments.scoring.smoothing import default_width
from experiments.specs.run_spec import RunSpec
from figures.overlay import OverlayData, draw_overlay
from figures.style import save_figure
from theory.trees.probe import Probe

Array = NDArray[np.float64]
WINDOWS = 4
"""Equal parts of a run for which the surprise of the outcomes is summed: drift shows late, chance anywhere."""


@dataclass(frozen=True)
class Overlay:
    """The numbers (`overlay.json`) and what the picture shows."""

    numbers: dict[str, Any]
    data: OverlayData


def overlay(run: Run) -> Overlay:
    """Probe, forecast, train, compare; writes overlay.json, overlay.png and overlay.svg into the run folder.

    The forecast is made, and saved, before anything is trained.
    """
    probe = run.probe()
    made = run.forecast()
    compared = compare(run.spec, probe, made, run.observe())
    added = relinearised(run.out, run.spec.stage("forecast"))
    made_overlay = replace(compared, numbers=compared.numbers | added)
    store.write_json(run.out / "overlay.json", made_overlay.numbers)
    draw(made_overlay, run.out)
    return made_overlay


def foretell(run: Run) -> dict[str, Any]:
    """The forecast alone, as numbers: the everyday use. Never trains."""
    probe, made = run.probe(), run.forecast()
    width = default_width(run.spec.rounds)
    members = smooth(made.members["kernel"], width)
    low, high = probe.p0_interval()
    return _finite({
        "query": run.spec.query.prompt,
        "model": run.spec.model.name,
        "p0": probe.p0,
        "p0_low": low,
        "p0_high": high,
        "rounds": run.spec.rounds,
        "replicas": run.spec.replicas,
        "eta": run.spec.rule.optimiser.eta,
        "step": made.step,
        **_times("time_to_double_forecast", scores.crossing_interval(members, 2 * probe.p0)),
        **_times("time_to_half_forecast", scores.crossing_interval(members, 0.5)),
        "success_at_end": float(made.success["kernel"][-1]),
        **_drift(foretold_drift(run)),
        **relinearised(run.out, run.spec.stage("forecast")),
        "seconds_probe": probe.meta["seconds"],
        "seconds_simulate": made.seconds,
        "tokens_probe": probe.meta["tokens"],
        **rounding_of([probe]),
        "forecast_mean": smooth(made.success["kernel"], width).tolist(),
    })  # fmt: skip


def draw(made: Overlay, out: Path) -> None:
    figure = draw_overlay(made.data)
    for suffix in ("png", "svg"):
        with store.replacing(out / f"overlay.{suffix}") as temporary:
            save_figure(figure, temporary)


def compare(spec: RunSpec, probe: Probe, made: Forecast, observed: Observed) -> Overlay:
    """Scores of the forecast against the run.

    Everything is for the same observable: the mean over the S replicas of each round's reward, smoothed by a
    centred moving average of `default_width(rounds)` rounds, in forecast and run alike.
    """
    width = default_width(spec.rounds)
    outcomes = observed.outcomes
    curve = smooth(outcomes.mean(axis=0), width)
    low, high = probe.p0_interval()
    members = made.members["kernel"]
    count, seed = len(members), spec.seed
    ensembles = {name: smooth(values, width) for name, values in made.members.items()}
    ensembles["constant"] = smooth(
        scores.constant_ensemble(
            probe.p0, low, high, spec.replicas * spec.rule.rollouts, spec.rounds, count, seed
        ),
        width,
    )
    ensembles["logistic"] = smooth(scores.logistic_ensemble(outcomes, count, seed), width)
    predicted = predicted_success(probe, spec.rule, observed.tokens, observed.rewards)
    residuals = scores.martingale_residuals(observed.rewards, predicted)
    times: dict[str, Any] = {}
    for name, level in (("double", 2 * probe.p0), ("half", 0.5)):
        foreseen = scores.crossing_interval(ensembles["kernel"], level)
        seen = scores.observed_crossing(outcomes, level, width, seed=seed)
        times |= _times(f"time_to_{name}_forecast", foreseen) | _times(f"time_to_{name}_observed", seen)
        times[f"time_to_{name}_agrees"] = scores.times_agree(foreseen, seen)
    # The mean of the sampled rewards is the mean of p itself, which the simulator knows without noise.
    mean, sequence, tabular = (smooth(made.success[name], width) for name in ENGINES)
    numbers: dict[str, Any] = {
        "query": spec.query.prompt,
        "answer": spec.query.answer,
        "model": spec.model.name,
        "rule": spec.rule.model_dump(mode="json"),
        "spec_hash": spec.stage("overlay"),
        "p0": probe.p0,
        "p0_low": low,
        "p0_high": high,
        "rounds": spec.rounds,
        "replicas": spec.replicas,
        "eta": spec.rule.optimiser.eta,
        "step": made.step,
        "smoothing": f"centred moving average over {width} rounds, window truncated at both ends",
        "smoothing_width": width,
        **times,
        "coverage_50": scores.coverage(ensembles["kernel"], curve, 0.5),
        "coverage_90": scores.coverage(ensembles["kernel"], curve, 0.9),
        **{f"crps_{name}": scores.crps(values, curve) for name, values in ensembles.items()},
        "residual_mean": residuals.mean,
        "residual_mean_error": residuals.mean_error,
        "residual_variance": residuals.variance,
        "residual_variance_error": residuals.variance_error,
        "residual_z": scores.window_z(residuals.z, 1)[0],
        "residual_z_windows": scores.window_z(residuals.z, WINDOWS),
        "unparsable": observed.unparsable,
        "seconds_probe": probe.meta["seconds"],
        "seconds_simulate": made.seconds,
        "seconds_train": observed.seconds,
        "tokens_probe": probe.meta["tokens"],
        **rounding_of([probe]),
        "tokens_train": observed.token_count,
        "observed_mean": curve.tolist(),
        "forecast_mean": mean.tolist(),
        "forecast_tabular_mean": tabular.tolist(),
        "forecast_sequence_kernel_mean": sequence.tolist(),
    }
    replica_low, replica_high = scores.replica_spread(outcomes, width)
    data = OverlayData(
        title=spec.query.prompt,
        model=spec.model.name,
        replicas=spec.replicas,
        eta=spec.rule.optimiser.eta,
        p0=probe.p0,
        p0_low=low,
        p0_high=high,
        observed=curve,
        kernel_mean=mean,
        kernel_quantiles=np.quantile(ensembles["kernel"], QUANTILES, axis=0),
        sequence_mean=sequence,
        tabular_mean=tabular,
        replica_low=replica_low,
        replica_high=replica_high,
    )
    return Overlay(_finite(numbers), data)


def pooled(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One z for several overlays: whether the forecasts err together, over the whole run and in each window.

    Each run's z is of its outcomes against replay of its own draws, so runs are independent, and under right
    forecasts a pooled z is standard normal.
    Arguments: rows with `residual_z` and `residual_z_windows`, as `compare` writes them; others are left out.
    """
    counted = [row for row in rows if "residual_z" in row]
    if not counted:
        return {"overlays": 0}
    windows = np.array([row["residual_z_windows"] for row in counted])
    return {
        "overlays": len(counted),
        "residual_z": scores.pooled_z([row["residual_z"] for row in counted]),
        "residual_z_windows": [scores.pooled_z(column) for column in windows.T],
    }


def _drift(looks: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Network less linearisation, as a share of the foretold rise, half-way and at the end."""
    shares = [None, None] if looks is None else [look["drift_of_rise"] for look in (looks[0], looks[-1])]
    return {"drift_of_rise_half": shares[0], "drift_of_rise_end": shares[1]}


def _times(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinity are not JSON: null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
