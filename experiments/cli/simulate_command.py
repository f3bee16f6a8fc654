"""`onearm simulate`: a bandit of your own, from a TOML file, from flags, or from a file changed by flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments.cli.console import Json, bars, reporting, show
from experiments.cli.options import PayName
from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.simulation.simulation import Simulation, SimulationSpec

Flag = typer.Option


def simulate(
    spec: Annotated[
        Path | None,
        Flag("--spec", help="TOML file of a simulation; the flags below change single fields of it."),
    ] = None,
    arms: Annotated[int | None, Flag(help="Number of arms K, up to 4e18. Default 1000.")] = None,
    correct: Annotated[int | None, Flag(help="How many of them pay 1. Default 1.")] = None,
    p0: Annotated[float | None, Flag(help="Success probability at the start. Default 0.05.")] = None,
    profile: Annotated[
        str | None,
        Flag(help="How mass is spread within a class: two_class (evenly), power_law or log_normal."),
    ] = None,
    exponent: Annotated[float | None, Flag(help="Of power_law: the j-th arm has mass ~ j^-exponent.")] = None,
    sigma: Annotated[float | None, Flag(help="Of log_normal: deviation of the log masses.")] = None,
    rule: Annotated[
        str | None, Flag(help="Update rule by name: minimalist, rloo, group-mean, trl-grpo, verl-grpo, ...")
    ] = None,
    eta: Annotated[float | None, Flag(help="Step size. Default 1.")] = None,
    rollouts: Annotated[int | None, Flag(help="Rollouts per round. Default: the rule's own.")] = None,
    pay: PayName = None,
    rounds: Annotated[int | None, Flag(help="Updates. Default 100.")] = None,
    seeds: Annotated[int | None, Flag(help="Independent replicas. Default 1000.")] = None,
    seed: Annotated[int | None, Flag(help="Every random draw follows from it. Default 0.")] = None,
    engine: Annotated[
        str | None,
        Flag(
            help="dense keeps every arm, lumped costs the same at any K, event skips rounds that move nothing; or auto."
        ),
    ] = None,
    observe: Annotated[
        list[str] | None,
        Flag(
            help="What to record besides success: reward, entropy, distinct, winner_share, ... May be repeated."
        ),
    ] = None,
    every: Annotated[int | None, Flag(help="Record every so many rounds; must divide the rounds.")] = None,
    dtype: Annotated[str | None, Flag(help="float32 or float64.")] = None,
    out: Annotated[Path | None, Flag(help="Folder for the curves: numbers, Parquet and pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate a softmax bandit under an update rule, many seeds at once, exactly, from 2 to 10^18 arms.

    Examples: onearm simulate --arms 1000 --correct 5 --p0 0.05 --eta 1 --rounds 200 --seeds 2000

    onearm simulate --arms 1000000000000 --correct 100 --p0 1e-8 --eta 0.1 --rounds 1000000000 --every 100000000
    """
    given = {name: value for name, value in locals().items() if value is not None}
    with reporting(as_json), bars(as_json) as progress:
        from experiments.folder.compile_cache import keep_compiled
        from experiments.simulation.simulation import run_simulation

        keep_compiled()
        from_flags = _spec(given)
        made = run_simulation(from_flags, lambda done, total: progress("simulate", done, total))
        result = _numbers(from_flags, made)
        if out is not None:
            _write(out, from_flags, made, result)
        show("simulate", result, as_json)


def _spec(given: dict[str, Any]) -> SimulationSpec:
    """The file's spec, or the default one, with the fields that flags name in place."""
    from experiments.simulation.simulation import SimulationSpec
    from theory.pay import named_pay

    base = SimulationSpec.read(given["spec"]) if "spec" in given else SimulationSpec()
    fields: dict[str, Any] = base.model_dump()
    bandit = {name: given[name] for name in ("arms", "correct", "p0", "exponent", "sigma") if name in given}
    if "profile" in given:
        shared = {
            name: fields["bandit"][name] for name in ("arms", "correct", "p0") if name in fields["bandit"]
        }
        fields["bandit"] = {"kind": given["profile"], **shared}
    fields["bandit"] |= bandit
    if "rule" in given:
        fields["rule"] = {"preset": given["rule"], "eta": given.get("eta", 1.0)}
    elif "eta" in given:
        fields["rule"]["optimiser"]["eta"] = given["eta"]
    if "rollouts" in given:
        fields["rule"]["rollouts"] = given["rollouts"]
    if "pay" in given:
        fields["pay"] = named_pay(given["pay"])
    if "observe" in given:
        fields["observe"] = tuple(dict.fromkeys(("success", *given["observe"])))
    for name in ("rounds", "seeds", "seed", "engine", "every", "dtype"):
        if name in given:
            fields[name] = given[name]
    return SimulationSpec.model_validate(fields)


def _numbers(spec: SimulationSpec, made: Simulation) -> dict[str, Any]:
    """What is printed: the law of p after the last update, the time it took, and the other observables' means."""
    import numpy as np

    from theory.rules.dialects import name_of

    last = made.curves["success"][:, -1]
    bandit = spec.bandit.model_dump(exclude_none=True)
    return {
        **{name: value for name, value in bandit.items() if not isinstance(value, tuple)},
        "rule": name_of(spec.rule) or spec.rule.signal.kind,
        "rule_hash": spec.rule.hash,
        "rollouts": spec.rule.rollouts,
        "eta": spec.rule.optimiser.eta,
        "pay": spec.pay.kind,
        "rounds": spec.rounds,
        "seeds": spec.seeds,
        "engine": made.engine,
        "success_mean": float(last.mean()),
        "success_quantiles": [float(q) for q in np.quantile(last, [0.05, 0.25, 0.5, 0.75, 0.95])],
        **{
            f"{name}_mean": float(made.curves[name][:, -1].mean())
            for name in made.curves.metrics
            if name != "success"
        },
        "seconds": made.seconds,
        "seed_rounds_per_second": spec.seeds * spec.rounds / made.seconds,
    }


def _write(out: Path, spec: SimulationSpec, made: Simulation, result: dict[str, Any]) -> None:
    """simulate.json, simulate.parquet (long form: metric, seed, round, value) and a picture per metric."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from experiments.folder.store import replacing, write_json
    from figures.curves import draw_curves
    from figures.style import save_figure

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "simulate.json", result)
    except OSError as error:
        raise Refusal(f"--out {out} cannot be written ({error.strerror}); choose another folder") from error
    curves = made.curves
    table = pa.table({
        "metric": np.repeat(list(curves.metrics), curves.seeds * curves.rounds),
        "seed": np.tile(np.repeat(np.arange(curves.seeds), curves.rounds), len(curves.metrics)),
        "round": np.tile(curves.at, curves.seeds * len(curves.metrics)),
        "value": np.concatenate([values.ravel() for values in curves.metrics.values()]),
    })  # fmt: skip
    with replacing(out / "simulate.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata({"spec": spec.model_dump_json()}), temporary)
    title = f"{result['arms']:,} arms, {result['rule']}" if "arms" in result else spec.bandit.kind
    subtitle = f"{spec.seeds:,} seeds, η = {result['eta']:g}, {made.engine} engine"
    for name in curves.metrics:
        levels = curves.quantiles(name, [0.05, 0.25, 0.5, 0.75, 0.95])
        label = "success probability" if name == "success" else name.replace("_", " ")
        figure = draw_curves(curves.mean(name), levels, title, subtitle, label, at=curves.at)
        stem = "simulate" if name == "success" else f"simulate-{name.replace('/', '-')}"
        for suffix in ("png", "svg"):
            with replacing(out / f"{stem}.{suffix}") as temporary:
                save_figure(figure, temporary)
