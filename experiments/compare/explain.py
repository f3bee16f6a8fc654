"""Why a forecast and a run differ: `onearm explain RUN_FOLDER`.

Three students of one history. The run's own responses and rewards train the network again, a network whose
token logits are linearised at the base model, and the tree kernel; then the success of each is measured.

    network - linear     drift: the network has left its linear regime
    linear - tree        truncation: what the probe's cut, rests and tails, and its noise, leave out
    tree - forecast      chance: these draws against the forecast's mean over draws
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from experiments.compare.numbers import WINDOWS, title_of
from experiments.compare.retrace import STUDENTS, Array, Snapshot, retrace
from experiments.folder import store
from experiments.folder.observed import load_observed
from experiments.forecast.bandits import predicted
from experiments.run.run import Run
from experiments.scoring.scores import martingale_residuals, window_z
from experiments.specs import RunSpec
from theory.refusal import Refusal


def explain(
    run: Run,
    *,
    at: Sequence[int] | None = None,
    rollouts: int = 64,
    replicas: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Decompose the gap between forecast and run; writes explain.json into the run folder.

    Arguments:
        run: a folder that holds a finished overlay.
        at: rounds after which to look, 0 .. T-1; default half of the run and its last round.
        rollouts: fresh rollouts per replica and look, for the correct responses the tree does not resolve. The
            linearised network's share of them is weighted by importance, pi_linear(y) / pi(y): the two
            networks are compared on the same rollouts, so that their difference is not blurred by them.
        replicas: look at the first of the run's replicas only, which is cheaper; default all.
        seed: of the fresh rollouts.
    Errors: Refusal where the folder holds no run, `at` or `replicas` lies outside it, or the rule has a KL term.
    Valid when: the record is whole. Standard errors are over the S replicas, paired.
    """
    spec, rounds = run.spec, run.spec.rounds
    observed = load_observed(run.out, spec)
    if observed is None:
        raise Refusal(f"{run.out} holds no finished run; call onearm overlay with --out {run.out} first")
    looks = sorted({rounds // 2, rounds - 1} if at is None else set(at))
    if not looks or not 0 <= looks[0] <= looks[-1] < rounds:
        raise Refusal(f"at = {looks}; give numbers of rounds from 0 to {rounds - 1}")
    _check_rule(spec)
    if replicas is not None and not 2 <= replicas <= spec.replicas:
        raise Refusal(f"replicas = {replicas}; give 2 to {spec.replicas}, as many as the run has")
    joint, made = run.probe(), run.forecast()
    part = observed.first(replicas or spec.replicas)
    snapshots = retrace(run.network, joint, part, looks, rollouts, seed)
    expected = predicted(spec, joint, observed)
    assert expected is not None, "rules with helpers were refused"
    residuals = martingale_residuals(observed.outcomes, expected)
    training = joint.probes[: len(spec.queries)]
    result: dict[str, Any] = {
        "query": title_of(spec),
        "queries": len(spec.queries),
        "eta": spec.rule.optimiser.eta,
        "rounds": rounds,
        "seed": spec.seed,
        "replicas": replicas or spec.replicas,
        "p0": float(np.mean([probe.p0 for probe in training])),
        "found": float(np.mean([probe.found for probe in training])),
        "residual_z": window_z(residuals.z, 1)[0],
        "residual_z_windows": window_z(residuals.z, WINDOWS),
        "looks": [_look(s, float(made.success["kernel", "training"][s.updates])) for s in snapshots],
    }
    store.write_json(run.out / "explain.json", result)
    return result


def _check_rule(spec: RunSpec) -> None:
    """Errors: Refusal for a run that has no linearised network to compare with, or whose record is not whole."""
    rule = spec.rule
    if spec.full:
        raise Refusal(
            "full parameters have no linearised network to compare with; explain a run of adapters, and read "
            "drift.json for how far this one is from its tangent"
        )
    if not rule.optimiser.linear:
        raise Refusal(
            f"optimiser {rule.optimiser.kind} acts on parameters, which the linearised network's "
            "kernel does not carry; explain a run under SGD without a clip"
        )
    if rule.signal.helpers:
        raise Refusal(
            f"signal {rule.signal.kind} draws rollouts that are not trained on, which no record holds; explain "
            "a run of a rule without extra or greedy rollouts"
        )


def _look(snapshot: Snapshot, forecast: float) -> dict[str, Any]:
    """Means with standard errors over replicas: each student's parts, and the gaps between the students."""
    parts = {
        student: {
            "success": _mean(snapshot.success(student)),
            "kept": _mean(snapshot.kept[student]),
            "beyond": _mean(snapshot.beyond[student]),
        }
        for student in STUDENTS
    }
    network, linear, tree = (snapshot.success(student) for student in STUDENTS)
    return {
        "updates": snapshot.updates,
        "moved": snapshot.moved,
        "drift_per_response": snapshot.drift,
        "mismatch": snapshot.mismatch,
        **parts,
        "forecast": forecast,
        "network - linear (drift)": _mean(network - linear),
        "linear - tree (truncation)": _mean(linear - tree),
        "of it kept": _mean(snapshot.kept["linear"] - snapshot.kept["tree"]),
        "tree - forecast (chance)": _mean(tree - forecast),
        "network - forecast": _mean(network - forecast),
    }


def _mean(values: Array) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def report(results: Sequence[dict[str, Any]]) -> Table:
    """One column per look: what each student is worth, and what the gaps between them are."""
    table = Table("", show_edge=False, pad_edge=False)
    columns = [(result, look) for result in results for look in result["looks"]]
    for result, look in columns:
        table.add_column(f"{result['query'][:24]}\neta {result['eta']:g}, after {look['updates']}")
    for name in ("moved", "drift_per_response", "mismatch"):
        table.add_row(name + " [nats]", *(f"{look[name]:.3g}" for _, look in columns))
    for student in STUDENTS:
        for part in ("success", "kept", "beyond"):
            cells = (_cell(look[student][part]) for _, look in columns)
            table.add_row(f"{student}: {part}", *cells)
    table.add_row("forecast: success", *(f"{look['forecast']:.3f}" for _, look in columns))
    for gap in [key for key in columns[0][1] if " - " in key or key == "of it kept"]:
        table.add_row(gap, *(_cell(look[gap]) for _, look in columns))
    return table


def _cell(value: Sequence[float]) -> str:
    return f"{value[0]:+.3f} ±{value[1]:.3f}"
