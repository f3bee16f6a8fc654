"""The laws' gallery, drawn by `make gallery`: a picture per group, the simulator beside the laws, and where they break.

Dashed are laws, in colour is the simulator (bands hold 90% of the seeds, bars are two standard errors). Each subtitle
says where the law stops to hold, and vermillion shows it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bandit_sim import ArmClasses, Arms, Contexts, TreeArms, simulate
from experiments.studies.law_trials import TRIALS, Sample
from experiments.studies.law_trials.bandits import passage, relative_deviation, rule_of, statistic, two_arms
from experiments.studies.law_trials.pulls import rademacher, softmax_regret
from experiments.studies.law_trials.trial import Seen
from figures.lines import Line, draw_lines
from figures.style import BLUE, GREEN, GREY, INK, VERMILLION
from theory.laws import birth_chain, clocks, fits, kernel_flow, kl_fixed_point, regret, replicator, tree_flow
from theory.laws.arguments import Floats
from theory.rules import K3, SGD, Rule
from theory.rules.dialects import preset
from theory.trees.synthetic_tree import synthetic_tree

SAMPLE = Sample(1024)


def _law(name: str, x: ArrayLike, y: ArrayLike, colour: str = INK) -> Line:
    return Line(name, x, y, dashed=True, colour=colour)


def _seeds(name: str, x: ArrayLike, p: Floats, colour: str) -> Line:
    return Line(name, x, p.mean(axis=0), np.quantile(p, [0.05, 0.95], axis=0), colour=colour)


def _marks(name: str, x: ArrayLike, seen: Seen, colour: str) -> Line:
    bars = np.stack([seen.mean - 2 * seen.error, seen.mean + 2 * seen.error])
    return Line(name, x, seen.mean, bars, colour=colour, points=True)


def minimalist() -> Figure:
    """Group 1: the birth chain of one correct arm, and ten correct arms that share its p0."""
    rounds, lines = 160, []
    for name, correct, colour in (("one correct", 1, BLUE), ("ten correct", 10, VERMILLION)):
        arms = ArmClasses.two_class(arms=10**12, correct=correct, p0=0.05)
        curves = simulate(arms, preset("minimalist", eta=1.0), rounds + 1, SAMPLE.seeds, 0, every=2)
        lines.append(_seeds(name, curves.at, curves["success"], colour))
    t, rungs = np.arange(rounds + 1), birth_chain.ladder(0.05, 1.0, rounds)
    lines.append(_law("chain", t, birth_chain.success_moments(rungs, rounds)[0]))
    lines.append(_law("mean field", t, clocks.success_after("raw", t, 0.05, 1.0), GREY))
    return draw_lines(
        lines, "The birth chain is exact at any step", "p0 = .05, η = 1; breaks where correct arms compete"
    )


def two_classes() -> Figure:
    """Group 2: mean-std in finite groups, and endless ones where a group rarely holds a success."""
    p0, eta, rounds, lines = 0.02, 0.2, 300, []
    t = np.arange(rounds + 1)
    for group, colour in ((64, BLUE), (4, VERMILLION)):
        p, at = two_arms("group_mean_std", p0, eta, rounds, Sample(256), 1.0, group, 5)
        lines.append(_seeds(f"G = {group}", at, p, colour))
        lines.append(_law("", t, clocks.success_after("group_mean_std", t, p0, eta, 1.0, group)))
    lines.append(_law("law,\nG = ∞", t, clocks.std_success(t, p0, eta), GREY))
    return draw_lines(
        lines, "Mean-std: the group's size is in the law", "p0 = .02, η = 0.2; G = ∞ breaks where G p0 << 1"
    )


def many_arms() -> Figure:
    """Group 3: concentration of the correct arms in mean field, and by single rollouts at a large step."""
    share = np.exp(-0.3 * np.linspace(0, 1, 5))
    share, wrong, horizon, lines = share / share.sum(), np.full(20, 0.05), 80, []
    for name, eta, rollouts, colour in (
        ("η = 0.1,\nn = 32", 0.1, 32, BLUE),
        ("η = 2,\nn = 1", 2.0, 1, VERMILLION),
    ):
        rounds = int(horizon / eta)
        masses = np.concatenate([0.2 * share, 0.8 * wrong])
        arms = Arms.from_masses(masses.tolist(), [1.0] * 5 + [0.0] * 20)
        curves = simulate(
            arms, rule_of("raw", eta, rollouts), rounds + 1, 256, 0, observe=("winner_share",),
            every=max(1, rounds // 40),
        )  # fmt: skip
        lines.append(_seeds(name, eta * curves.at, curves["winner_share"], colour))
    t = np.linspace(0, horizon, 81)
    path = replicator.many_arms(0.2, share, wrong, 1.0, t)
    lines.append(_law("law", t, replicator.winner_takes_all(share, path.tau).max(axis=1)))
    return draw_lines(
        lines, "Winner takes all, by drift or by chance", "5 correct arms of 25; breaks at large η: luck picks one",
        xlabel="η t (step size times rounds)", ylabel="largest share of the correct mass", limits=(0, 1.02),
    )  # fmt: skip


def noise() -> Figure:
    """Group 4: relative spread over seeds of the time to learn, by the chain and by the diffusion."""
    etas, times, p0 = np.array([0.1, 0.3, 1.0, 3.0, 10.0]), [], 0.01
    for eta in etas:
        mean, sd = birth_chain.time_moments(birth_chain.ladder(p0, float(eta), int(80 / eta) + 40), 0.5)
        every = max(1, int(mean) // 100)
        rounds = every * (int(mean + 12 * sd) // every)
        arms = ArmClasses.two_class(arms=10**12, correct=1, p0=p0)
        curves = simulate(arms, rule_of("raw", float(eta)), rounds + 1, SAMPLE.seeds, 0, every=every)
        times.append(passage(curves["success"], np.asarray(curves.at), 0.5)[:, 0])
    seen = statistic(np.arange(len(etas)), np.stack(times, axis=1), relative_deviation)
    fine = np.geomspace(0.1, 10, 60)
    lines = [
        _marks("seeds", etas, seen, BLUE),
        _law("chain,\np0 → 0", fine, birth_chain.relative_spread(fine)),
        _law("diffusion", fine[fine < 3], np.sqrt(fine[fine < 3] / 2), VERMILLION),
    ]
    return draw_lines(
        lines, "How much seeds differ depends on η alone", "one correct arm, p0 = .01; the diffusion breaks at η ~ 1",
        xlabel="step size η", ylabel="sd / mean of the time to p = ½", log_x=True,
    )  # fmt: skip


def regret_of_two_arms() -> Figure:
    """Group 5: theorem 1 of Baudry et al. below its step size, and what it would say beyond."""
    t, lines = np.unique(np.geomspace(10, 8000, 30).astype(int)), []
    cases = (("η = 0.1", 0.1, [True, True], BLUE), ("η = 1", 1.0, [True, False], VERMILLION))
    for name, eta, noisy, colour in cases:
        lost = softmax_regret([0.25, 0], rademacher([0.25, 0], noisy), eta, 8000, 400, 2)[:, t - 1]
        error = 2 * lost.std(axis=0) / np.sqrt(len(lost))
        lines.append(
            Line(
                name,
                t,
                lost.mean(axis=0),
                [lost.mean(axis=0) - error, lost.mean(axis=0) + error],
                colour=colour,
            )
        )
    lines.append(_law("bound", t, regret.two_arm_bound(t, 0.1, 0.25)))
    lines.append(_law("its log T\nat η = 1", t, np.log(1 + t) / 2, VERMILLION))
    return draw_lines(
        lines, "Regret: bounded by log T below a step", "gap .25; breaks beyond η = .26: a power of T",
        xlabel="rounds T", ylabel="regret", log_x=True, log_y=True,
    )  # fmt: skip


def kl() -> Figure:
    """Group 6: where k3 in the loss holds raw reward."""
    betas, lines = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 5.0]), []
    for name, eta, colour in (("η = 0.05", 0.05, BLUE), ("η = 2", 2.0, VERMILLION)):
        found = []
        for beta in betas:
            rule = Rule(kl=K3(beta=float(beta)), optimiser=SGD(eta=eta))
            p = simulate(Arms.two_class(arms=2, correct=1, p0=0.1), rule, 2001, 128, 0, every=10)["success"]
            found.append(p[:, 100:].mean(axis=1))
        values = np.stack(found, axis=1)
        error = values.std(axis=0) / np.sqrt(len(values))
        lines.append(_marks(name, betas, Seen(np.arange(6), values.mean(axis=0), error), colour))
    fine = np.geomspace(0.1, 5, 60)
    lines.append(_law("law", fine, kl_fixed_point.k3_fixed_point(0.1, fine)))
    return draw_lines(
        lines, "k3 stops learning at a fixed point", "p0 = .1, raw reward; breaks at steps of order 1",
        xlabel="β of k3", ylabel="success at rest", log_x=True, limits=(0, 1.02),
    )  # fmt: skip


def batch_split() -> Figure:
    """Group 7: scatter of a round of 32 rollouts, by how they are split between queries and rollouts."""
    held = TRIALS["batch-split"](seeds=4096)
    seen, x = held.seen["leave-one-out"], held.series["rollouts per query"]
    groups, large = x[seen.at].astype(int), []
    queries = [float(q) for q in np.linspace(0.05, 0.95, 32)]
    for group in groups:
        arms = Contexts.spectrum(queries, arms=4, correct=2, batch=32 // int(group), overlap=0.3, within=0.5)
        p = simulate(arms, preset("rloo", eta=10.0, rollouts=int(group)), 2, 4096, 0, observe=("success",))[
            "success"
        ]
        large.append((p[:, 1] - p[:, 0]) / 10)
    steps = np.stack(large, axis=1)
    scatter = statistic(seen.at, steps, lambda v: (v.var(axis=0), (v - v.mean(axis=0)) ** 2 - v.var(axis=0)))
    law, known = (held.series[name][seen.at] for name in ("leave-one-out", "no baseline to estimate"))
    unit = law.min()  # of the best split
    seen, scatter = (Seen(s.at, s.mean / unit, s.error / unit) for s in (seen, scatter))
    lines = [
        _marks("η = .01", groups, seen, BLUE),
        _marks("η = 10", groups, scatter, VERMILLION),
        _law("law", groups, law / unit),
        _law("no baseline\nto estimate", groups, known / unit, GREY),
    ]
    return draw_lines(
        lines, "A budget of 32 rollouts: the best split", "32 queries, leave-one-out; breaks at large steps",
        xlabel="rollouts per query", ylabel="variance of a round (best: 1)", log_x=True,
    )  # fmt: skip


def kernel() -> Figure:
    """Group 8: responses of eight tokens: the tree's flow, the two-number law and the sequence kernel."""
    eta, rounds = 0.05, 120
    made = synthetic_tree(0.05, wrong=16, depth=8, within=0.3, cross=-0.1, wrong_overlap=0.2)
    curves = simulate(TreeArms.from_tree(made), rule_of("raw", eta, 4), rounds + 1, 256, 0, every=3)
    mass, gram, t = made.leaf_probability(), made.sequence_kernel(), np.arange(rounds + 1)
    pair = kernel_flow.coupling(mass, made.reward, gram)
    two = np.linspace(0.0501, 0.9, 200)
    clock = np.asarray(kernel_flow.two_number_time(two, 0.05, eta, pair.correct, pair.cross))
    lines = [
        _seeds("simulated\ntree", curves.at, curves["success"], BLUE),
        _law("tree flow", t, tree_flow.tree_flow(made, eta, t)),
        _law(
            "sequence\nkernel",
            t,
            kernel_flow.sequence_flow(mass, made.reward, gram, eta, t) @ made.reward,
            GREEN,
        ),
        _law("two\nnumbers", clock[clock <= rounds], two[clock <= rounds], VERMILLION),
    ]
    return draw_lines(
        lines, "Shared parameters: the tree's flow", "8 tokens, p0 = .05, η = .05; whole responses break it"
    )


def fits_of_curves() -> Figure:
    """Group 9: ScaleRL's sigmoid fitted to the early part of a simulated curve."""
    p, at = two_arms("raw", 0.05, 0.5, 400, Sample(256), 1.0, 1, 4)
    lines, mean = [_seeds("seeds", at, p, BLUE)], p.mean(axis=0)
    for share, colour in ((0.4, INK), (0.1, VERMILLION)):
        early = (at > 0) & (at <= share * at[-1])
        fitted = fits.fit("sigmoid_in_log", at[early].astype(float), mean[early])
        ahead = fitted(at[1:].astype(float))
        lines.append(_law(f"fit to\n{share:.0%}", at[1:][ahead < 1.2], ahead[ahead < 1.2], colour))
    return draw_lines(
        lines, "Empirical laws extrapolate late, not early", "raw reward, p0 = .05; breaks before the bend is seen",
        limits=(0, 1.25),
    )  # fmt: skip


PICTURES: dict[str, Callable[[], Figure]] = {
    "law_1_minimalist": minimalist,
    "law_2_two_classes": two_classes,
    "law_3_many_arms": many_arms,
    "law_4_noise": noise,
    "law_5_regret": regret_of_two_arms,
    "law_6_kl": kl,
    "law_7_batch_split": batch_split,
    "law_8_kernel": kernel,
    "law_9_fits": fits_of_curves,
}
