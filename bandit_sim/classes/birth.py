"""One correct arm, raw reward, one rollout: p after m successes is a fixed sequence, so a run is its success times.

Rounds without success move nothing. While p < 1/2 the waits for the next success are drawn (geometric), from then on
the waits for the next failure: the run from m successes survives j rounds with probability prod_{i<j} p_{m+i}.
A run costs about its successes below p = 1/2 plus its failures above, however many rounds it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bandit_sim.arms.arm_classes import ArmClasses
from bandit_sim.classes.blocks import BLOCK, round_numbers, run_blocks
from bandit_sim.classes.observables import check_observe, keys_of
from bandit_sim.classes.weigh import plain_sgd
from bandit_sim.rounds.keys import root_key
from theory.refusal import Refusal
from theory.rules.aggregation import Constant, SequenceMeanTokenMean, SequenceSum, TokenMean
from theory.rules.batch import Batch
from theory.rules.entropy import NoEntropy
from theory.rules.kl import NoKL
from theory.rules.objectives import PolicyGradient
from theory.rules.rule import Rule
from theory.rules.signals import Raw

Floats = NDArray[np.float64]
_TERMS = 4096
LONGEST = 10**7
"""Successes a chain is computed for; longer runs go to the lumped engine."""


def applies(arms: ArmClasses, rule: Rule, pay: Any, at: Sequence[int] | NDArray[np.int64]) -> bool:
    """Whether the chain is the whole story: one arm of reward 1, all others 0, raw, SGD, no noise, n = 1."""
    good = np.asarray(arms.reward) != 0
    return (
        pay is None
        and rule.rollouts == 1
        and isinstance(rule.signal, Raw)
        and isinstance(rule.objective, PolicyGradient)
        and isinstance(rule.kl, NoKL)
        and isinstance(rule.aggregation, SequenceSum | TokenMean | SequenceMeanTokenMean | Constant)
        and plain_sgd(rule)
        and isinstance(rule.entropy, NoEntropy)
        and rule.epochs == 1
        and int(good.sum()) == 1
        and float(np.asarray(arms.reward)[good][0]) == 1
        and int(np.asarray(arms.count)[good][0]) == 1
        and int(at[-1]) < LONGEST
    )


class Chain:
    """The sequences over m = 0, 1, ... successes, lengthened as runs need them; float64.

    With theta the logits and eta the step size, success m moves the correct arm by eta (1 - pi) and each wrong
    arm b by -eta pi_b.
    """

    def __init__(self, arms: ArmClasses, eta: float, scale: float) -> None:
        good = np.flatnonzero(np.asarray(arms.reward) != 0)[0]
        self._count, self._good = np.asarray(arms.count, np.float64), int(good)
        self._eta, self._scale = eta * scale, scale
        self._theta: Any = np.asarray(arms.logit, np.float64)
        self.mass: Floats = np.empty((0, len(self._count)))
        self.entropy: Floats = np.empty(0)
        self.hazard: Floats = np.zeros(1)
        self.lost: Floats = np.zeros(1)
        self.extend(1)

    def extend(self, terms: int) -> None:
        """At least so many terms; hazard has one more, the sum of -log p_i over i < m, and lost that of 1 - p_i."""
        masses, entropies, have = [self.mass], [self.entropy], len(self.mass)
        while have < terms:
            with jax.enable_x64(True):
                self._theta, mass, entropy = _terms(
                    jnp.asarray(self._theta), jnp.asarray(self._count), self._good, self._eta
                )
            masses.append(np.asarray(mass))
            entropies.append(np.asarray(entropy))
            have += _TERMS
        old = len(self.mass)
        self.mass, self.entropy = np.concatenate(masses), np.concatenate(entropies)
        wrong = self._wrong[old:]
        self.hazard = np.concatenate([self.hazard, self.hazard[-1] - np.cumsum(np.log1p(-wrong))])
        self.lost = np.concatenate([self.lost, self.lost[-1] + np.cumsum(wrong)])

    @property
    def success(self) -> Floats:
        """(M,) p_m."""
        return self.mass[:, self._good]

    @property
    def _wrong(self) -> Floats:
        """(M,) 1 - p_m, without cancellation."""
        return np.delete(self.mass, self._good, axis=1).sum(axis=1)

    @property
    def _square(self) -> Floats:
        """(M,) |1[correct] - pi|^2 after m successes."""
        others = np.delete(self.mass**2 / self._count, self._good, axis=1).sum(axis=1)
        return self._wrong**2 + others

    def table(self, name: str) -> Floats:
        """(M,) an observable after m successes."""
        kind, _, index = name.partition("/")
        match kind:
            case "success":
                return self.success
            case "class_mass":
                return self.mass[:, int(index)]
            case "entropy":
                return self.entropy
            case "winner_share":
                return np.ones(len(self.mass))
            case "gradient_norm":  # of a success; a failure has none
                return self._scale * np.sqrt(self._square)
            case "signal":
                return self._scale**2 * self.success**2 * self._square
            case "noise":
                return self._scale**2 * self.success * self._wrong * self._square
        return np.minimum(np.arange(len(self.mass), dtype=np.float64), 1)  # distinct


def run(
    arms: ArmClasses,
    rule: Rule,
    at: ArrayLike,
    seeds: int | range,
    key: int | jax.Array,
    *,
    observe: Sequence[str] = ("success",),
) -> dict[str, Floats]:
    """As `lumped.run`, for what `applies` accepts.

    Draws come from NumPy's Philox, keyed by (key, block): the same seed has the same bits whatever else is asked for,
    though not those of the lumped engine.
    """
    rounds, names = round_numbers(at), check_observe(observe)
    if not applies(arms, rule, None, rounds):
        raise Refusal(
            "the birth chain needs one arm of reward 1, raw reward, SGD and one rollout; use lumped.run"
        )
    scale = float(rule.weights(_one_success(), rule.init(np))[0][0, 0])
    chain = Chain(arms, rule.optimiser.eta, scale)
    words = np.asarray(jax.random.key_data(root_key(key))).reshape(-1)

    def one_block(block: int) -> dict[str, Floats]:
        seed = np.random.SeedSequence([*(int(w) for w in words), block])
        rng = np.random.Generator(np.random.Philox(seed))
        successes, paid, lost = _successes(chain, rounds, rng)
        sampled = {"reward": paid, "zero_signal": 1 - paid, "regret": lost}

        def values(name: str) -> Floats:
            if name in sampled:
                return sampled[name]
            return chain.table(name)[successes] * (paid if name == "gradient_norm" else 1)

        return {name: values(name) for name in keys_of(names, len(arms.logit))}

    return run_blocks(seeds, one_block, workers=1)  # blocks share the chain, which grows


def _successes(
    chain: Chain, at: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """(BLOCK, A) successes before round at[j], the reward of that round itself, and sum of 1 - p over those before."""
    clock, done = np.zeros(BLOCK), np.zeros(BLOCK, np.int64)
    count, paid, lost = np.zeros((BLOCK, len(at)), np.int64), *np.zeros((2, BLOCK, len(at)))
    m = 0
    while chain.success[m] < 0.5 and clock.min() <= at[-1]:
        due = clock + np.floor(np.log(1 - rng.random(BLOCK)) / np.log1p(-chain.success[m]))
        count += at > due[:, None]
        paid += at == due[:, None]  # the round of success m + 1
        lost += np.clip(at - clock[:, None], 0, (due - clock + 1)[:, None]) * (1 - chain.success[m])
        clock, done, m = due + 1, done + 1, m + 1
        chain.extend(m + 1)
    while clock.min() <= at[-1]:
        streak = _next_failure(chain, done, np.log(1 - rng.random(BLOCK)), at[-1] - clock) - done
        gone = at - clock[:, None]
        inside = (gone >= 0) & (gone <= streak[:, None])
        count = np.where(inside, done[:, None] + gone, count).astype(np.int64)
        paid = np.where(inside, gone < streak[:, None], paid)
        chain.extend(int((done + streak).max()) + 1)
        spent = np.clip(gone, 0, streak[:, None] + 1).astype(np.int64)
        lost += chain.lost[done[:, None] + spent] - chain.lost[done][:, None]
        done, clock = done + streak, clock + streak + 1
    chain.extend(int(count.max()) + 1)
    return count, paid, lost


def _next_failure(chain: Chain, done: NDArray[np.int64], log_u: Floats, left: Floats) -> NDArray[np.int64]:
    """(BLOCK,) successes at the next failure, the last m with hazard_m - hazard_done <= -log u, or enough to end."""
    enough = done + np.maximum(left, 0).astype(np.int64) + 1
    while True:
        found = np.searchsorted(chain.hazard, chain.hazard[done] - log_u, side="right") - 1
        if not np.any((found == len(chain.mass)) & (enough > found)):
            return np.minimum(found, enough)
        chain.extend(len(chain.mass) + 1)


@partial(jax.jit, static_argnums=2)
def _terms(theta: jax.Array, count: jax.Array, good: int, eta: jax.Array) -> Any:
    """theta after _TERMS more successes, class masses (_TERMS, C) and entropies (_TERMS,) before each."""
    hit = jnp.arange(count.shape[0]) == good

    def success(theta: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        log_pi = theta - jax.nn.logsumexp(theta, b=count)
        pi = jnp.exp(log_pi)
        mass = count * pi
        return theta + eta * (jnp.where(hit, 1.0, 0.0) - pi), (mass, -(mass * log_pi).sum())

    theta, (mass, entropy) = jax.lax.scan(success, theta, None, length=_TERMS)
    return theta, mass, entropy


def _one_success() -> Batch:
    zero = np.zeros((1, 1))
    return Batch(zero, zero, zero, np.ones(1), np.zeros(1, np.int64), np.ones((1, 1)))
