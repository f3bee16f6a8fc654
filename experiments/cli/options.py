"""The options that commands share: name, type and help, each in one place; and what they say of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from theory.pay import PAYS
from theory.refusal import Refusal

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
PayName = Annotated[
    str | None,
    typer.Option(
        "--pay",
        help="What a judged response is paid; KIND, KIND:FIELD=VALUE,... (noisy:false_positive=.1) or a sum of these "
        "(clean+.5*overlong:limit=64,buffer=16). Default: clean. "
        + " ".join(f"{kind}: {(pay.__doc__ or '').splitlines()[0]}" for kind, pay in PAYS.items()),
    ),
]
Stop = Annotated[
    str | None,
    typer.Option(
        help=r"One character that ends a response of --query; \n is a newline. For base models, which would go on."
    ),
]
SOURCES = (
    'JSONL or Parquet file, rows {"query": ..., "answer": ...}; or builtin; reasoning-gym:NAME; gsm8k or math, from '
    "the hub or a file (gsm8k:FILE)."
)
Queries = Annotated[str | None, typer.Option(help=f"{SOURCES} Makes a folder per query, and summary.json.")]
QuerySet = Annotated[str, typer.Option("--queries", help=SOURCES)]
Size = Annotated[
    int | None,
    typer.Option(help="So many of the queries, drawn with the seed. Default: all; of reasoning-gym 10."),
]
Split = Annotated[
    str | None, typer.Option(help="Of gsm8k or math from the hub: train or test. Default: test.")
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
    typer.Option(help="sgd or adam (torch's betas and eps, no weight decay). Default: the rule's own."),
]
Coordinates = Annotated[
    int | None,
    typer.Option(
        help="Parameters that are simulated where the optimiser acts on parameters. Default: 4096 for adam and clips."
    ),
]
COORDINATES = 4096
Relinearise = Annotated[
    list[int] | None,
    typer.Option(
        help="Probe networks anew where the forecast is after so many rounds, and simulate on from there; repeatable."
    ),
]
RelineariseNetworks = Annotated[
    int | None, typer.Option(help="Networks that --relinearise probes anew, at least 4. Default: 4.")
]
RelineariseRollouts = Annotated[
    int | None, typer.Option(help="Rollouts of each of these probes. Default: those of --probe-rollouts.")
]
Precision = Annotated[
    float | None,
    typer.Option(
        help="Stop probing where p0 is known to this relative half-width (95%), --probe-rollouts being the most."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
DType = Annotated[
    str, typer.Option(help="float32, float64 or bfloat16 (another policy; a probe says how far off).")
]
Source = Annotated[
    str, typer.Option(help="Where smollm2-135m and gemma3-270m come from: wheel (no hub needed) or hub.")
]
MicroBatch = Annotated[int, typer.Option(help="Rollouts differentiated at once; fewer need less memory.")]
Recompute = Annotated[
    bool, typer.Option(help="Run adapted blocks again in the backward pass: less memory, more time.")
]
Out = Annotated[Path, typer.Option(help="Run folder. The same call again goes on where it stopped.")]


def training_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `TrainingSpec` that a command's options name, which are given by the names they have there.

    Commands without `full`, `optimiser`, `coordinates` and `relinearise` leave them out.
    """
    from experiments.specs import ModelSpec, ProbeSpec
    from theory.rules.dialects import optimised, preset

    fields = {name: given[name] for name in ("rounds", "replicas", "max_tokens", "seed")}
    fields["model"] = ModelSpec(
        **{name: given[name] for name in ("device", "dtype", "source")}, name=given["model"]
    )
    rule = preset(given["rule"], eta=given["eta"], rollouts=given["rollouts"])
    fields["rule"] = optimised(rule, given.get("optimiser"))
    probe = {name: given[name] for name in ("precision", "sketch")}
    if "coordinates" in given:
        linear = fields["rule"].optimiser.linear
        asked = given["coordinates"]
        probe["coordinates"] = COORDINATES if asked is None and not linear else asked
    fields["probe"] = ProbeSpec(rollouts=given["probe_rollouts"], **probe)
    fields |= _relinearised(*(given.get(f"relinearise{name}") for name in ("", "_networks", "_rollouts")))
    return fields | _adapter(given.get("full", False), given["adapter_blocks"])


def _relinearised(rounds: list[int] | None, networks: int | None, rollouts: int | None) -> dict[str, Any]:
    """The field `forecast` of a spec, where the command line says something of it."""
    from experiments.specs import ForecastSpec, RelineariseSpec

    options = {"networks": networks, "rollouts": rollouts}
    asked = {name: value for name, value in options.items() if value is not None}
    if not rounds:
        if asked:
            raise Refusal(
                f"--relinearise-{next(iter(asked))} is of --relinearise; give it, or leave both out"
            )
        return {}
    return {"forecast": ForecastSpec(relinearise=RelineariseSpec(rounds=tuple(rounds), **asked))}


def _adapter(full: bool, blocks: str | None) -> dict[str, Any]:
    """The field `adapter` of a spec, where the command line says something of it."""
    from llm_bridge.network.specs import AdapterSpec, FullSpec

    if full and blocks is not None:
        raise Refusal("--full trains every block and --adapter-blocks names some; give one of them")
    if full:
        return {"adapter": FullSpec()}
    return {} if blocks is None else {"adapter": AdapterSpec(blocks=blocks)}  # pyright: ignore[reportArgumentType]


def asked_of(
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
    from llm_bridge.queries.builtin import DEFAULT
    from llm_bridge.queries.query import Query
    from llm_bridge.queries.sources import parse_source

    if stop is not None and query is None:
        raise Refusal("--stop is of --query; with --queries, give each row a field stop")
    if many is None and (size, split) != (None, None):
        raise Refusal("--size and --split are of --queries; give it, or leave them out")
    if many is not None:
        if query is not None or answer is not None:
            raise Refusal("--queries and --query/--answer exclude each other; give one of them")
        return parse_source(many, seed=seed, size=size, split=split, verifier=verifier)
    if query is None and answer is None:
        return [DEFAULT if verifier is None else DEFAULT.judged_by(verifier)]
    if query is None or answer is None:
        raise Refusal("--query and --answer belong together; give both")
    stop = "\n" if stop == r"\n" else stop
    given = {"verifier": verifier, "stop": stop}
    return [Query(prompt=query, answer=answer, **{k: v for k, v in given.items() if v is not None})]
