"""`onearm simulate`: a bandit of your own, from a TOML file, from options, or from a file changed by options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.command import Command, Given, Option
from experiments.cli.console import show
from experiments.cli.options import OUTPUT, PAY, RULE, RUN
from experiments.cli.progress import progress
from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.simulation.simulation import Simulation, SimulationSpec

BANDIT = "Bandit"
OPTIONS = (
    Option(
        "spec", Path | None, "A TOML file that describes the simulation; the options below change single fields of it.",
        panel=BANDIT,
    ),
    Option("arms", int | None, "Number of arms K, up to 4e18.", panel=BANDIT, shown="1000"),
    Option("correct", int | None, "Number of arms that pay 1.", panel=BANDIT, shown="1"),
    Option("p0", float | None, "Success probability at the start.", panel=BANDIT, shown="0.05"),
    Option(
        "profile", str | None,
        "How probability is spread over the arms of a class, correct or wrong: {profiles}. In two_class it is even.",
        panel=BANDIT, shown="two_class",
    ),
    Option(
        "exponent", float | None, "With power_law: the j-th arm has probability ~ j^-exponent.", panel=BANDIT, shown="1"
    ),
    Option(
        "sigma", float | None, "With log_normal: standard deviation of the log probabilities.", panel=BANDIT, shown="2"
    ),
    Option(
        "rule", str | None,
        "Update rule, which turns the rewards of a round into weights on its rollouts. One of {rules}.", panel=RULE,
        shown="minimalist",
    ),
    Option("eta", float | None, "Step size (eta): how far one round moves the policy.", panel=RULE, shown="1"),
    Option("rollouts", int | None, "Number of arms pulled per round.", panel=RULE, shown="the rule's own"),
    PAY,
    Option("rounds", int | None, "Number of rounds; each is one update.", panel=RUN, shown="100"),
    Option("seeds", int | None, "Number of independent replicas.", panel=RUN, shown="1000"),
    Option("seed", int | None, "Number from which every random draw follows.", panel=RUN, shown="0"),
    Option(
        "engine", str | None,
        "How it is computed: auto, or one of {engines}.", panel=RUN, shown="auto, the cheapest that is exact",
    ),
    Option(
        "observe", list[str] | None, "What to record besides success: {observables}. May be repeated.", panel=RUN
    ),
    Option(
        "every", int | None, "Number of rounds from one record to the next; divides --rounds.", panel=RUN, shown="1"
    ),
    Option("dtype", str | None, "float32 or float64.", panel=RUN, shown="float64 for arms in classes, else float32"),
    Option("out", Path | None, "Folder for the curves: numbers, Parquet and pictures.", panel=OUTPUT),
)  # fmt: skip


def simulate(given: Given) -> None:
    """Simulate a softmax bandit under an update rule, many seeds at once, exactly, from 2 to 10^18 arms.

    Examples: onearm simulate --arms 1000 --correct 5 --p0 0.05 --eta 1 --rounds 200 --seeds 2000

    onearm simulate --arms 1000000000000 --correct 100 --p0 1e-8 --eta 0.1 --rounds 1000000000 --every 100000000
    """
    from experiments.folder.compile_cache import keep_compiled
    from experiments.simulation.simulation import run_simulation

    keep_compiled()
    spec = _spec(given.some(*(option.name for option in OPTIONS)))
    plan = f"{spec.seeds:,} seeds of {spec.rounds:,} rounds"
    with progress(given.as_json, f"simulate: {plan}", {"simulate": plan}) as told:
        made = run_simulation(spec, lambda done, total: told("simulate", done, total))
    result = _numbers(spec, made)
    if given.out is not None:
        _write(given.out, spec, made, result)
    show("simulate", result, given.as_json)


def _spec(given: dict[str, Any]) -> SimulationSpec:
    """The file's spec, or the default one, with the fields that options name in place."""
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


COMMAND = Command("simulate", simulate, OPTIONS, panel="Simulator and theory", needs="sim")
