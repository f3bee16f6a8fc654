"""What each approximation of a probe costs, judged on the enumerable model: `onearm study approximations`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bandit_sim import TreeArms, expected_step, replay, simulate
from experiments.compare.exact import Enumerated, enumerate_model
from experiments.folder.store import replacing, write_json
from figures.curves import draw_error_vs_eta
from figures.style import save_figure
from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.probe.measure import measure
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.rollouts.asked import Question
from llm_bridge.train import Trainer
from theory.rules.dialects import preset
from theory.rules.rule import Rule
from theory.trees.probe import Probe
from theory.trees.response_tree import ResponseTree

QUERY, MAX_TOKENS = "7+8=", 3
ROLLOUTS, PROBES, ETA, ROUNDS, SEEDS = 512, 4, 0.01, 40, 256
ETAS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
SMALL_CUT, USED_CUT, LARGE_CUT = 0.0, ProbeSpec().cut, 80.0
LATE_ETA, LATE_REPLICAS, LATE_ROUNDS, LATE_CUTS = 0.05, 16, (10, 20, 39), (0.0, 5.0, 20.0, 80.0)
KEEPS: tuple[Literal["correct", "all"], ...] = ("correct", "all")


def without_tails(probe: Probe) -> ResponseTree:
    return replace(probe, layout=replace(probe.layout, tails=())).tree()


def without_missing_mass(probe: Probe) -> ResponseTree:
    # Weights scale what singletons stand for; not quite zero, since members share a tail by weight.
    return probe.tree(np.full(len(probe.responses.counts), 1e-9))


def frozen_rest(probe: Probe) -> ResponseTree:
    """Rest edges without a score of their own: what lies off the tree neither pulls nor is pulled."""
    tree = probe.tree()
    rest = [e for e, edge in enumerate(probe.layout.edges) if edge.kind == "rest"]
    kernel = tree.kernel.copy()
    kernel[rest, :] = kernel[:, rest] = 0
    return replace(tree, kernel=kernel)


VARIANTS: dict[str, tuple[float, Callable[[Probe], ResponseTree]]] = {
    "sampled probe, as used": (USED_CUT, lambda probe: probe.tree()),
    "cut at 80 visits": (LARGE_CUT, lambda probe: probe.tree()),
    "no cut": (SMALL_CUT, lambda probe: probe.tree()),
    "no tails: rest is wrong": (USED_CUT, without_tails),
    "no missing mass": (USED_CUT, without_missing_mass),
    "rest without a score": (USED_CUT, frozen_rest),
}


def odd(text: str) -> float:
    """Reward of many different responses: the number that is written is odd."""
    return float(text.isdigit() and int(text) % 2 == 1)


def approximations(out: Path = Path("runs/approximations")) -> None:
    """Print the table and draw the one-round error against eta; writes both into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):
        model = load_model("tiny-arithmetic", dtype="float64")
        spec = AdapterSpec(rank=2, blocks=1)
        # One right answer for the one-round error: its enumeration trains once per right response.
        single = enumerate_model(
            model, QUERY, lambda t: float(model.decode(list(t)) == "15"), MAX_TOKENS, spec
        )
        errors = one_round_errors(single, single.probe())
        # Many right answers for the cuts and tails: there the rare ones matter.
        whole = enumerate_model(model, QUERY, lambda t: odd(model.decode(list(t))), MAX_TOKENS, spec)
        exact = whole.probe()
        question = Question(whole.prompt.tokens, lambda t: odd(model.decode(list(t))), model.end_tokens)
        rows, late = costs(whole, exact, question), late_errors(whole, exact, question)
    figure = draw_error_vs_eta(
        ETAS, {"tree\nkernel": errors}, "One round: forecast against enumeration", "tiny-arithmetic, float64"
    )
    for suffix in ("png", "svg"):
        with replacing(out / f"error_vs_eta.{suffix}") as temporary:
            save_figure(figure, temporary)
    write_json(
        out / "approximations.json", {"etas": list(ETAS), "errors": errors, "costs": rows, "late": late}
    )
    console = Console(width=max(110, Console().width))
    table = Table("eta", "relative error of the expected change of p in one round", show_edge=False)
    for eta, error in zip(ETAS, errors, strict=True):
        table.add_row(f"{eta:g}", f"{error:.2e}")
    console.print(table)
    columns = (
        "p0 error",
        "p0 spread",
        "slope error",
        "slope spread",
        f"p({ROUNDS}) error",
        f"p({ROUNDS}) spread",
    )
    table = Table("probe", *columns, show_edge=False)
    for name, row in rows.items():
        table.add_row(name, *(f"{100 * value:.1f}%" for value in row))
    console.print(table)
    table = Table("cut", *(f"error of p after {t} updates, same draws" for t in LATE_ROUNDS), show_edge=False)
    for name, row in late.items():
        table.add_row(name, *(f"{value:+.4f}" for value in row))
    console.print(table)


def late_errors(
    whole: Enumerated,
    exact: Probe,
    question: Question,
) -> dict[str, list[float]]:
    """Error of p where much has been learnt, per cut and `keep`: sampled probes against the whole tree,
    on the same draws.

    The draws are of real replicas, so that nothing but what the probe leaves out can differ: mean over probes
    and replicas of p(tree of the cut) - p(whole tree) before the update after `LATE_ROUNDS`.
    """
    rule = preset("minimalist", eta=LATE_ETA)
    trainer = Trainer(
        whole.split, [question], rule,
        replicas=LATE_REPLICAS, max_tokens=MAX_TOKENS, seed=1,
    )  # fmt: skip
    turns = list(trainer.run(ROUNDS))
    rewards = np.stack([turn.rewards for turn in turns], axis=1)[:, :, None]
    tokens = [[[turn.tokens[s]] for turn in turns] for s in range(LATE_REPLICAS)]
    truth = by_tree(exact, rule, tokens, rewards)
    rows: dict[str, list[float]] = {}
    for cut, keep in track([*product(LATE_CUTS, KEEPS)], "late"):
        errors = []
        for seed in range(PROBES):
            probe = probed(whole, question, cut, seed, keep)
            errors.append((by_tree(probe, rule, tokens, rewards) - truth).mean(axis=0))
        rows[f"{cut:g}, paths resolved: {keep}"] = [float(np.mean(errors, axis=0)[t]) for t in LATE_ROUNDS]
    return rows


def probed(
    whole: Enumerated, question: Question, cut: float, seed: int, keep: Literal["correct", "all"]
) -> Probe:
    """A sampled probe of the enumerated query."""
    spec = ProbeSpec(rollouts=ROLLOUTS, cut=cut, leaf_cut=min(3.0, cut))
    return measure(whole.split, [question], spec, max_tokens=MAX_TOKENS, seed=seed, keep=keep).probes[0]


def by_tree(
    probe: Probe, rule: Rule, tokens: list[list[list[tuple[int, ...]]]], rewards: np.ndarray
) -> np.ndarray:
    """(S, T) success before each round that a probe's tree kernel has from each replica's own history."""
    leaves = np.array([
        [[probe.leaf_of(y, r) for y, r in zip(*turn, strict=True)] for turn in zip(*run, strict=True)]
        for run in zip(tokens, rewards, strict=True)
    ])  # fmt: skip
    return replay(TreeArms.from_tree(probe.tree()), rule, leaves, rewards)


def one_round_errors(whole: Enumerated, exact: Probe) -> list[float]:
    """Relative error of the tree kernel's expected one-round change of p, per eta."""
    arms = TreeArms.from_tree(exact.tree())
    return [
        abs(expected_step(arms, preset("minimalist", eta=eta)) / whole.expected_step(eta) - 1)
        for eta in track(ETAS, "one round")
    ]


def costs(
    whole: Enumerated,
    exact: Probe,
    question: Question,
) -> dict[str, list[float]]:
    """Mean and spread over probes of the relative errors in p0, slope and p after the last round."""
    rule = preset("minimalist", eta=ETA)

    def numbers(tree: ResponseTree) -> np.ndarray:
        arms = TreeArms.from_tree(tree, MAX_TOKENS)
        slope = expected_step(arms, preset("minimalist", eta=1e-4)) / 1e-4
        return np.array([tree.success(), slope, simulate(arms, rule, ROUNDS, SEEDS, 0).mean("success")[-1]])

    truth = numbers(exact.tree())
    rows: dict[str, list[np.ndarray]] = {name: [] for name in VARIANTS}
    for seed in track(range(PROBES), "probes"):
        probes: dict[float, Probe] = {}
        for name, (cut, build) in VARIANTS.items():
            if cut not in probes:
                probes[cut] = probed(whole, question, cut, seed, "correct")
            rows[name].append(numbers(build(probes[cut])) / truth - 1)
    return {
        name: [
            float(x)
            for pair in zip(np.mean(values, axis=0), np.std(values, axis=0), strict=True)
            for x in pair
        ]
        for name, values in rows.items()
    }
