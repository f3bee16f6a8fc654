"""Forecast and run of several queries at once: the numbers for how well they agree, and the picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.folder import store
from experiments.folder.forecast_store import QUANTILES
from experiments.folder.run_folder import rounding_of
from experiments.forecast.contexts_forecast import KERNELS, SETS, Array, Foretold
from experiments.run.contexts import ContextsRun, Seen
from experiments.scoring import scores
from experiments.scoring.smoothing import default_width, smooth
from experiments.specs.contexts_spec import ContextsSpec
from figures.contexts import Panel, draw_contexts
from figures.style import save_figure
from theory.trees.joint_probe import JointProbe
from theory.trees.probe import Probe


def overlay(run: ContextsRun) -> dict[str, Any]:
    """Probe, forecast, train, compare; writes contexts.json, contexts.png and contexts.svg into the run folder.

    The forecast is made, and saved, before anything is trained.
    """
    joint = run.probe()
    made = run.forecast()
    numbers, panels = compare(run.spec, joint, made, run.observe())
    store.write_json(run.out / "contexts.json", numbers)
    spec = run.spec
    title = f"{len(spec.queries)} queries, {spec.batch} per round" + (
        f"; {len(spec.apart)} held out" if spec.apart else ""
    )
    subtitle = f"{spec.model.name}, {spec.replicas} replicas, η = {spec.rule.optimiser.eta:g}"
    figure = draw_contexts(title, subtitle, panels)
    for suffix in ("png", "svg"):
        with store.replacing(run.out / f"contexts.{suffix}") as temporary:
            save_figure(figure, temporary)
    return numbers


def compare(
    spec: ContextsSpec, joint: JointProbe, made: Foretold, seen: Seen
) -> tuple[dict[str, Any], list[Panel]]:
    """Scores of the forecast against the run, for the queries trained on and for those held out.

    The observable is the mean over replicas of the outcomes of a round, smoothed over `default_width(rounds)`
    rounds; of held-out queries, the mean of all rollouts at one look, not smoothed.
    """
    first = len(spec.queries)
    probes = {"training": joint.probes[:first], "held_out": joint.probes[first:]}
    held = spec.held_out
    looks = np.arange(1, spec.rounds + 1, 1 if held is None else held.every)
    at = {"training": np.arange(1, spec.rounds + 1), "held_out": looks}
    draws = {
        "training": spec.batch * spec.rule.rollouts,
        "held_out": 0 if held is None else held.rollouts * len(spec.apart),
    }
    numbers: dict[str, Any] = {
        "queries": [query.prompt for query in spec.queries],
        "held_out": [query.prompt for query in spec.apart],
        "batch": spec.batch,
        "model": spec.model.name,
        "rule": spec.rule.model_dump(mode="json"),
        "rounds": spec.rounds,
        "replicas": spec.replicas,
        "p0": [probe.p0 for probe in joint.probes],
        **rounding_of(joint.probes),
        "seconds_probe": sum(float(str(probe.meta["seconds"])) for probe in joint.probes),
        "seconds_simulate": made.seconds,
        "seconds_train": seen.seconds,
    }
    panels: list[Panel] = []
    for name in SETS if held is not None else SETS[:1]:
        width = default_width(spec.rounds) if name == "training" else 1
        outcomes = seen.outcomes(name)
        curve = smooth(outcomes.mean(axis=0), width)
        ensembles = {kernel: smooth(made.members[kernel, name], width) for kernel in KERNELS}
        p0, low, high = mean_p0(probes[name])
        count = len(ensembles["joint"])
        rollouts, rounds = spec.replicas * draws[name], len(curve)
        ensembles["constant"] = smooth(
            scores.constant_ensemble(p0, low, high, rollouts, rounds, count, spec.seed), width
        )
        ensembles["logistic"] = smooth(scores.logistic_ensemble(outcomes, count, spec.seed), width)
        joint_members = ensembles["joint"]
        numbers |= {
            f"{name}_p0": p0,
            f"{name}_end_forecast": float(joint_members.mean(axis=0)[-1]),
            f"{name}_end_observed": float(curve[-1]),
            f"{name}_coverage_50": scores.coverage(joint_members, curve, 0.5),
            f"{name}_coverage_90": scores.coverage(joint_members, curve, 0.9),
            **{f"{name}_crps_{key}": scores.crps(values, curve) for key, values in ensembles.items()},
            f"{name}_observed": curve.tolist(),
            f"{name}_forecast": joint_members.mean(axis=0).tolist(),
        }
        panels.append(
            Panel(
                "trained on" if name == "training" else "held out",
                at[name],
                p0,
                curve,
                joint_members.mean(axis=0),
                np.quantile(joint_members, QUANTILES, axis=0),
                ensembles["apart"].mean(axis=0),
            )
        )
    return numbers, panels


def mean_p0(probes: tuple[Probe, ...]) -> tuple[float, float, float]:
    """Mean of the queries' p0 with its 95% interval; probes of different queries are independent."""
    p0: Array = np.array([probe.p0 for probe in probes])
    low, high = np.array([probe.p0_interval() for probe in probes]).T
    down, up = (float(np.sqrt(((side - p0) ** 2).sum()) / len(p0)) for side in (low, high))
    mean = float(p0.mean())
    return mean, max(mean - down, 0.0), min(mean + up, 1.0)
