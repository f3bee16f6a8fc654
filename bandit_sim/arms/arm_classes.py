"""Arms by the class: up to 10^18 of them, those of one class alike in logit and reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import ArrayLike, NDArray
from scipy import special

from bandit_sim.arms.checks import check_mass, check_reward, check_shape, concrete, floats
from bandit_sim.arms.plain import Arms
from theory.refusal import Refusal
from theory.trees.probe import Probe

Array = Any  # NumPy at construction, a JAX tracer inside a compiled function

Bins = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Log mass of one arm, up to a constant, and number of arms of each bin."""

LARGEST_COUNT = 2**62
SPREAD = 6.0
"""Log-normal profiles are cut at this many standard deviations: 2e-9 of the arms lie beyond."""


@register_dataclass
@dataclass(frozen=True)
class ArmClasses:
    """Arms that share nothing, C classes of alike arms: pi of one arm of class c = softmax over all K arms.

        pi_c = exp(logit_c) / sum_d count_d exp(logit_d),   K = sum_d count_d

    Arguments:
        logit: (C,) initial logit of each single arm of the class, float64.
        count: (C,) arms in the class, int64, 1 to 2^62.
        reward: (C,) true reward of each arm of the class.
        flip: (C,) probability that noisy pay misjudges one of its responses, in [0, 1]; 0 where not given.
    Errors: Refusal naming the class and the value.
    Valid when: the classes describe the policy; every constructor says what it represents exactly.
    """

    logit: Array
    count: Array
    reward: Array
    flip: Array = None

    def __post_init__(self) -> None:
        if self.flip is None:
            object.__setattr__(self, "flip", np.zeros(np.shape(self.logit)))
        if not concrete(self.logit, self.count, self.reward, self.flip):
            return
        for name in ("count", "reward", "flip"):
            check_shape(name, getattr(self, name), np.shape(self.logit))
        check_reward(self.reward)
        logit, count, flip = (np.asarray(x) for x in (self.logit, self.count, self.flip))
        for name, values, bad, fix in (
            ("logit", logit, ~np.isfinite(logit), "drop the class if it has no mass"),
            ("count", count, (count < 1) | (count > LARGEST_COUNT), "give 1 to 2**62"),
            ("flip", flip, ~((flip >= 0) & (flip <= 1)), "give a probability"),
        ):
            if bad.any():
                at = int(np.argmax(bad))
                raise Refusal(f"{name} of class {at} is {values[at]}; {fix}")
        if not np.issubdtype(count.dtype, np.integer):
            raise Refusal(f"count has dtype {count.dtype}; give whole numbers (int64)")

    @property
    def arms(self) -> int:
        """K, the number of arms, exactly."""
        return sum(int(n) for n in np.asarray(self.count))

    def masses(self) -> NDArray[np.float64]:
        """(C,) initial probability of each class."""
        return special.softmax(
            np.asarray(self.logit, np.float64) + np.log(np.asarray(self.count, np.float64))
        )

    def rarest_first(self) -> tuple[ArmClasses, NDArray[np.intp]]:
        """The classes by ascending mass, and their old numbers: uniforms resolve best near 0."""
        order = np.argsort(self.masses(), kind="stable")
        parts = (np.asarray(x)[order] for x in (self.logit, self.count, self.reward, self.flip))
        return ArmClasses(*parts), order

    def expand(self, limit: int = 10**6) -> Arms:
        """Every arm by itself, class after class, for the dense engine. Errors: Refusal above `limit` arms."""
        if self.arms > limit:
            raise Refusal(f"{self.arms} arms are more than limit = {limit}; use the lumped engine")
        return Arms(np.repeat(self.logit, self.count), np.repeat(self.reward, self.count))

    @classmethod
    def two_class(cls, *, arms: int, correct: int, p0: float) -> ArmClasses:
        """`correct` arms of reward 1 share p0 evenly, the others share 1 - p0: two classes, exactly."""
        return cls._two_sides(arms, correct, p0, _even)

    @classmethod
    def uniform(cls, *, arms: int, correct: int) -> ArmClasses:
        """All arms equally likely, `correct` of them with reward 1: two classes, exactly; p0 = correct / arms."""
        return cls.two_class(arms=arms, correct=correct, p0=correct / arms if arms else 0.0)

    @classmethod
    def power_law(
        cls, *, arms: int, correct: int, p0: float, exponent: float, classes: int = 24
    ) -> ArmClasses:
        """The j-th likeliest arm of a side has mass ~ j^-exponent; the correct side holds p0, the other 1 - p0.

        At most `classes` classes a side. Represented exactly: the likeliest arms, each a class of its own, about
        half of `classes`. Binned: the rest, by rank on a logarithmic grid; a bin holds its exact number of arms
        and, up to a relative 1e-9, the sum of their masses, evenly. exponent = 0 is `two_class`.
        Errors: Refusal for an exponent below 0 or fewer than 4 classes.
        """
        if not (exponent >= 0 and np.isfinite(exponent)):
            raise Refusal(f"exponent = {exponent}; give a finite number >= 0")
        if classes < 4:
            raise Refusal(f"classes = {classes}; give at least 4 a side")
        return cls._two_sides(arms, correct, p0, lambda number: _power_bins(number, exponent, classes))

    @classmethod
    def log_normal(cls, *, arms: int, correct: int, p0: float, sigma: float, classes: int = 24) -> ArmClasses:
        """Log masses of a side's arms are normal with deviation sigma; the correct side holds p0, the other 1 - p0.

        Represented: the expected number of arms in each of `classes` equal bins of log mass within 6 sigma,
        rounded to whole arms (each bin has the bin's mean mass per arm; bins that round to no arm are dropped,
        so with few arms the extremes are missing), then scaled so that the side's mass is exact.
        Errors: Refusal for sigma <= 0 or fewer than 4 classes.
        """
        if not (sigma > 0 and np.isfinite(sigma)):
            raise Refusal(f"sigma = {sigma}; give a finite number > 0; for equal masses use two_class")
        if classes < 4:
            raise Refusal(f"classes = {classes}; give at least 4 a side")
        return cls._two_sides(arms, correct, p0, lambda number: _normal_bins(number, sigma, classes))

    @classmethod
    def from_masses(
        cls,
        masses: ArrayLike,
        reward: ArrayLike,
        *,
        count: ArrayLike | None = None,
        flip: ArrayLike | None = None,
    ) -> ArmClasses:
        """Groups of `count` (C,) arms (default 1 each) that together have probability ~ masses (C,).

        Groups alike in mass per arm, reward and flip become one class; a group of mass 0 is dropped.
        """
        mass, paid = floats(masses).astype(np.float64), floats(reward).astype(np.float64)
        check_mass(mass)
        number = np.ones(mass.shape, np.int64) if count is None else np.asarray(count)
        flips = np.zeros(mass.shape) if flip is None else floats(flip).astype(np.float64)
        for name, array in (("reward", paid), ("count", number), ("flip", flips)):
            check_shape(name, array, mass.shape)
        keep = mass > 0
        one = cls(
            np.log(mass[keep] / mass.sum()) - np.log(number[keep]), number[keep], paid[keep], flips[keep]
        )
        alike, at = np.unique(np.stack([one.logit, one.reward, one.flip]), axis=1, return_inverse=True)
        total = np.zeros(alike.shape[1], np.int64)
        np.add.at(total, at.reshape(-1), one.count)
        return cls(alike[0], total, alike[1], alike[2])

    @classmethod
    def from_probe(cls, probe: Probe, *, unseen: int = 10**9) -> ArmClasses:
        """Every distinct response found an arm of its exact mass; the mass not found spread over `unseen` arms
        a side (correct, wrong). Responses of one mass and reward share a class.

        Valid when: no unseen response is likely; their number does not matter while each is small. Responses
        share no parameters here, so this is the tabular comparison and not the forecast.
        """
        mass, reward = probe.responses.mass, probe.responses.rewards
        right = max(probe.p0 - probe.found, 1e-12)
        wrong = max(1 - mass[reward <= 0].sum() - probe.found - right, 1e-12)
        return cls.from_masses(
            np.concatenate([mass, [right, wrong]]),
            np.concatenate([reward, [1.0, 0.0]]),
            count=np.concatenate([np.ones(len(mass), np.int64), [unseen, unseen]]),
        )

    @classmethod
    def _two_sides(cls, arms: int, correct: int, p0: float, bins: Callable[[int], Bins]) -> ArmClasses:
        """`correct` arms of reward 1 share p0, the others 1 - p0, each side as its number of arms is binned."""
        _check_sides(arms, correct, p0)
        sides = ((correct, p0, 1.0), (arms - correct, 1 - p0, 0.0))
        return cls.join(*((_scaled(*bins(number), mass), reward) for number, mass, reward in sides))

    @classmethod
    def join(cls, *sides: tuple[Bins, float]) -> ArmClasses:
        """Classes from sides ((log mass of one arm, count), reward), in order."""
        logit, count = (np.concatenate([side[0][i] for side in sides]) for i in range(2))
        reward = np.concatenate([np.full(len(side[0][0]), side[1]) for side in sides])
        return cls(logit, count, reward)


def _check_sides(arms: int, correct: int, p0: float) -> None:
    if not isinstance(arms, int) or not isinstance(correct, int):
        raise Refusal(f"arms = {arms!r}, correct = {correct!r}; give whole numbers, such as 10**18")
    if not 0 < correct < arms:
        raise Refusal(f"correct = {correct} of arms = {arms}; give 1 <= correct <= arms - 1")
    if arms > LARGEST_COUNT:
        raise Refusal(f"arms = {arms}; give at most 2**62")
    if not 0 < p0 < 1:
        raise Refusal(f"p0 = {p0}; give a success probability strictly between 0 and 1")


def _even(number: int) -> Bins:
    return np.zeros(1), np.array([number], np.int64)


def _scaled(log_mass: NDArray[np.float64], count: NDArray[np.int64], mass: float) -> Bins:
    """Log masses of single arms, shifted so that all arms together have the given mass."""
    whole = np.asarray(special.logsumexp(log_mass, b=count.astype(np.float64)))
    return log_mass - whole + np.log(mass), count


def _power_bins(number: int, exponent: float, classes: int) -> Bins:
    """(log mass of one arm, count) of the bins of ranks 1..number."""
    head = min(number, classes // 2)
    edges = [float(j) for j in range(1, head + 1)]
    if number > head:
        edges += list(np.geomspace(head + 1, number + 1, classes - head + 1)[:-1])
    first = np.unique(np.array([int(e) for e in edges], dtype=object)).tolist()
    after = [*first[1:], number + 1]
    count = np.array([b - a for a, b in zip(first, after, strict=True)], np.int64)
    sums = [_power_sum(a, b, exponent) for a, b in zip(first, after, strict=True)]
    return np.log(sums) - np.log(count.astype(np.float64)), count


def _power_sum(first: int, after: int, exponent: float) -> float:
    """sum_{j=first}^{after-1} j^-exponent: term by term up to 10^4 terms, then Euler and Maclaurin."""
    split = min(after, first + 10_000)
    total = float(np.sum(np.arange(first, split, dtype=np.float64) ** -exponent))
    if split == after:
        return total
    a, b = float(split), float(after)
    # The integral as b^(1-s) - a^(1-s) over 1-s, by expm1 so that s = 1 is its limit.
    log_ratio, gap = np.log(b / a), 1 - exponent
    area = a**gap * (np.expm1(gap * log_ratio) / gap if gap else log_ratio)
    return total + area + (a**-exponent - b**-exponent) / 2 + exponent * (a ** (-exponent - 1)) / 12


def _normal_bins(number: int, sigma: float, classes: int) -> Bins:
    """(log mass of one arm, count) of equal bins of log mass, counts rounded by largest remainder."""
    edge = np.linspace(-SPREAD, SPREAD, classes + 1)
    share = np.diff(special.ndtr(edge))
    wanted = number * share / share.sum()
    count = np.array([int(w) for w in wanted], np.int64)
    order = np.argsort(count - wanted, kind="stable")
    short = number - int(count.sum())
    for i in range(abs(short)):  # few, but for the rounding of numbers above 2^53
        if i >= classes:
            count[np.argmax(share)] += short - int(np.sign(short)) * i
            break
        count[order[i]] += int(np.sign(short))
    # E[exp(sigma z); z in bin] = exp(sigma^2 / 2) P(z - sigma in bin).
    inside = np.diff(special.ndtr(edge - sigma))
    keep = count > 0
    mean = np.log(np.maximum(inside, 1e-300)) - np.log(share) + sigma**2 / 2
    return mean[keep], count[keep]
