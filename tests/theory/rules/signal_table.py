"""Every signal as its source prints it, and what holds of it; one row per signal and per setting that matters.

A printed signal works on plain Python lists, one group or one round at a time, with a dictionary per query as
memory; `theory.rules.signals` works on whole arrays. Traits say which properties a signal has;
`test_conformance.py` checks that it has those, and that it lacks the others.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from theory.rules import (
    GPG,
    OPO,
    BatchMean,
    BatchMeanStd,
    Greedy,
    GroupMean,
    GroupMeanBatchStd,
    GroupMeanStd,
    GroupMeanWhitened,
    LeaveOneOut,
    MaxRL,
    MovingAverage,
    PassAtK,
    Raw,
    RewardWindow,
    Sign,
)


@dataclass(frozen=True)
class Rollout:
    """One rollout that is there."""

    reward: float
    group: int
    length: int
    role: int = 0


Memory = dict[int, Any]
Printed = Callable[[list[Rollout], Memory], list[float]]  # an advantage for each rollout of role 0, in order


# --- one reward, or one group, at a time -------------------------------------------------------------------


def each(formula: Callable[[float], float]) -> Printed:
    return lambda rollouts, memory: [formula(x.reward) for x in rollouts if x.role == 0]


def per_group(
    formula: Callable[[list[float], int], float], singleton: str = "error", extra: bool = False
) -> Printed:
    """A_i = formula(rewards of its group, its place there); a group of one as `singleton` says."""

    def advantages(rollouts: list[Rollout], memory: Memory) -> list[float]:
        result = []
        for x in (x for x in rollouts if x.role == 0):
            group = [y for y in rollouts if y.group == x.group and y.role <= (1 if extra else 0)]
            rewards = [y.reward for y in group]
            place = next(i for i, y in enumerate(group) if y is x)
            alone = x.reward if singleton == "raw" else 0.0
            result.append(alone if len(group) == 1 else formula(rewards, place))
        return result

    return advantages


def above_mean(r: list[float], i: int) -> float:
    return r[i] - statistics.fmean(r)


def above_the_others(r: list[float], i: int) -> float:
    return r[i] - statistics.fmean(r[:i] + r[i + 1 :])


def in_spreads(spread: Callable[[list[float]], float]) -> Callable[[list[float], int], float]:
    return lambda r, i: (r[i] - statistics.fmean(r)) / spread(r)


def lead(spread: Callable[[list[float]], float]) -> Callable[[list[float], int], float]:
    """The best response gets r_max - r_2nd, verl's `grpo_passk`."""

    def formula(r: list[float], i: int) -> float:
        first, second = sorted(r, reverse=True)[:2]
        return (first - second) / spread(r) if r[i] == first else 0.0

    return formula


def over_mean(r: list[float], i: int) -> float:
    m = statistics.fmean(r)
    return r[i] / m if m > 0 else 0.0


def above_over_mean(r: list[float], i: int) -> float:
    m = statistics.fmean(r)
    return (r[i] - m) / m if m > 0 else 0.0


def side(positive: float, negative: float, reference: float = 0.5) -> Callable[[float], float]:
    return lambda r: positive if r > reference else -negative if r < reference else 0.0


def opo(singleton: str) -> Printed:
    def advantages(rollouts: list[Rollout], memory: Memory) -> list[float]:
        result = []
        for x in (x for x in rollouts if x.role == 0):
            group = [y for y in rollouts if y.group == x.group and y.role == 0]
            baseline = sum(y.length * y.reward for y in group) / sum(y.length for y in group)
            alone = x.reward if singleton == "raw" else 0.0
            result.append(alone if len(group) == 1 else x.reward - baseline)
        return result

    return advantages


def greedy(rollouts: list[Rollout], memory: Memory) -> list[float]:
    result = []
    for x in (x for x in rollouts if x.role == 0):
        baseline = [y.reward for y in rollouts if y.group == x.group and y.role == 2]
        result.append(x.reward - statistics.fmean(baseline) if baseline else 0.0)
    return result


# --- one round at a time -----------------------------------------------------------------------------------


def batch_mean(singleton: str) -> Printed:
    def advantages(rollouts: list[Rollout], memory: Memory) -> list[float]:
        r = [x.reward for x in rollouts if x.role == 0]
        if len(r) == 1:
            return r if singleton == "raw" else [0.0]
        return [x - statistics.fmean(r) for x in r]

    return advantages


def whiten(x: list[float], lengths: list[int], ddof: int, root: Callable[[float], float]) -> list[float]:
    """Every token carries its response's value, as in verl's and OpenRLHF's masked whitening."""
    tokens = [value for value, length in zip(x, lengths, strict=True) for _ in range(length)]
    mean = statistics.fmean(tokens)
    scale = root(sum((t - mean) ** 2 for t in tokens) / max(len(tokens) - ddof, 1))
    return [(value - mean) / scale for value in x]


def whitened(
    ddof: int, root: Callable[[float], float], singleton: str, *, by_token: bool = True, group: bool = False
) -> Printed:
    def advantages(rollouts: list[Rollout], memory: Memory) -> list[float]:
        trained = [x for x in rollouts if x.role == 0]
        if not trained or (len(trained) == 1 and not group):
            return [x.reward if singleton == "raw" else 0.0 for x in trained]
        values = per_group(above_mean, singleton)(rollouts, memory) if group else [x.reward for x in trained]
        return whiten(values, [x.length if by_token else 1 for x in trained], ddof, root)

    return advantages


def group_mean_batch_std(rollouts: list[Rollout], memory: Memory) -> list[float]:
    r = [x.reward for x in rollouts if x.role == 0]
    scale = statistics.stdev(r) + 0.1 if len(r) > 1 else 1.0
    return [a / scale for a in per_group(above_mean)(rollouts, memory)]


def gpg(rollouts: list[Rollout], memory: Memory) -> list[float]:
    r = [x.reward for x in rollouts if x.role == 0]
    alpha = len(r) / max(sum(x != 0 for x in r), 1)
    return [alpha * a for a in per_group(above_mean, "raw")(rollouts, memory)]


# --- with memory -------------------------------------------------------------------------------------------


def moving_average(decay: float) -> Printed:
    """prime-rl's `rae` when a query has one rollout in the round; the rollouts' mean stands for several."""

    def advantages(rollouts: list[Rollout], memory: Memory) -> list[float]:
        trained = [x for x in rollouts if x.role == 0]
        result = [x.reward - memory.get(x.group, 0.0) for x in trained]
        for query in {x.group for x in trained}:
            mean = statistics.fmean([x.reward for x in trained if x.group == query])
            for _ in range(sum(x.group == query for x in trained)):
                memory[query] = decay * memory.get(query, 0.0) + (1 - decay) * mean
        return result

    return advantages


def window(size: int, spread: Callable[[list[float]], float], singleton: str = "raw") -> Printed:
    """asyttgrpo: a deque of rewards per query; the round's rewards enter, then every rollout is scored."""

    def advantages(rollouts: list[Rollout], memory: Memory) -> list[float]:
        trained = [x for x in rollouts if x.role == 0]
        for x in trained:
            memory.setdefault(x.group, deque(maxlen=size)).append(x.reward)
        result = []
        for x in trained:
            seen = list(memory[x.group])
            alone = x.reward if singleton == "raw" else 0.0
            result.append(alone if len(seen) == 1 else (x.reward - statistics.fmean(seen)) / spread(seen))
        return result

    return advantages


# --- the table ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignalRow:
    """A signal, its printed form and its traits.

    reads: whose rewards an advantage depends on: its "own" alone, its "group"'s, or the whole "round"'s.
    shift: adding a constant to all rewards changes nothing.
    silent: equal rewards give exactly nothing.
    scale: multiplying 0/1 rewards by c > 0 multiplies the signal by c ("linear"), leaves it (eps apart:
        "invariant"), or neither.
    sums: advantages add up to zero over each "group", over the "round", over each token of the round ("tokens").
    expectation: n -> c where E[update] = c times the gradient of the expected reward, 0/1 rewards, responses of
        one length, n rollouts compared.
    bound: n -> largest |A| of 0/1 rewards, n rollouts compared.
    copies: a round doubled under new labels gives each half the same direction.
    """

    spec: Any
    printed: Printed
    reads: Literal["own", "group", "round"] = "group"
    shift: bool = True
    silent: bool = True
    scale: Literal["linear", "invariant"] | None = "linear"
    sums: Literal["group", "round", "tokens"] | None = "group"
    expectation: Callable[[int], float] | None = None
    bound: Callable[[int], float] = lambda n: 1.0
    copies: bool = True

    @property
    def memory(self) -> bool:
        return bool(self.spec.init(np, 1))

    def __str__(self) -> str:
        fields = ", ".join(f"{k}={v}" for k, v in self.spec if k != "kind")
        return f"{self.spec.kind}({fields})"


def std(ddof: int, eps: float) -> Callable[[list[float]], float]:
    return lambda r: (statistics.stdev(r) if ddof else statistics.pstdev(r)) + eps


def highest(ddof: int) -> Callable[[int], float]:
    """|A| of one success of n in its own standard deviations: (n-1)/sqrt(n) or sqrt(n-1)."""
    return lambda n: (n - 1) / math.sqrt(n) if ddof else math.sqrt(n - 1)


def shrunk(n: int) -> float:
    return (n - 1) / n


FLOOR = GroupMeanStd(eps=0.3, eps_place="sqrt(max(var,eps))", singleton="zero")
UNDER = GroupMeanStd(ddof=0, eps=0.3, eps_place="sqrt(var+eps)", singleton="zero")
PLUS_PLUS = BatchMeanStd(ddof=1, eps=1e-8, eps_place="sqrt(var+eps)", singleton="zero")
PLUS_PLUS_BASELINE = GroupMeanWhitened(ddof=1, eps=1e-8, eps_place="sqrt(var+eps)", singleton="raw")
OF_THE_ROUND = {"reads": "round", "sums": None, "bound": lambda n: math.inf}

SIGNAL_ROWS: list[SignalRow] = [
    SignalRow(
        Raw(), each(lambda r: r), reads="own", shift=False, silent=False, sums=None, expectation=lambda n: 1.0
    ),
    # On 0/1 rewards 2r - 1, so twice the gradient; scaling rewards moves them across the reference.
    *(
        SignalRow(
            Sign(positive=plus, negative=minus),
            each(side(plus, minus)),
            reads="own",
            shift=False,
            silent=False,
            scale=None,
            sums=None,
            expectation=lambda n, total=plus + minus: total,
        )
        for plus, minus in ((1, 1), (1, 0), (0, 1), (0.1, 1))
    ),
    *(
        SignalRow(GroupMean(singleton=alone), per_group(above_mean, alone), expectation=shrunk)
        for alone in ("error", "raw", "zero")
    ),
    # Twice as many rollouts in the mean as are trained on: the others' advantages are missing from the sum.
    SignalRow(GroupMean(extra=2), per_group(above_mean, extra=True), sums=None, expectation=shrunk),
    *(
        SignalRow(LeaveOneOut(singleton=alone), per_group(above_the_others, alone), expectation=lambda n: 1.0)
        for alone in ("error", "raw")
    ),
    SignalRow(
        LeaveOneOut(extra=1),
        per_group(above_the_others, extra=True),
        sums=None,
        expectation=lambda n: 1.0,
    ),
    *(
        SignalRow(
            GroupMeanStd(ddof=ddof, eps=eps, singleton=alone),
            per_group(in_spreads(std(ddof, eps)), alone),
            scale="invariant",
            bound=highest(ddof),
        )
        for ddof, eps, alone in ((1, 1e-4, "error"), (1, 1e-6, "raw"), (0, 1e-8, "zero"))
    ),
    SignalRow(
        FLOOR,
        per_group(in_spreads(lambda r: math.sqrt(max(statistics.variance(r), 0.3)))),
        scale=None,
        bound=highest(1),
    ),
    SignalRow(
        UNDER,
        per_group(in_spreads(lambda r: math.sqrt(statistics.pvariance(r) + 0.3))),
        scale=None,
        bound=highest(0),
    ),
    # onerpo
    SignalRow(
        GroupMeanStd(ddof=1, eps=1e-6, extra=2),
        per_group(in_spreads(std(1, 1e-6)), extra=True),
        scale="invariant",
        sums=None,
        bound=highest(1),
    ),
    SignalRow(BatchMean(), batch_mean("error"), reads="round", sums="round", expectation=shrunk),
    SignalRow(BatchMean(singleton="raw"), batch_mean("raw"), reads="round", sums="round", expectation=shrunk),
    SignalRow(
        PLUS_PLUS,
        whitened(1, lambda v: math.sqrt(v + 1e-8), "zero"),
        reads="round",
        scale="invariant",
        sums="tokens",
        bound=lambda n: math.inf,
        copies=False,
    ),
    SignalRow(
        BatchMeanStd(singleton="raw"),
        whitened(0, lambda v: math.sqrt(max(v, 1e-8)), "raw"),
        reads="round",
        scale="invariant",
        sums="tokens",
        bound=lambda n: math.inf,
    ),
    SignalRow(
        BatchMeanStd(weighting="rollout", ddof=1, eps=1e-4, eps_place="std+eps"),
        whitened(1, lambda v: math.sqrt(v) + 1e-4, "zero", by_token=False),
        reads="round",
        scale="invariant",
        sums="round",
        bound=highest(1),
        copies=False,
    ),
    SignalRow(
        PLUS_PLUS_BASELINE,
        whitened(1, lambda v: math.sqrt(v + 1e-8), "raw", group=True),
        reads="round",
        scale="invariant",
        sums="tokens",
        bound=lambda n: math.inf,
        copies=False,
    ),
    SignalRow(
        GroupMeanWhitened(),
        whitened(0, lambda v: math.sqrt(max(v, 1e-8)), "error", group=True),
        reads="round",
        scale="invariant",
        sums="tokens",
        bound=lambda n: math.inf,
    ),
    SignalRow(
        GroupMeanBatchStd(eps=0.1),
        group_mean_batch_std,
        reads="round",
        scale=None,
        bound=lambda n: math.inf,
        copies=False,
    ),
    # The greedy response is one of role 2; the expectation is over the trained rollout alone.
    SignalRow(Greedy(), greedy, sums=None, expectation=lambda n: 1.0),
    SignalRow(
        MovingAverage(decay=0.8),
        moving_average(0.8),
        shift=False,
        silent=False,
        scale=None,
        sums=None,
        expectation=lambda n: 1.0,
    ),
    SignalRow(
        RewardWindow(window=8),
        window(8, std(1, 1e-6)),
        shift=False,
        silent=False,
        scale=None,
        sums=None,
        bound=lambda n: highest(1)(8),
    ),
    SignalRow(
        RewardWindow(window=6, ddof=0, eps=0.2, eps_place="sqrt(var+eps)", singleton="zero"),
        window(6, lambda r: math.sqrt(statistics.pvariance(r) + 0.2), "zero"),
        shift=False,
        silent=False,
        scale=None,
        sums=None,
        bound=lambda n: highest(0)(6),
    ),
    # m shifts too: r/m is not (r+c)/(m+c).
    SignalRow(
        MaxRL(),
        per_group(over_mean),
        shift=False,
        silent=False,
        scale="invariant",
        sums=None,
        bound=lambda n: n,
    ),
    SignalRow(
        MaxRL(baseline="mean", singleton="raw"),
        per_group(above_over_mean, "raw"),
        shift=False,
        scale="invariant",
        bound=lambda n: n - 1,
    ),
    SignalRow(OPO(), opo("error"), sums="tokens", expectation=shrunk),
    SignalRow(OPO(singleton="raw"), opo("raw"), sums="tokens", expectation=shrunk),
    SignalRow(GPG(singleton="raw"), gpg, reads="round", shift=False, bound=lambda n: math.inf),
    SignalRow(PassAtK(), per_group(lead(std(1, 1e-6))), scale="invariant", sums=None, bound=math.sqrt),
]

# Another value of every field of every signal; `test_rule.py` fails for a field that is missing here.
EXTRA = {"extra": 1, "singleton": "raw"}
SCALE = {"ddof": 0, "eps": 0.2, "eps_place": "sqrt(var+eps)"}
WHITEN = {"weighting": "rollout", "ddof": 1, "eps": 0.2, "eps_place": "sqrt(var+eps)"}
ALTERNATIVES: dict[str, dict[str, Any]] = {
    "raw": {},
    "sign": {"reference": -0.1, "positive": 0.5, "negative": 0.5},
    "group_mean": EXTRA,
    "group_mean_std": {**EXTRA, **SCALE},
    "leave_one_out": EXTRA,
    "batch_mean": {"singleton": "raw"},
    "batch_mean_std": {"singleton": "raw", **WHITEN},
    "group_mean_whitened": {**EXTRA, **WHITEN},
    "group_mean_batch_std": {**EXTRA, **SCALE},
    "greedy": {},
    "moving_average": {"decay": 0.5},
    "reward_window": {"window": 3, **SCALE, "singleton": "zero"},
    "max_rl": {**EXTRA, "baseline": "mean"},
    "opo": EXTRA,
    "gpg": EXTRA,
    "pass_at_k": {**EXTRA, **SCALE},
}
