"""Trials of convergence, regret and commitment."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import expit, logit, softmax

from bandit_sim import Arms, replay, simulate
from experiments.studies.law_trials.bandits import averaged, exact, places, rule_of, shared
from experiments.studies.law_trials.pulls import rademacher, softmax_regret
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.laws import exact_gradient, growth
from theory.laws.arguments import Floats


def _gap(sample: Sample, distance: float, arms: int, rounds: int) -> Floats:
    """(S, T) gap of the simulator with 256 rollouts, all but the exact gradient."""
    bandit = Arms.from_masses(np.ones(arms), [1.0] + [1 - distance] * (arms - 1))
    rule = rule_of("leave_one_out", exact_gradient.STEP, 256)
    return 1 - simulate(bandit, rule, rounds + 1, sample.seeds, sample.seed, observe=("success",))["success"]


def convergence(x: Floats, sample: Sample, distance: float, arms: int) -> dict[str, Seen]:
    at = places(x, [3, 30, 300, 1000])
    gap = averaged(at, _gap(sample, distance, arms, 1100)[:, x[at].astype(int)])
    return {
        "gap": gap,
        "upper bound": gap._replace(sense="<="),
        "lower bound": gap._replace(sense=">="),
        "late": Seen(at[-1:], gap.mean[-1:], gap.error[-1:]),
    }


def cumulative(x: Floats, sample: Sample) -> dict[str, Seen]:
    at = np.flatnonzero(x <= 1000)
    total = np.cumsum(_gap(sample, 0.5, 3, 1000)[:, 1:], axis=1)
    return {"sum of gaps": averaged(at, total[:, x[at].astype(int) - 1], "<=")}


def _escape(best: float, worse: float, distance: float, deficit: float, eta: float) -> float:
    """Time until pi_1 = 1/2 in the softmax flow of three arms."""
    reward = np.array([distance, 0.0, -deficit])

    def flow(_: float, theta: Floats) -> Floats:
        pi = softmax(theta)
        return eta * pi * (reward - pi @ reward)

    def half(_: float, theta: Floats) -> float:
        return float(softmax(theta)[0] - 0.5)

    event: Any = half
    event.terminal = True
    start = np.log([best, 1 - best - worse, max(worse, 1e-300)])
    path = solve_ivp(flow, (0, 1e14), start, "LSODA", events=event, rtol=1e-8, atol=1e-10)
    return float(path.t_events[0][0])


def corner(
    x: Floats, sample: Sample, distance: float, eta: float, worse: float, deficit: float
) -> dict[str, Seen]:
    at = places(x, [1e-5, 1e-4])
    return {
        name: exact(at, [_escape(float(best), third, distance, deficit, eta) for best in x[at]])
        for name, third in (("two arms", 0.0), ("with a worse third", worse))
    }


def two_arm_regret(x: Floats, sample: Sample, eta: float, distance: float) -> dict[str, Seen]:
    at, seeds = places(x, [30, 300, 4000]), (sample.seeds, sample.seed)
    last = x[at].astype(int) - 1
    noisy = softmax_regret([distance, 0], rademacher([distance, 0]), eta, 4100, *seeds)
    still = softmax_regret([0, -distance], rademacher([0, -distance], [False] * 2), eta, 4100, *seeds)
    return {"bound": averaged(at, noisy[:, last], "<="), "without noise": averaged(at, still[:, last], "<=")}


def exponent(x: Floats, sample: Sample, distance: float, arms: int) -> dict[str, Seen]:
    at, seen, errors = places(x, [1.0, 3.0]), [], []
    means = [distance] + [0.0] * (arms - 1)
    for eta in x[at]:
        pay = rademacher(means, [True] + [False] * (arms - 1))
        lost = softmax_regret(means, pay, float(eta), 8000, sample.seeds, sample.seed)[:, [1999, 7999]]
        mean = lost.mean(axis=0)
        influence = (lost[:, 1] / mean[1] - lost[:, 0] / mean[0]) / np.log(4)
        seen.append(np.log(mean[1] / mean[0]) / np.log(4))
        errors.append(influence.std() / np.sqrt(len(lost)))
    return {"least exponent": Seen(at, np.array(seen), np.array(errors))}


def stuck(x: Floats, sample: Sample, reward: float, arms: int) -> dict[str, Seen]:
    """1 - exponent of the share of seeds that pulled a wrong arm alone, as late as 512 rounds."""
    at, seen, errors = places(x, [2.0, 4.0]), [], []
    means = [1.0] + [reward] * (arms - 1)
    for eta in x[at]:
        lost = softmax_regret(
            means, rademacher(means, [False] * arms), float(eta), 512, sample.seeds, sample.seed
        )
        share = [float((lost[:, m - 1] > (1 - reward) * (m - 4)).mean()) for m in (64, 512)]
        seen.append(1 + np.log(share[1] / share[0]) / np.log(8))
        errors.append(np.sqrt((1 / share[1] - 1 / share[0]) / sample.seeds) / np.log(8))
    return {"least exponent": Seen(at, np.array(seen), np.array(errors))}


def order(x: Floats, sample: Sample, eta: float, arms: int) -> dict[str, Seen]:
    at, means = places(x, [100, 3000]), [0.3] + [0.0] * (arms - 1)
    lost = softmax_regret(means, rademacher(means), eta, 3500, sample.seeds, sample.seed)
    return {"K log(K) log(T) / eta": averaged(at, lost[:, x[at].astype(int) - 1], "<=")}


def step_sizes(x: Floats, sample: Sample, distance: float) -> dict[str, Seen]:
    """Safe steps solve theorem 4's equation; at Mei's, E|g|^2 / |grad| of random policies is below 1 / (5 eta)."""
    at, rng = places(x, [4, 20, 80]), np.random.default_rng(sample.seed)
    solved, steps = [], []
    for k in x[at].astype(int):
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if middle * np.exp(2 * middle) < 2 * distance / (k + 2) else (low, middle)
            )
        solved.append(low)
        means = 1 - distance * np.arange(k) / 1.0
        pi = rng.dirichlet(np.full(k, 0.3), size=500)
        ratio = growth.second_moment(pi, np.ones(k)) / np.maximum(growth.gradient_norm(pi, means), 1e-12)
        steps.append(1 / (5 * np.max(ratio[growth.gradient_norm(pi, means) > 1e-9])))
    return {"safe": exact(at, solved), "growth": exact(at, steps, ">=")}


def distance_free(x: Floats, sample: Sample) -> dict[str, Seen]:
    at, worst = places(x, [300, 2000]), []
    for rounds in x[at].astype(int):
        eta = float(np.sqrt(np.log(rounds) / rounds))
        lost = [
            softmax_regret([gap, 0], rademacher([gap, 0]), eta, int(rounds), sample.seeds, sample.seed)[:, -1]
            for gap in (0.03, 0.1, 0.3)
        ]
        worst.append(max(lost, key=lambda v: float(v.mean())))
    return {"regret at the worst distance": averaged(at, np.stack(worst, axis=1), "<=")}


def on_probabilities(x: Floats, sample: Sample, alpha: float) -> dict[str, Seen]:
    """Bernoulli .9 against .3; two arms, the rarer one moves by alpha p^2 r / pi of the pulled arm."""
    at, rng, p = places(x, [100, 4000]), np.random.default_rng(sample.seed), np.full(sample.seeds, 0.5)
    lost = np.zeros((sample.seeds, 4200))
    for t in range(lost.shape[1]):
        lost[:, t] = 0.6 * p
        worse = rng.random(sample.seeds) < p
        paid = rng.random(sample.seeds) < np.where(worse, 0.3, 0.9)
        size = alpha * np.minimum(p, 1 - p) ** 2 * paid
        p = p + np.where(worse, size / p, -size / (1 - p))
    return {"regret": averaged(at, np.cumsum(lost, axis=1)[:, x[at].astype(int) - 1], "<=")}


def streaks(
    x: Floats, sample: Sample, p0: float, eta: float, advantage: float, pulls: int
) -> dict[str, Seen]:
    """Softmax through the simulator's own updates, pulls forced; natural gradient by its K = 2 logits."""
    at = places(x, [0, 1, 10, 100])
    m = int(x[at].max())
    forced = np.zeros((1, m + 1, 1), int)
    arms = Arms(np.array([logit(p0), 0.0]), np.array([1.0, 0.0]))
    # Two arms move their logit twice as far as the single logit of the law: half the step.
    p = replay(arms, rule_of("raw", eta / 2), forced, np.full(forced.shape, advantage))[0]
    natural = {False: [], True: []}
    for value, path in natural.items():
        theta = np.array([logit(p0), 0.0])
        for _ in range(m + 1):
            pi = softmax(theta)
            path.append(1 - pi[0])
            theta[0] += eta * advantage * (pi[1] if value else 1.0) / pi[0]
    return {
        "softmax: 1 - p": exact(at, 1 - p[at]),
        "natural: 1 - p": exact(at, np.array(natural[False])[at]),
        "natural, value baseline: 1 - p": exact(at, np.array(natural[True])[at]),
    }


def commitment(x: Floats, sample: Sample, p0: float, advantage: float) -> dict[str, Seen]:
    """Seeds of natural gradient that pulled one arm alone for 300 rounds; the others are paid nothing."""
    at, kept = places(x, [0.3, 1.0, 3.0]), []
    for eta in x[at]:
        rng, alone, position = np.random.default_rng(sample.seed), np.ones(sample.seeds, bool), logit(p0)
        for _ in range(300):
            p = expit(position)
            alone &= rng.random(sample.seeds) < p
            position += float(eta) * advantage / p
        kept.append(alone)
    return {"for ever, natural": shared(at, np.stack(kept, axis=1))}


def growing_noise(x: Floats, sample: Sample, distance: float, arms: int) -> dict[str, Seen]:
    """|g|^2 and g of single pulls, summed by hand."""
    at = places(x, [1e-3, 0.03, 0.3])
    means, ratios = 1 - distance * np.arange(arms), []
    for rare in x[at]:
        pi = np.array([1 - rare] + [rare / (arms - 1)] * (arms - 1))
        scores = np.eye(arms) - pi
        square, mean = pi @ (scores**2).sum(axis=1), (pi * means) @ scores
        ratios.append(square / np.linalg.norm(mean))
    return {
        "E|g|^2 / |grad|": exact(at, ratios),
        "constant": exact(at, ratios, "<="),
        "two-arm corner": exact(at[:1], ratios[:1]),
    }


TRIALS = [
    Trial("exact-gradient", "simulator with 256 rollouts", convergence, within=0.05, relative=True, seeds=16),
    Trial("cumulative-gap", "simulator with 256 rollouts", cumulative, seeds=16),
    Trial("corner-time", "softmax flow of three arms", corner, within=0.03, relative=True, seeds=0,
          where={"worse": 0.01}),
    Trial("two-arm-regret", "regret of simulated seeds", two_arm_regret, seeds=300),
    # The theorem is of T -> inf; T = 8,000 is not.
    Trial("regret-exponent", "exponent fitted to simulated regret, T = 2,000 to 8,000", exponent, within=0.1,
          seeds=400),
    Trial("stuck-exponent", "simulated seeds that never left the wrong arm", stuck, within=0.03, seeds=4000),
    Trial("regret-order", "regret of simulated seeds", order, seeds=200),
    Trial("step-sizes", "bisection of the equation; random policies", step_sizes, within=1e-9, seeds=0,
          where={"distance": 0.01}),
    Trial("distance-free", "worst of three distances, simulated seeds", distance_free, seeds=200),
    Trial("samba", "regret of simulated seeds", on_probabilities, seeds=1000),
    Trial("streaks", "updates of two logits, pulls forced", streaks, within=1e-6, seeds=0),
    Trial("commitment", "simulated seeds that never left the arm", commitment, seeds=20_000),
    Trial("growth-condition", "moments of single pulls", growing_noise, within=0.05, relative=True, seeds=0),
]  # fmt: skip
