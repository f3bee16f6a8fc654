"""The command line: `onearm simulate | probe | forecast | train | overlay | doctor`."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.warning import ForecastWarning

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Forecast reinforcement fine-tuning of a language model before it is trained.",
    epilog="Everyday use: onearm forecast --query 'What is 17 + 25?' --answer 42 --out runs/mine (never trains). "
    "To hold the forecast against a real run: onearm overlay, with the same arguments.",
)
errors = Console(stderr=True)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, and nothing else there.")
]
Model = Annotated[
    str, typer.Option(help="Registry name (smollm2-135m, tiny-arithmetic), hub name or local folder.")
]
Prompt = Annotated[str | None, typer.Option("--query", help="The query. Default: a built-in one.")]
Answer = Annotated[str | None, typer.Option(help="Its right answer.")]
VerifierName = Annotated[str, typer.Option("--verifier", help="integer, last_number, gsm8k or boxed.")]
Queries = Annotated[
    str | None,
    typer.Option(
        help='JSONL or Parquet file, rows {"query": ..., "answer": ...}; or builtin; or reasoning-gym:NAME. '
        "Makes a folder per query, and summary.json."
    ),
]
RuleName = Annotated[
    str, typer.Option("--rule", help="Update rule: minimalist, rloo, dr-grpo, grpo-trl, grpo-verl, ...")
]
Rollouts = Annotated[int | None, typer.Option(help="Rollouts per query and round. Default: the rule's own.")]
Rounds = Annotated[int, typer.Option(help="Updates per replica.")]
Replicas = Annotated[int, typer.Option(help="Independent runs, trained beside one another in one batch.")]
Eta = Annotated[float, typer.Option(help="Step size of the optimiser.")]
MaxTokens = Annotated[int, typer.Option(help="Longest response, in tokens.")]
Seed = Annotated[int, typer.Option(help="Every random draw follows from it.")]
ProbeRollouts = Annotated[int, typer.Option(help="Rollouts of the base model that measure the bandit.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
DType = Annotated[str, typer.Option(help="float32, float64 or bfloat16 (which changes the policy a little).")]
Source = Annotated[str, typer.Option(help="Where smollm2-135m comes from: wheel (no hub needed) or hub.")]
Out = Annotated[Path, typer.Option(help="Run folder. The same call again goes on where it stopped.")]


class EngineName(StrEnum):
    auto = "auto"
    dense = "dense"
    lumped = "lumped"
    event = "event"
    kernel = "kernel"


def main() -> None:
    """Entry point of the console script."""
    app()


@contextmanager
def _reporting(as_json: bool) -> Iterator[None]:
    """Errors a user can mend become one line on standard error and exit code 2; warnings one line each."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        errors.print(f"[yellow]warning:[/] {message}", highlight=False)

    with warnings.catch_warnings():
        # What libraries warn their developers of is not for the user of a command.
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ForecastWarning)
        warnings.showwarning = show  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        except ValidationError as error:
            for item in error.errors():
                field = ".".join(str(x) for x in item["loc"]) or error.title
                _fail(f"{field}: {item['msg'].removeprefix('Value error, ')}", as_json)
            raise typer.Exit(2) from None
        except (ValueError, ImportError, OSError) as error:
            _fail(str(error), as_json)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            errors.print("stopped; the same command goes on from here", highlight=False)
            raise typer.Exit(130) from None


def _fail(message: str, as_json: bool) -> None:
    errors.print(f"[red]error:[/] {message}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"error": message}))


@contextmanager
def _bars(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress callback: one bar per label, with the time that remains."""
    columns = (
        TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=errors, disable=as_json) as progress:
        tasks: dict[str, Any] = {}

        def update(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
            progress.update(tasks[label], completed=done, total=total)

        yield update


@app.command()
def simulate(
    arms: Annotated[int, typer.Option(help="Number of arms K.")] = 1000,
    correct: Annotated[int, typer.Option(help="How many of them pay 1.")] = 1,
    p0: Annotated[
        float, typer.Option(help="Success probability at the start, shared by the correct arms.")
    ] = 0.05,
    rule: RuleName = "minimalist",
    rollouts: Rollouts = None,
    eta: Eta = 1.0,
    rounds: Rounds = 100,
    seeds: Annotated[int, typer.Option(help="Independent replicas.")] = 1000,
    seed: Seed = 0,
    engine: Annotated[
        EngineName, typer.Option(help="auto picks dense, the only one for these arms today.")
    ] = EngineName.auto,
    out: Annotated[Path | None, typer.Option(help="Folder for the curves' picture and numbers.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate a softmax bandit of K arms under an update rule, many seeds at once, exactly.

    Example: onearm simulate --arms 1000 --correct 5 --p0 0.05 --eta 1 --rounds 200 --seeds 2000
    """
    with _reporting(as_json), _bars(as_json) as progress:
        import numpy as np

        from bandit_sim import Arms
        from bandit_sim import simulate as run
        from theory.rules.rule import preset

        if engine not in (EngineName.auto, EngineName.dense):
            raise ValueError(f"--engine {engine.value} does not simulate these arms yet; use dense or auto")
        chosen = preset(rule, eta=eta, rollouts=rollouts)
        started = time.perf_counter()
        bandit = Arms.two_class(arms=arms, correct=correct, p0=p0)
        # Column t is p before update t + 1: one round more shows p after the last.
        curves = run(
            bandit,
            chosen,
            rounds + 1,
            seeds,
            seed,
            progress=lambda done, total: progress("simulate", done, total),
        )
        seconds = time.perf_counter() - started
        last = curves["success"][:, -1]
        result: dict[str, Any] = {
            "arms": arms, "correct": correct, "p0": p0, "rule": rule, "rollouts": chosen.rollouts, "eta": eta,
            "rounds": rounds, "seeds": seeds, "engine": "dense",
            "success_mean": float(last.mean()),
            "success_quantiles": [float(q) for q in np.quantile(last, [0.05, 0.25, 0.5, 0.75, 0.95])],
            "seconds": seconds,
            "seed_rounds_per_second": seeds * (rounds + 1) / seconds,
        }  # fmt: skip
        if out is not None:
            _write_simulation(out, curves["success"], result)
        _show("simulate", result, as_json)


def _write_simulation(out: Path, success: Any, result: dict[str, Any]) -> None:
    import numpy as np

    from experiments.store import replacing, write_json
    from figures.curves import draw_curves
    from figures.style import save_figure

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "simulate.json", result)
    levels = np.quantile(success, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    subtitle = f"{result['correct']} correct, {result['seeds']:,} seeds, η = {result['eta']:g}"
    figure = draw_curves(success.mean(axis=0), levels, f"{result['arms']:,} arms, {result['rule']}", subtitle)
    for suffix in ("png", "svg"):
        with replacing(out / f"simulate.{suffix}") as temporary:
            save_figure(figure, temporary)


def _probe(run: Any) -> dict[str, Any]:
    run.probe()
    return json.loads((run.out / "probe.json").read_text())


def _forecast(run: Any) -> dict[str, Any]:
    from experiments.overlay import foretell

    return foretell(run)


def _train(run: Any) -> dict[str, Any]:
    observed = run.observe()
    tenth = max(1, run.spec.rounds // 10)
    return {
        "query": run.spec.query.prompt,
        "rounds": run.spec.rounds,
        "replicas": run.spec.replicas,
        "success_first_tenth": float(observed.outcomes[:, :tenth].mean()),
        "success_last_tenth": float(observed.outcomes[:, -tenth:].mean()),
        "unparsable": observed.unparsable,
        "seconds_train": observed.seconds,
        "tokens_train": observed.token_count,
    }


def _overlay(run: Any) -> dict[str, Any]:
    from experiments.overlay import overlay

    return overlay(run).numbers


def _register(name: str, act: Callable[[Any], dict[str, Any]], text: str) -> None:
    """One command per stage; they take the same arguments, so that a forecast becomes an overlay by its name."""

    @app.command(name, help=text)
    def command(
        query: Prompt = None,
        answer: Answer = None,
        verifier: VerifierName = "last_number",
        queries: Queries = None,
        model: Model = "smollm2-135m",
        rule: RuleName = "minimalist",
        rollouts: Rollouts = None,
        eta: Eta = 0.15,
        rounds: Rounds = 80,
        replicas: Replicas = 32,
        max_tokens: MaxTokens = 10,
        seed: Seed = 0,
        probe_rollouts: ProbeRollouts = 2048,
        device: Device = "cpu",
        dtype: DType = "float32",
        source: Source = "auto",
        out: Out = Path(f"runs/{name}"),
        as_json: Json = False,
    ) -> None:
        with _reporting(as_json):
            from experiments.specs import ModelSpec, ProbeSpec, RunSpec
            from llm_bridge.models import load_model
            from theory.rules.rule import preset

            asked = _queries(query, answer, verifier, queries, seed)
            specs = [
                RunSpec(
                    query=one,
                    model=ModelSpec(name=model, device=device, dtype=dtype, source=source),  # pyright: ignore[reportArgumentType]
                    rule=preset(rule, eta=eta, rollouts=rollouts),
                    rounds=rounds, replicas=replicas, max_tokens=max_tokens, seed=seed,
                    probe=ProbeSpec(rollouts=probe_rollouts),
                )
                for one in asked
            ]  # fmt: skip
            if queries is None:
                with _bars(as_json) as progress:
                    result = _one(act, specs[0], out, progress)
                _show(name, result, as_json)
                return
            shared = load_model(model, device=device, dtype=dtype, source=source)  # pyright: ignore[reportArgumentType]
            _many(name, act, specs, out, shared, as_json)


def _one(
    act: Callable[[Any], dict[str, Any]],
    spec: Any,
    out: Path,
    progress: Callable[[str, int, int], None],
    model: Any = None,
) -> dict[str, Any]:
    from experiments.stages import Run

    return act(Run(spec, out, progress, model))


def _many(
    name: str, act: Callable[[Any], dict[str, Any]], specs: list[Any], out: Path, model: Any, as_json: bool
) -> None:
    """Each query in a folder of its own; one that fails is reported and the others go on."""
    from experiments.overlay import pooled
    from experiments.store import write_json

    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for i, spec in enumerate(specs):
        folder = out / f"{i:02d}-{_slug(spec.query.prompt)}"
        errors.print(f"{i + 1}/{len(specs)}  {spec.query.prompt}", highlight=False)
        try:
            with _bars(as_json) as progress:
                rows.append({"folder": folder.name, **_one(act, spec, folder, progress, model)})
        except ValueError as error:
            rows.append({"folder": folder.name, "query": spec.query.prompt, "error": str(error)})
            errors.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        # "pooled": do the forecasts err together? Of overlays only; other stages compare nothing.
        summary = {"command": name, "queries": rows} | ({"pooled": pooled(rows)} if name == "overlay" else {})
        write_json(out / "summary.json", summary)
    if as_json:
        print(json.dumps(summary))
    else:
        _table(rows)
        if name == "overlay":
            _show("pooled", summary["pooled"], as_json=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _queries(query: str | None, answer: str | None, verifier: str, many: str | None, seed: int) -> list[Any]:
    from llm_bridge.queries import DEFAULT, Query, parse_source

    if many is not None:
        if query is not None or answer is not None:
            raise ValueError("--queries and --query/--answer exclude each other; give one of them")
        return list(parse_source(many, seed=seed))
    if query is None and answer is None:
        return [DEFAULT]
    if query is None or answer is None:
        raise ValueError("--query and --answer belong together; give both")
    return [Query(prompt=query, answer=answer, verifier=verifier)]  # pyright: ignore[reportArgumentType]


def _slug(text: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)[:40].rstrip("-") or "query"


def _show(name: str, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    from rich.table import Table

    table = Table("", name, show_edge=False, pad_edge=False)
    for key, value in result.items():
        if isinstance(value, dict) or (isinstance(value, list) and len(value) > 8):
            continue
        table.add_row(key, _text(value))
    Console().print(table)


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    wanted = [
        "p0", "time_to_double_forecast", "time_to_double_observed", "time_to_half_forecast", "time_to_half_observed",
        "coverage_50", "coverage_90", "crps_kernel", "crps_sequence_kernel", "crps_tabular", "crps_constant",
        "crps_logistic", "residual_mean", "residual_variance", "residual_z",
    ]  # fmt: skip
    keys = [key for key in wanted if any(key in row for row in rows)]
    table = Table("query", *(key.replace("_", "\n") for key in keys), show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(row["folder"], *(_text(row.get(key)) if "error" not in row else "-" for key in keys))
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(_text(v) for v in value)
    return "-" if value is None else str(value)


_register("probe", _probe, "Measure the bandit on the base model: p0, response tree, kernel.")
_register(
    "forecast",
    _forecast,
    "Forecast the learning curve from the base model alone: no training, nothing fitted.",
)
_register(
    "train", _train, "Run the real reinforcement fine-tuning: S replicas of the model beside one another."
)
_register(
    "overlay",
    _overlay,
    "Forecast, train, and overlay the two: the picture, and numbers for how well they agree.",
)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    with _reporting(as_json):
        from experiments.doctor import examine

        checks = examine()
        if as_json:
            print(json.dumps({"ok": all(c.ok for c in checks), "checks": [c._asdict() for c in checks]}))
            return
        for check in checks:
            mark = "[green]ok[/]     " if check.ok else "[red]missing[/]"
            errors.print(f"{mark} {check.name:<22} {check.found}", highlight=False, soft_wrap=True)
            if not check.ok:
                errors.print(f"        {check.fix}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
