"""The command line, `onearm`: one command per stage of the work; `onearm --help` lists them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from experiments import contexts_command, export, law_command, screen_command, simulate_command
from experiments.console import Json, Size, Split, bars, errors, reporting, show, text_of
from experiments.layers import command as layers_command

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Forecast reinforcement fine-tuning of a language model before it is trained.",
    epilog="Everyday use: onearm forecast --query 'What is 17 + 25?' --answer 42 --out runs/mine (never trains). "
    "To hold the forecast against a real run: onearm overlay, with the same arguments.",
)
Model = Annotated[
    str,
    typer.Option(
        help="Registry name (smollm2-135m, gemma3-270m, tiny-arithmetic), hub name or local folder."
    ),
]
Prompt = Annotated[str | None, typer.Option("--query", help="The query. Default: a built-in one.")]
Answer = Annotated[str | None, typer.Option(help="Its right answer.")]
VerifierName = Annotated[
    str | None,
    typer.Option(
        "--verifier",
        help="integer, last_number, gsm8k, boxed or math. Default: last_number, or what --queries says.",
    ),
]
Stop = Annotated[
    str | None,
    typer.Option(
        help=r"One character that ends a response of --query; \n is a newline. For base models, which would go on."
    ),
]
Queries = Annotated[
    str | None,
    typer.Option(
        help='JSONL or Parquet file, rows {"query": ..., "answer": ...}; or builtin; reasoning-gym:NAME; '
        "gsm8k or math, from the hub or a file (gsm8k:FILE). "
        "Makes a folder per query, and summary.json."
    ),
]
RuleName = Annotated[
    str, typer.Option("--rule", help="Update rule: minimalist, rloo, group-mean, trl-grpo, verl-grpo, ...")
]
Rollouts = Annotated[int | None, typer.Option(help="Rollouts per query and round. Default: the rule's own.")]
Rounds = Annotated[int, typer.Option(help="Updates per replica.")]
Replicas = Annotated[int, typer.Option(help="Independent runs, trained beside one another in one batch.")]
Eta = Annotated[float, typer.Option(help="Step size of the optimiser.")]
MaxTokens = Annotated[int, typer.Option(help="Longest response, in tokens.")]
Seed = Annotated[int, typer.Option(help="Every random draw follows from it.")]
ProbeRollouts = Annotated[int, typer.Option(help="Rollouts of the base model that measure the bandit.")]
AdapterBlocks = Annotated[
    str | None,
    typer.Option(
        help="Blocks from the top that are trained: a number, or all. Default: 4, of tiny-arithmetic all."
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Train every parameter of the model in place of adapters; needs --replicas 1, and --sketch if large.",
    ),
]
Sketch = Annotated[
    int | None,
    typer.Option(
        help="Coordinates that scores are sketched to in the probe. Default: none, they are kept whole."
    ),
]
Optimiser = Annotated[
    str | None,
    typer.Option(help="sgd or adam (AdamW with torch's own numbers). Default: the rule's own."),
]
Coordinates = Annotated[
    int | None,
    typer.Option(
        help="Parameters that are simulated where the optimiser acts on parameters. Default: 4096 for adam and clips."
    ),
]
Precision = Annotated[
    float | None,
    typer.Option(
        help="Stop probing where p0 is known to this relative half-width (95%), --probe-rollouts being the most."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
DType = Annotated[str, typer.Option(help="float32, float64 or bfloat16 (which changes the policy a little).")]
Source = Annotated[
    str, typer.Option(help="Where smollm2-135m and gemma3-270m come from: wheel (no hub needed) or hub.")
]
MicroBatch = Annotated[int, typer.Option(help="Rollouts differentiated at once; fewer need less memory.")]
Recompute = Annotated[
    bool, typer.Option(help="Run adapted blocks again in the backward pass: less memory, more time.")
]
COORDINATES = 4096
Out = Annotated[Path, typer.Option(help="Run folder. The same call again goes on where it stopped.")]


def main() -> None:
    """Entry point of the console script."""
    app()


app.command()(simulate_command.simulate)
app.command()(contexts_command.contexts)
app.command("export")(export.command)
app.add_typer(law_command.app, name="law")
app.command()(screen_command.screen)
app.add_typer(layers_command.app, name="layers")


def _probe(run: Any) -> dict[str, Any]:
    run.probe()
    return json.loads((run.out / "probe.json").read_text())


def _forecast(run: Any) -> dict[str, Any]:
    from experiments.compile_cache import keep_compiled
    from experiments.overlay import foretell

    keep_compiled()
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
    from experiments.compile_cache import keep_compiled
    from experiments.overlay import overlay

    keep_compiled()
    return overlay(run).numbers


def _register(name: str, act: Callable[[Any], dict[str, Any]], text: str) -> None:
    """One command per stage; they take the same arguments, so that a forecast becomes an overlay by its name."""

    @app.command(name, help=text)
    def command(
        query: Prompt = None,
        answer: Answer = None,
        verifier: VerifierName = None,
        stop: Stop = None,
        queries: Queries = None,
        size: Size = None,
        split: Split = None,
        model: Model = "smollm2-135m",
        rule: RuleName = "minimalist",
        rollouts: Rollouts = None,
        eta: Eta = 0.15,
        rounds: Rounds = 80,
        replicas: Replicas = 32,
        max_tokens: MaxTokens = 10,
        seed: Seed = 0,
        probe_rollouts: ProbeRollouts = 2048,
        precision: Precision = None,
        device: Device = "cpu",
        dtype: DType = "float32",
        source: Source = "auto",
        adapter_blocks: AdapterBlocks = None,
        full: Full = False,
        optimiser: Optimiser = None,
        coordinates: Coordinates = None,
        sketch: Sketch = None,
        micro_batch: MicroBatch = 16,
        recompute: Recompute = False,
        out: Out = Path(f"runs/{name}"),
        as_json: Json = False,
    ) -> None:
        with reporting(as_json):
            from experiments.specs import ModelSpec, ProbeSpec, RunSpec
            from llm_bridge.models import load_model
            from theory.rules.dialects import optimised, preset

            given = optimised(preset(rule, eta=eta, rollouts=rollouts), optimiser)
            if coordinates is None and not given.optimiser.linear:
                coordinates = COORDINATES
            asked = _queries(query, answer, verifier, stop, queries, seed, size, split)
            specs = [
                RunSpec(
                    query=one,
                    model=ModelSpec(name=model, device=device, dtype=dtype, source=source),  # pyright: ignore[reportArgumentType]
                    rule=given,
                    rounds=rounds, replicas=replicas, max_tokens=max_tokens, seed=seed,
                    probe=ProbeSpec(
                        rollouts=probe_rollouts, precision=precision, sketch=sketch, coordinates=coordinates
                    ),
                    **_adapter(full, adapter_blocks),
                )
                for one in asked
            ]  # fmt: skip
            memory = {"micro_batch": micro_batch, "recompute": recompute}
            if queries is None:
                with bars(as_json) as progress:
                    result = _one(act, specs[0], out, progress, **memory)
                show(name, result, as_json)
                return
            shared = load_model(model, device=device, dtype=dtype, source=source)  # pyright: ignore[reportArgumentType]
            _many(name, act, specs, out, shared, as_json, memory)


def _adapter(full: bool, blocks: str | None) -> dict[str, Any]:
    """The field `adapter` of a spec, where the command line says something of it."""
    from llm_bridge.adapters import AdapterSpec
    from llm_bridge.full import FullSpec

    if full and blocks is not None:
        raise ValueError("--full trains every block and --adapter-blocks names some; give one of them")
    if full:
        return {"adapter": FullSpec()}
    return {} if blocks is None else {"adapter": AdapterSpec(blocks=blocks)}  # pyright: ignore[reportArgumentType]


def _one(
    act: Callable[[Any], dict[str, Any]],
    spec: Any,
    out: Path,
    progress: Callable[[str, int, int], None],
    model: Any = None,
    **memory: Any,
) -> dict[str, Any]:
    from experiments.stages import Run

    return act(Run(spec, out, progress, model, **memory))


def _many(
    name: str,
    act: Callable[[Any], dict[str, Any]],
    specs: list[Any],
    out: Path,
    model: Any,
    as_json: bool,
    memory: dict[str, Any],
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
            with bars(as_json) as progress:
                rows.append({"folder": folder.name, **_one(act, spec, folder, progress, model, **memory)})
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
            show("pooled", summary["pooled"], as_json=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _queries(
    query: str | None,
    answer: str | None,
    verifier: str | None,
    stop: str | None,
    many: str | None,
    seed: int,
    size: int | None = None,
    split: str | None = None,
) -> list[Any]:
    """The queries asked; a verifier that is given takes the place of each query's own."""
    from llm_bridge.queries import DEFAULT, Query, parse_source

    if stop is not None and query is None:
        raise ValueError("--stop is of --query; with --queries, give each row a field stop")
    if many is None and (size, split) != (None, None):
        raise ValueError("--size and --split are of --queries; give it, or leave them out")
    if many is not None:
        if query is not None or answer is not None:
            raise ValueError("--queries and --query/--answer exclude each other; give one of them")
        asked = parse_source(many, seed=seed, size=size, split=split)
    elif query is None and answer is None:
        asked = [DEFAULT]
    elif query is None or answer is None:
        raise ValueError("--query and --answer belong together; give both")
    else:
        stop = "\n" if stop == r"\n" else stop
        given = {"verifier": verifier, "stop": stop}
        return [Query(prompt=query, answer=answer, **{k: v for k, v in given.items() if v is not None})]
    return asked if verifier is None else [one.judged_by(verifier) for one in asked]


def _slug(text: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)[:40].rstrip("-") or "query"


def _table(rows: list[dict[str, Any]]) -> None:
    wanted = [
        "p0", "time_to_double_forecast", "time_to_double_observed", "time_to_half_forecast", "time_to_half_observed",
        "coverage_50", "coverage_90", "crps_kernel", "crps_sequence_kernel", "crps_tabular", "crps_constant",
        "crps_logistic", "residual_mean", "residual_variance", "residual_z",
    ]  # fmt: skip
    keys = [key for key in wanted if any(key in row for row in rows)]
    table = Table("query", *(key.replace("_", "\n") for key in keys), show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(row["folder"], *(text_of(row.get(key)) if "error" not in row else "-" for key in keys))
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


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
def explain(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished overlays.")],
    rollouts: Annotated[int, typer.Option(help="Fresh rollouts per replica and look.")] = 64,
    replicas: Annotated[int | None, typer.Option(help="Look at the first so many replicas only.")] = None,
    at: Annotated[
        list[int] | None,
        typer.Option(help="Updates after which to look; default half and last. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why forecast and run differ: drift of the network, truncation of the probe, or chance.

    Trains the network, its linearisation and the tree kernel on the run's own draws; minutes per folder.

    Example: onearm explain runs/overlay --replicas 12
    """
    with reporting(as_json):
        from experiments.compile_cache import keep_compiled
        from experiments.explain import explain as find
        from experiments.explain import report
        from experiments.overlay import pooled
        from experiments.specs import RunSpec
        from experiments.stages import Run

        keep_compiled()
        results: list[dict[str, Any]] = []
        for folder in folders:
            if not (folder / "spec.toml").exists():
                raise ValueError(f"{folder} is no run folder; make one with: onearm overlay --out {folder}")
            with bars(as_json) as progress:
                run = Run(RunSpec.read(folder / "spec.toml"), folder, progress)
                results.append(find(run, at=at or None, rollouts=rollouts, replicas=replicas))
            if not as_json:
                Console(width=max(100, Console().width)).print(report(results[-1:]))
        show("pooled", {"runs": results, **pooled(results)} if as_json else pooled(results), as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    with reporting(as_json):
        from experiments.doctor import examine

        checks = examine()
        if as_json:
            print(
                json.dumps(
                    {"ok": all(c.ok for c in checks if c.needed), "checks": [c._asdict() for c in checks]}
                )
            )
            return
        for check in checks:
            lacking = "[red]missing [/]" if check.needed else "optional"
            mark = "[green]ok[/]      " if check.ok else lacking
            errors.print(f"{mark} {check.name:<22} {check.found}", highlight=False, soft_wrap=True)
            if not check.ok:
                errors.print(f"        {check.fix}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
