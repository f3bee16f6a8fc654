"""The overlay: a forecast and a run of the same thing, with numbers for how well they agree, and the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.compare.numbers import (
    PREFIX,
    WINDOWS,
    costs,
    finite,
    mean_p0,
    of_sets,
    of_spec,
    times,
    title_of,
    width_of,
)
from experiments.folder import store
from experiments.folder.observed import Observed
from experiments.forecast.bandits import predicted
from experiments.forecast.correction import relinearised_numbers
from experiments.run.run import Run
from experiments.scoring import scores
from experiments.scoring.scores import smooth
from experiments.specs import RunSpec
from figures.overlay import OverlayData, Panel, draw_overlay
from figures.style import save_figure
from theory.forecast import QUANTILES, Forecast
from theory.trees.joint_probe import JointProbe

TITLES = {"training": "trained on", "held_out": "held out"}


@dataclass(frozen=True)
class Overlay:
    """The numbers (`overlay.json`) and what the picture shows."""

    numbers: dict[str, Any]
    data: OverlayData


def overlay(run: Run) -> Overlay:
    """Probe, forecast, train, compare; writes overlay.json, overlay.png and overlay.svg into the run folder.

    The forecast is made, and saved, before anything is trained.
    """
    made, joint = run.forecast(), run.probe()
    compared = compare(run.spec, joint, made, run.train())
    added = relinearised_numbers(run.out, run.spec.stage("forecast"))
    whole = Overlay(compared.numbers | added, compared.data)
    store.write_json(run.out / "overlay.json", whole.numbers)
    draw(whole, run.out)
    return whole


def overlay_numbers(run: Run) -> dict[str, Any]:
    """The numbers of `overlay`."""
    return overlay(run).numbers


def draw(made: Overlay, out: Path) -> None:
    figure = draw_overlay(made.data)
    for suffix in ("png", "svg"):
        with store.replacing(out / f"overlay.{suffix}") as temporary:
            save_figure(figure, temporary)


def compare(spec: RunSpec, joint: JointProbe, made: Forecast, observed: Observed) -> Overlay:
    """Scores of the forecast against the run, for the queries trained on and for those held out.

    Everything is for the same observable, in forecast and run alike: the mean over the S replicas of each round's
    outcomes, smoothed by a centred moving average of `default_width(rounds)` rounds; of held-out queries, the mean of
    all rollouts at one look, not smoothed.
    """
    width = width_of(spec, "training")
    numbers: dict[str, Any] = (
        of_spec(spec)
        | of_sets(spec, joint)
        | {
            "step": made.step,
            "smoothing": f"centred moving average over {width} rounds, window truncated at both ends",
            "smoothing_width": width,
        }
    )
    panels: list[Panel] = []
    for name in made.sets:
        found, panel = _of_set(spec, joint, made, observed, name)
        numbers |= found
        panels.append(panel)
    numbers |= residuals(spec, joint, observed) | {
        "unparsable": observed.unparsable,
        **costs(joint),
        "seconds_simulate": made.seconds,
        "seconds_train": observed.seconds,
        "tokens_train": observed.token_count,
    }
    data = OverlayData(title_of(spec), spec.model.name, spec.replicas, spec.rule.optimiser.eta, panels)
    return Overlay(finite(numbers), data)


def _of_set(
    spec: RunSpec, joint: JointProbe, made: Forecast, observed: Observed, name: str
) -> tuple[dict[str, Any], Panel]:
    """The scores of one set of queries, and its panel."""
    prefix, width, seed = PREFIX[name], width_of(spec, name), spec.seed
    outcomes = observed.success(name)
    curve = smooth(outcomes.mean(axis=0), width)
    p0, low, high = mean_p0(spec, joint, name)
    ensembles = {engine: smooth(made.members[engine, name], width) for engine in made.engines}
    count = len(ensembles["kernel"])
    each = observed.outcomes.shape[2] if name == "training" else int(np.prod(observed.held_out.shape[2:]))
    ensembles["constant"] = smooth(
        scores.constant_ensemble(p0, low, high, spec.replicas * each, len(curve), count, seed), width
    )
    ensembles["logistic"] = smooth(scores.logistic_ensemble(outcomes, count, seed), width)
    found: dict[str, Any] = {}
    for level_name, level in (("double", 2 * p0), ("half", 0.5)):
        foreseen = scores.crossing_interval(ensembles["kernel"], level)
        seen = scores.observed_crossing(outcomes, level, width, seed=seed)
        found |= times(f"time_to_{level_name}_forecast", foreseen)
        found |= times(f"time_to_{level_name}_observed", seen)
        found[f"time_to_{level_name}_agrees"] = scores.times_agree(foreseen, seen)
    # The mean of the sampled outcomes is the mean of p itself, which the simulator knows without noise.
    means = {engine: smooth(made.success[engine, name][:-1], width) for engine in made.engines}
    found |= {
        "coverage_50": scores.coverage(ensembles["kernel"], curve, 0.5),
        "coverage_90": scores.coverage(ensembles["kernel"], curve, 0.9),
        **{f"crps_{engine}": scores.crps(values, curve) for engine, values in ensembles.items()},
        "end_forecast": float(ensembles["kernel"].mean(axis=0)[-1]),
        "end_observed": float(curve[-1]),
        "observed_mean": curve.tolist(),
        "forecast_mean": means["kernel"].tolist(),
        **{f"forecast_{engine}_mean": means[engine].tolist() for engine in made.engines[1:]},
    }
    replica_low, replica_high = scores.replica_spread(outcomes, width) if name == "training" else (None, None)
    panel = Panel(
        curve,
        means["kernel"],
        np.quantile(ensembles["kernel"], QUANTILES, axis=0),
        {engine: means[engine] for engine in made.engines[1:]},
        p0,
        low,
        high,
        rounds=made.at[name][:-1] + 1,
        title=TITLES[name],
        replica_low=replica_low,
        replica_high=replica_high,
    )
    return {f"{prefix}{key}": value for key, value in found.items()}, panel


def residuals(spec: RunSpec, joint: JointProbe, observed: Observed) -> dict[str, Any]:
    """How surprising the outcomes are, each replica's against its own history; nothing where none can be told."""
    expected = predicted(spec, joint, observed)
    if expected is None:
        return {}
    found = scores.martingale_residuals(observed.outcomes, expected)
    return {
        "residual_mean": found.mean,
        "residual_mean_error": found.mean_error,
        "residual_variance": found.variance,
        "residual_variance_error": found.variance_error,
        "residual_z": scores.window_z(found.z, 1)[0],
        "residual_z_windows": scores.window_z(found.z, WINDOWS),
    }
