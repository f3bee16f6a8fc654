"""The gallery: `make gallery` draws every picture below, and those of the laws, into figures/gallery/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from rich.progress import track

from bandit_sim import ArmClasses, TreeArms, simulate
from bandit_sim.verifiers import NegativeOnly, PlusMinus, VerifierSpec
from experiments.folder.store import replacing
from experiments.studies import law_gallery
from figures.lines import Line, draw_lines
from figures.style import BLUE, GREY, save_figure
from theory.curves import Curves
from theory.refusal import Refusal
from theory.rules import LeaveOneOut, MaxRL, Rule, Sign
from theory.rules.dialects import preset
from theory.rules.optimiser import SGD
from theory.trees.synthetic_tree import synthetic_tree

SEEDS, HUGE = 1024, 10**12


def _line(
    name: str, curves: Curves, metric: str = "success", *, band: bool = False, dashed: bool = False
) -> Line:
    """The mean over seeds, and where asked the central half of them."""
    half = curves.quantiles(metric, [0.25, 0.75]) if band else None
    return Line(name, curves.at, curves.mean(metric), half, dashed)


def over_arms() -> Figure:
    """Learning curves over the number of arms, one in ten of them correct."""
    rule = preset("minimalist", eta=1.0)
    lines = [
        _line(
            f"{arms:,}",
            simulate(ArmClasses.uniform(arms=arms, correct=arms // 10), rule, 4001, SEEDS, 0, every=20),
        )
        for arms in (10, 100, 1000, 10_000)
    ]
    return draw_lines(
        lines,
        "More arms, slower: the mass is spread",
        f"one arm in ten correct, raw reward, η = 1, {SEEDS:,} seeds",
        log_x=True,
    )


def over_p0() -> Figure:
    """Learning curves over the success probability at the start, one correct arm of a million million."""
    rule = preset("minimalist", eta=1.0)
    lines = []
    for p0 in (0.3, 0.1, 0.03, 0.01, 0.003):
        arms = ArmClasses.two_class(arms=HUGE, correct=1, p0=p0)
        lines.append(_line(f"{p0:g}", simulate(arms, rule, 3001, SEEDS, 0, every=5)))
    return draw_lines(
        lines, "Hard queries wait: time ~ 1 / (η p0)", f"one correct arm of 10¹², raw reward, η = 1, {SEEDS:,} seeds",
        log_x=True,
    )  # fmt: skip


def over_rollouts() -> Figure:
    """Learning curves over the rollouts of a group, against rollouts spent."""
    arms = ArmClasses.two_class(arms=HUGE, correct=1, p0=0.05)
    lines = []
    for n in (2, 4, 8, 16, 32):
        curves = simulate(
            arms, preset("rloo", eta=1.0, rollouts=n), 1601 // n, SEEDS, 0, every=max(1, 32 // n)
        )
        lines.append(Line(f"n = {n}", curves.at * n, curves.mean("success")))
    return draw_lines(
        lines, "Rollouts in a group against rounds", f"leave-one-out, p0 = .05, η = 1, {SEEDS:,} seeds",
        xlabel="rollouts spent",
    )  # fmt: skip


def over_signals() -> Figure:
    """Learning curves over the learning signal, eight rollouts each."""
    arms = ArmClasses.two_class(arms=HUGE, correct=1, p0=0.02)

    def rule(**fields: object) -> Rule:
        return Rule.model_validate({"optimiser": SGD(eta=0.5), "rollouts": 8, **fields})

    cases: dict[str, tuple[Rule, VerifierSpec | None]] = {
        "raw": (rule(), None),
        "leave-\none-out": (rule(signal=LeaveOneOut()), None),
        "mean-std": (rule(signal={"kind": "group_mean_std"}), None),
        "MaxRL": (rule(signal=MaxRL()), None),
        "sign": (rule(signal=Sign()), None),
        "raw, ±1": (rule(), PlusMinus()),
    }
    # Raw and leave-one-out have one drift: dashed, so that both are seen.
    lines = [
        _line(
            name,
            simulate(arms, r, 251, SEEDS, 0, every=4, verifier=verifier),
            dashed=name.startswith("leave"),
        )
        for name, (r, verifier) in cases.items()
    ]
    return draw_lines(
        lines,
        "What the learning signal changes",
        f"8 rollouts, p0 = .02, η = 0.5, 10¹² arms, {SEEDS:,} seeds",
    )


def randomness() -> Figure:
    """The minimalist configuration seed by seed."""
    arms = ArmClasses.two_class(arms=HUGE, correct=1, p0=0.02)
    curves = simulate(arms, preset("minimalist", eta=1.0), 401, SEEDS, 0)
    singles = [Line("", curves.at, curves["success"][s], colour=GREY) for s in range(12)]
    band = curves.quantiles("success", [0.05, 0.95])
    mean = Line("mean", curves.at, curves.mean("success"), band, colour=BLUE)
    return draw_lines(
        [*singles, mean],
        "One rule, one query, many fates",
        f"raw reward, p0 = .02, η = 1; 12 of {SEEDS:,} seeds",
    )


def winner_takes_all() -> Figure:
    """Ten correct arms alike at the start: the share of the largest in their mass."""
    arms = ArmClasses.two_class(arms=HUGE, correct=10, p0=0.2)
    lines = []
    for name, rule in {
        "raw": preset("minimalist", eta=1.0),
        "leave-\none-out,\nn = 8": preset("rloo", eta=1.0, rollouts=8),
    }.items():
        curves = simulate(arms, rule, 301, SEEDS, 0, observe=("success", "winner_share"), every=2)
        lines.append(_line(name, curves, "winner_share", band=True))
    return draw_lines(
        lines, "Winner takes all among correct arms", f"10 correct arms of 10¹², p0 = .2, η = 1, {SEEDS:,} seeds",
        ylabel="largest share of the correct mass", limits=(0, 1.02),
    )  # fmt: skip


def collapse() -> Figure:
    """Negative reward with features that correct and wrong responses share."""
    rule = preset("minimalist", eta=2.0)
    lines = []
    overlaps: dict[str, dict[str, float]] = {
        "none": {},
        "wrong\nalone": {"wrong_overlap": 4.0},
        "cross 2": {"wrong_overlap": 4.0, "cross": 2.0},
        "cross 4": {"wrong_overlap": 4.0, "cross": 4.0},
    }
    for name, overlap in overlaps.items():
        near = {"near": 10} if overlap else {}
        tree = synthetic_tree(0.02, correct=2, wrong=20, within=4.0, **overlap, **near)
        curves = simulate(TreeArms.from_tree(tree), rule, 301, 256, 0, verifier=NegativeOnly(), every=3)
        share = (curves["success"] < 0.002).mean(axis=0)
        lines.append(Line(name, curves.at, share))
    return draw_lines(
        lines, "Negative reward collapses shared features", "reward r - 1, p0 = .02, η = 2, 256 seeds",
        ylabel="share of seeds below p0 / 10", limits=(0, 1.02),
    )  # fmt: skip


PICTURES: dict[str, Callable[[], Figure]] = {
    "curves_over_arms": over_arms,
    "curves_over_p0": over_p0,
    "curves_over_rollouts": over_rollouts,
    "curves_over_signals": over_signals,
    "randomness": randomness,
    "winner_takes_all": winner_takes_all,
    "collapse": collapse,
    **law_gallery.PICTURES,
}


def draw(out: Path = Path("figures/gallery"), only: str | None = None) -> None:
    """Draw the pictures as PNG into a folder, or one of them. Errors: Refusal for a name that no picture has."""
    if only is not None and only not in PICTURES:
        raise Refusal(f"--only {only!r} is no picture; choose {', '.join(PICTURES)}")
    out.mkdir(parents=True, exist_ok=True)
    for name in track([only] if only else list(PICTURES), "pictures"):
        with replacing(out / f"{name}.png") as temporary:
            save_figure(PICTURES[name](), temporary)
