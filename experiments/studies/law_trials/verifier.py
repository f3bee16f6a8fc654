"""Trials of verifiers that err, and of pulls towards a reference policy."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax

from bandit_sim import Arms, simulate
from experiments.studies.law_trials.bandits import averaged, exact, places, thin, two_arms
from experiments.studies.law_trials.trial import Sample, Seen, Trial
from theory.laws import kl_recursion
from theory.laws.arguments import Floats
from theory.pay import Clean, Noisy, PaySpec
from theory.rules import K3, SGD, Rule


def _errs(false_negative: float, false_positive: float) -> PaySpec:
    if false_negative == false_positive == 0:
        return Clean()
    return Noisy(false_negative=false_negative, false_positive=false_positive)


def noisy(
    x: Floats,
    sample: Sample,
    p0: float,
    eta: float,
    rounds: int,
    false_negative: float,
    false_positive: float,
    rollouts: int,
) -> dict[str, Seen]:
    pay, seen = _errs(false_negative, false_positive), {}
    for name, signal in (("raw", "raw"), ("mean-std", "group_mean_std")):
        p, at = two_arms(signal, p0, eta, rounds, sample, 1.0, rollouts or 64, thin(rounds, 20), pay)
        seen[name] = averaged(at, p)
    return seen


def noisy_tail(
    x: Floats, sample: Sample, eta: float, false_negative: float, false_positive: float
) -> dict[str, Seen]:
    at = places(x, [500, 1000, 2000])
    rounds = 10 * round(float(x[at[-1]]) / 10)
    pay = _errs(false_negative, false_positive)
    p, when = two_arms("group_mean_std", 0.5, eta, rounds, sample, 1.0, 64, 10, pay)
    left = p if false_negative + false_positive > 1 else 1 - p
    return {"mass still to go": averaged(at, np.stack([np.interp(x[at], when, seed) for seed in left]))}


def natural_fixed_point(
    x: Floats, sample: Sample, p_ref: float, eta: float, geometry: float
) -> dict[str, Seen]:
    """Two logits: plain ascent on the reward beside natural ascent on the KL, from the reference to rest."""

    def rest(beta: float) -> float:
        def push(_: float, gap: Floats) -> Floats:
            q = expit(gap)
            reward = geometry * eta * (q * (1 - q)) / np.sqrt(q * (1 - q))
            return reward - beta * (gap - logit(p_ref))

        return float(
            expit(solve_ivp(push, (0, 400 / beta), [logit(p_ref)], "LSODA", rtol=1e-10, atol=1e-12).y[0, -1])
        )

    at = places(x, [0.03, 0.1, 0.3, 1, 10])
    settled = exact(at, [rest(float(beta)) for beta in x[at]])
    return {"lowest q*": settled, "strong KL": exact(at[-1:], settled.mean[-1:])}


def k3_fixed_point(x: Floats, sample: Sample, p_ref: float, youden: float) -> dict[str, Seen]:
    at, found = places(x, [0.2, 0.5, 1.0, 3.0]), []
    for beta in x[at]:
        rule = Rule(kl=K3(beta=float(beta)), optimiser=SGD(eta=0.04))
        arms, pay = Arms.two_class(arms=2, correct=1, p0=p_ref), _errs(1 - youden, 0.0)
        p = simulate(arms, rule, 1501, sample.seeds, sample.seed, every=10, pay=pay)["success"]
        found.append(p[:, 75:].mean(axis=1))
    return {"q*": averaged(at, np.stack(found, axis=1))}


CORRECT = np.array([1.0, 1.0, 0.0, 0.0, 0.0])


def _maximised(anchor: Floats, sampled: float, beta: float, eps: float | None) -> Floats:
    """argmax over five arms of E[A] - beta KL(pi || anchor), A by the statistics of the policy that sampled."""
    advantage = (CORRECT - sampled) / (1.0 if eps is None else np.sqrt(sampled * (1 - sampled) + eps))

    def loss(theta: Floats) -> float:
        logs = theta - float(np.logaddexp.reduce(theta))
        return float(-np.exp(logs) @ (advantage - beta * np.asarray(logs - np.log(anchor))))

    return np.asarray(softmax(minimize(loss, np.log(anchor), tol=1e-14, options={"gtol": 1e-9}).x))


def recursion(x: Floats, sample: Sample, p0: float, beta: float, rounds: int, eps: float) -> dict[str, Seen]:
    base, seen = np.where(CORRECT > 0, p0 * np.array([0.25, 0.75, 0, 0, 0]), (1 - p0) / 3), {}
    steps = min(rounds, 5)
    for kind in kl_recursion.KINDS:
        policy, path = base, [p0]
        for _ in range(steps):
            anchor = policy if "mirror" in kind else base
            policy = _maximised(anchor, float(policy @ CORRECT), beta, None if "mean_only" in kind else eps)
            path.append(float(policy @ CORRECT))
        seen[kind] = exact(np.arange(steps + 1), path)
    return seen


def recursion_fixed_points(x: Floats, sample: Sample, p_ref: float, eps: float) -> dict[str, Seen]:
    at = places(x, [1, 5, 20, 80])
    ends = np.array([kl_recursion.recursion("reference", p_ref, float(b), 3000, eps=eps)[-1] for b in x[at]])
    near = 1e-6 * ends * (1 - ends)
    rise = []
    for end, step, beta in zip(ends, near, x[at], strict=True):
        above, below = np.asarray(kl_recursion.amplify([end + step, end - step], p_ref, float(beta), eps))
        rise.append((above - below) / (2 * step))
    return {"lowest p*": exact(at, ends), "slope there": exact(at, rise)}


TRIALS = [
    Trial("noisy-verifier", "mean of simulated seeds under a verifier that errs", noisy, within=0.02, seeds=512,
          where={"rollouts": 8, "eta": 0.1, "rounds": 400}),
    Trial("noisy-tail", "mean of simulated failures", noisy_tail, within=0.15, relative=True, seeds=256,
          where={"eta": 0.2}),
    Trial("natural-kl", "integration of the flow from the reference to rest", natural_fixed_point, within=1e-2,
          relative=True, seeds=0),
    Trial("k3-kl", "simulated stationary mean", k3_fixed_point, within=0.015, seeds=256),
    Trial("kl-recursion", "numerical maximisation on the simplex", recursion, within=1e-5, seeds=0),
    Trial("kl-recursion-fixed-point", "the recursion after 3,000 rounds", recursion_fixed_points, within=1e-4,
          seeds=0),
]  # fmt: skip
