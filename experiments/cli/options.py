"""The options that commands share: name, type, default, help and the field of a `RunSpec`, each in one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from experiments.cli.command import Option

QUERY, MODEL, RULE, RUN, PROBE, OUTPUT = "Query", "Model", "Rule", "Run", "Probe and forecast", "Output"
"""Headings of help, in the order in which it has them."""

TEXT = Option("query", str | None, "Text of the query.", shown="a built-in one", panel=QUERY)
ANSWER = Option("answer", str | None, "The correct answer to --query.", panel=QUERY)
VERIFIER = Option(
    "verifier", str | None, "How a response is judged correct or wrong: {verifiers}.", panel=QUERY,
    shown="last_number, or what the row of --queries says",
)  # fmt: skip
STOP = Option(
    "stop", str | None,
    r"One character that ends a response to --query; \n is a newline. Base models would otherwise go on.", panel=QUERY,
)  # fmt: skip
SET = (
    'A set of queries: a JSONL or Parquet file with rows {"query": ..., "answer": ...}; builtin; {data_sets}, from the '
    "hub or from a file (gsm8k:FILE); or reasoning-gym:NAME."
)
QUERIES = Option(
    "queries", str | None, f"{SET} Each query is a run with a folder of its own, unless --together is given.",
    panel=QUERY,
)  # fmt: skip
QUERY_SET = replace(QUERIES, kind=str, default=..., help=SET)
"""For a command that wants one."""
SIZE = Option(
    "size", int | None, "Number of queries to draw from --queries, with the seed.", panel=QUERY,
    shown="all; of reasoning-gym 10",
)  # fmt: skip
SPLIT = Option(
    "split", str | None, "Which part of {data_sets} to take from the hub: train or test.", panel=QUERY, shown="test"
)  # fmt: skip

TOGETHER = Option(
    "together", bool, "Train all queries of --queries in one run: what one of them teaches the others.", False,
    panel=QUERY, flag="--together",
)  # fmt: skip
BATCH = Option(
    "batch", int | None, "With --together: number of queries in a round, drawn anew for each.", panel=QUERY, shown="all"
)  # fmt: skip
HELD_OUT = Option(
    "held_out", str | None,
    "With --together: queries that are looked at and never trained on. A number takes that many from the end of "
    "--queries; anything else is read as --queries is.",
    panel=QUERY,
)  # fmt: skip
LOOK_EVERY = Option(
    "look_every", int | None, "With --held-out: number of rounds from one look at these queries to the next.",
    panel=QUERY, shown="5",
)  # fmt: skip
LOOK_ROLLOUTS = Option(
    "look_rollouts", int | None, "With --held-out: rollouts of each query and replica in a look.", panel=QUERY,
    shown="4",
)  # fmt: skip

NAME = Option(
    "model", str, "A model by name ({models}), by its name on the hub, or a local folder.", "smollm2-135m", panel=MODEL,
    field="model.name",
)  # fmt: skip
SOURCE = Option(
    "source", str,
    "Where a model known by name comes from: wheel (installed with pip, no hub needed), hub, or auto, which prefers "
    "the wheel.",
    "auto", panel=MODEL, field="model.source",
)  # fmt: skip
DEVICE = Option("device", str, "cpu, cuda, mps or auto.", "cpu", panel=MODEL, field="model.device")
DTYPE = Option(
    "dtype", str,
    "Precision of the model's numbers: float32, float64 or bfloat16. In bfloat16 it is another policy, and the probe "
    "says how far off.",
    "float32", panel=MODEL, field="model.dtype",
)  # fmt: skip
ADAPTER_BLOCKS = Option(
    "adapter_blocks", str | None, "Number of blocks, from the top, that get adapters to train; or all.", panel=MODEL,
    shown="4; of tiny-arithmetic all",
)  # fmt: skip
FULL = Option(
    "full", bool,
    "Train every parameter of the model in place of adapters. Needs --replicas 1, and --sketch if the model is large.",
    False, panel=MODEL, flag="--full",
)  # fmt: skip

RULE_NAME = Option(
    "rule", str,
    "Update rule, which turns the rewards of a round into weights on its rollouts. One of {rules}.", "minimalist",
    panel=RULE,
)  # fmt: skip
PAY = Option(
    "pay", str | None,
    "What a judged response is paid. KIND, KIND:FIELD=VALUE,... (noisy:false_positive=.1), or a sum of these "
    "(clean+.5*overlong:limit=64,buffer=16). Kinds: {pays}.",
    panel=RULE, shown="clean",
)  # fmt: skip
ROLLOUTS = Option(
    "rollouts", int | None, "Responses sampled per query and round.", panel=RULE, shown="the rule's own"
)  # fmt: skip
ETA = Option(
    "eta", float, "Step size of the optimiser (eta): how far one round moves the model.", 0.15, panel=RULE
)
OPTIMISER = Option(
    "optimiser", str | None, "sgd, or adam with torch's betas and eps and no weight decay.", panel=RULE,
    shown="the rule's own",
)  # fmt: skip

ROUNDS = Option("rounds", int, "Number of rounds; each is one update.", 80, panel=RUN, field="rounds")
REPLICAS = Option(
    "replicas", int, "Number of independent runs, trained side by side in one batch.", 32, panel=RUN, field="replicas"
)  # fmt: skip
MAX_TOKENS = Option(
    "max_tokens", int, "Length of the longest response, in tokens.", 10, panel=RUN, field="max_tokens"
)
SEED = Option("seed", int, "Number from which every random draw follows.", 0, panel=RUN, field="seed")
MICRO_BATCH = Option(
    "micro_batch", int, "Number of rollouts differentiated at once; fewer need less memory.", 16, panel=RUN
)  # fmt: skip
RECOMPUTE = Option(
    "recompute", bool, "Compute adapted blocks again in the backward pass: less memory, more time.", False, panel=RUN,
    flag="--recompute",
)  # fmt: skip

PROBE_ROLLOUTS = Option(
    "probe_rollouts", int, "Number of responses sampled from the base model to measure it (the probe).", 2048,
    panel=PROBE, field="probe.rollouts",
)  # fmt: skip
PRECISION = Option(
    "precision", float | None,
    "Stop the probe early, once the initial success p0 is known to within this fraction of itself (95% interval).",
    panel=PROBE, field="probe.precision", shown="all of --probe-rollouts",
)  # fmt: skip
SKETCH = Option(
    "sketch", int | None,
    "Number of coordinates kept of each gradient in the probe, as a random projection; less memory, more noise.",
    panel=PROBE, field="probe.sketch", shown="all",
)  # fmt: skip
COORDINATES = Option(
    "coordinates", int | None,
    "Number of the model's parameters that are simulated, where the optimiser acts on each by itself.", panel=PROBE,
    field="probe.coordinates", shown="4096 for adam and clipped gradients",
)  # fmt: skip
RELINEARISE = Option(
    "relinearise", list[int] | None,
    "Round after which to probe again, at networks moved to where the forecast is by then, and to forecast on from "
    "there. For long runs and large steps. May be repeated.",
    panel=PROBE, field="forecast.relinearise.rounds",
)  # fmt: skip
RELINEARISE_NETWORKS = Option(
    "relinearise_networks", int | None, "Number of networks that --relinearise probes, at least 4.", panel=PROBE,
    field="forecast.relinearise.networks", shown="4",
)  # fmt: skip
RELINEARISE_ROLLOUTS = Option(
    "relinearise_rollouts", int | None, "Number of responses in each of these probes.", panel=PROBE,
    field="forecast.relinearise.rollouts", shown="as --probe-rollouts",
)  # fmt: skip

OUT = Option(
    "out", Path, "Folder of the run. The same command again goes on where it stopped.", ..., panel=OUTPUT
)  # fmt: skip

ASKED = (
    TEXT, ANSWER, VERIFIER, STOP, QUERIES, SIZE, SPLIT, TOGETHER, BATCH, HELD_OUT, LOOK_EVERY, LOOK_ROLLOUTS
)  # fmt: skip
"""What names the queries of a run."""
TRAINED = (
    NAME, SOURCE, DEVICE, DTYPE, ADAPTER_BLOCKS, FULL, RULE_NAME, PAY, ROLLOUTS, ETA, OPTIMISER, ROUNDS, REPLICAS,
    MAX_TOKENS, SEED, MICRO_BATCH, RECOMPUTE, PROBE_ROLLOUTS, PRECISION, SKETCH, COORDINATES,
    RELINEARISE, RELINEARISE_NETWORKS, RELINEARISE_ROLLOUTS,
)  # fmt: skip
"""What else a run depends on, or how it is computed."""
