"""What the trials share: the bandit and the rule that a law speaks of, and statistics with their standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit_sim import Arms, simulate
from experiments.studies.law_trials.trial import Sample, Seen
from theory.laws.arguments import Floats
from theory.pay import NegativeOnly, PaySpec, PlusMinus
from theory.refusal import Refusal
from theory.rules import SGD, GroupMean, GroupMeanStd, LeaveOneOut, MaxRL, Raw, Rule

RULES: dict[str, tuple[Any, PaySpec | None]] = {
    "raw": (Raw(), None),
    "leave_one_out": (LeaveOneOut(), None),
    "group_mean": (GroupMean(), None),
    "group_mean_std": (GroupMeanStd(eps=1e-12), None),
    "plus_minus": (Raw(), PlusMinus()),
    "negative_only": (Raw(), NegativeOnly()),
    "max_rl": (MaxRL(), None),
    "max_rl_centred": (MaxRL(baseline="mean"), None),
}
"""Signal of `theory.laws.two_class` -> its rule and pay. A value baseline knows q, which no rule does."""


def rule_of(signal: str, eta: float, rollouts: int = 1) -> Rule:
    return Rule(signal=RULES[signal][0], optimiser=SGD(eta=eta), rollouts=rollouts)


def two_arms(
    signal: str,
    p0: float,
    eta: float,
    rounds: int,
    sample: Sample,
    geometry: float = 1.0,
    rollouts: int = 1,
    every: int = 1,
    pay: PaySpec | None = None,
) -> tuple[Floats, NDArray[Any]]:
    """(S, T) success and (T,) rounds of two arms. Their logit moves by 2 eta': C eta / 2 gives any C."""
    curves = simulate(
        Arms.two_class(arms=2, correct=1, p0=p0), rule_of(signal, geometry * eta / 2, rollouts), rounds + 1,
        sample.seeds, sample.seed, observe=("success",), every=every, dtype="float64",
        pay=RULES[signal][1] if pay is None else pay,
    )  # fmt: skip
    return curves["success"], np.asarray(curves.at)


def thin(rounds: int, points: int = 40) -> int:
    """Rounds between two that are recorded, so that about `points` of them are, the last one too."""
    every = max(1, rounds // points)
    while rounds % every:
        every -= 1
    return every


def places(x: Floats, wanted: ArrayLike) -> NDArray[np.intp]:
    """Places along an ascending abscissa nearest to the wanted values (on a log scale where all are above 0)."""
    targets = np.atleast_1d(np.asarray(wanted, dtype=np.float64))
    f = np.log if x.min() > 0 and targets.min() > 0 else np.asarray
    return np.unique([int(np.abs(f(x) - f(t)).argmin()) for t in targets])


def exact(at: ArrayLike, values: ArrayLike, sense: Any = "=") -> Seen:
    """A calculation without chance."""
    mean = np.atleast_1d(np.asarray(values, dtype=np.float64))
    return Seen(np.atleast_1d(np.asarray(at, dtype=np.intp)), mean, np.zeros_like(mean), None, sense)


def averaged(at: ArrayLike, values: Floats, sense: Any = "=") -> Seen:
    """Mean over seeds of (S, N) values, its standard error, and the band that holds 90% of the seeds."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return Seen(
        np.asarray(at, np.intp), values.mean(axis=0), error, np.quantile(values, [0.05, 0.95], axis=0), sense
    )


def shared(at: ArrayLike, hits: NDArray[np.bool_]) -> Seen:
    """Share of seeds (S, N), with its binomial standard error (that of half a seed where none or all are hit)."""
    share, seeds = hits.mean(axis=0), len(hits)
    inside = np.clip(share, 0.5 / seeds, 1 - 0.5 / seeds)
    return Seen(np.asarray(at, np.intp), share, np.sqrt(inside * (1 - inside) / seeds))


def statistic(at: ArrayLike, values: Floats, of: Callable[[Floats], tuple[Floats, Floats]]) -> Seen:
    """A statistic of (S, N) values: `of` gives it (N,) and its influence (S, N), whose scatter is its error."""
    value, influence = of(values)
    return Seen(np.asarray(at, np.intp), value, influence.std(axis=0) / np.sqrt(len(values)))


def deviation(values: Floats) -> tuple[Floats, Floats]:
    """Standard deviation over seeds, and its influence."""
    centred = values - values.mean(axis=0)
    sd = np.maximum(values.std(axis=0), 1e-300)
    return sd, (centred**2 - sd**2) / (2 * sd)


def relative_deviation(values: Floats) -> tuple[Floats, Floats]:
    """Standard deviation over mean, and its influence."""
    mean = values.mean(axis=0)
    sd, influence = deviation(values)
    return sd / mean, influence / mean - sd * (values - mean) / mean**2


def passage(success: Floats, at: NDArray[Any], levels: ArrayLike) -> Floats:
    """(S, N) round at which each seed first passes each level, interpolated between recorded rounds.

    Errors: Refusal where a seed never does.
    """
    goals = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    times = np.empty((len(success), len(goals)))
    for j, goal in enumerate(goals):
        above = success >= goal
        if not above.any(axis=1).all():
            raise Refusal(f"{(~above.any(axis=1)).sum()} seeds never passed {goal:.3g}; simulate more rounds")
        after = np.maximum(above.argmax(axis=1), 1)
        row = np.arange(len(success))
        low, high = success[row, after - 1], success[row, after]
        part = np.clip((goal - low) / np.maximum(high - low, 1e-300), 0, 1)
        times[:, j] = at[after - 1] + part * (at[after] - at[after - 1])
    return times
