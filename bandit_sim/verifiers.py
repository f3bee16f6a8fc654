"""Verifiers: what a pull of an arm is paid, given the arm's true reward t, its length and how it is misjudged."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.spec import Spec

Law = tuple[list[jax.Array], list[jax.Array]]
"""Possible rewards of each rollout and their probabilities, one array per outcome."""
Chance = Annotated[float, Field(ge=0, le=1)]


class VerifierSpec(Spec):
    """A verifier by its law: with probability chance[k] a rollout is paid reward[k]."""

    @property
    def random(self) -> bool:
        """Whether the reward can differ between two pulls of one arm."""
        return False

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        """Rewards and chances given true rewards, lengths in tokens, and chances of being misjudged."""
        raise NotImplementedError

    def pay(self, uniform: jax.Array, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Any:
        """The reward that a uniform number in [0, 1) picks from the law, elementwise."""
        rewards, chances = self.law(truth, length, flip)
        below = accumulate(chances[:-1])  # from the first outcome on, so that a rare one keeps its odds
        paid = rewards[-1]
        for reward, edge in reversed(list(zip(rewards[:-1], below, strict=True))):
            paid = jnp.where(uniform < edge, reward, paid)
        return paid


class Clean(VerifierSpec):
    """Pays the true reward t."""

    kind: Literal["clean"] = "clean"

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        return [truth], [jnp.ones_like(truth)]


class PlusMinus(VerifierSpec):
    """Pays 2 t - 1: +1 for a correct response, -1 for a wrong one."""

    kind: Literal["plus_minus"] = "plus_minus"

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        return [2 * truth - 1], [jnp.ones_like(truth)]


class NegativeOnly(VerifierSpec):
    """Pays t - 1: nothing for a correct response, -1 for a wrong one.

    Source: negative sample reinforcement (arXiv 2506.01347). Valid when: always; in expectation it moves a
    policy as the true reward does (they differ by a constant), its noise is another.
    """

    kind: Literal["negative_only"] = "negative_only"

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        return [truth - 1], [jnp.ones_like(truth)]


class Noisy(VerifierSpec):
    """Judges a wrong response correct with chance FP, a correct one wrong with chance FN, then pays.

    An arm with `flip` of its own is judged twice over, independently: the chance of a final misjudgement is
    e (1 - flip) + (1 - e) flip, e = FP or FN. So rates of 0 leave the arms' own, and flip 0 the verifier's.

    Arguments:
        false_positive: FP in [0, 1].
        false_negative: FN in [0, 1].
        pays: what is paid for the judgement: clean, plus_minus or negative_only.
    Source: noisy verifiers; Youden's J = 1 - FP - FN scales the expected update, and its sign.
    Valid when: true rewards are 0 or 1.
    """

    kind: Literal["noisy"] = "noisy"
    false_positive: Chance = 0.0
    false_negative: Chance = 0.0
    pays: Annotated[Clean | PlusMinus | NegativeOnly, Field(discriminator="kind")] = Clean()

    @property
    def random(self) -> bool:
        return True

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        rate = jnp.where(truth > 0, self.false_negative, self.false_positive).astype(truth.dtype)
        wrong = rate + flip - 2 * rate * flip
        (misjudged,), _ = self.pays.law(1 - truth, length, flip)
        (judged,), _ = self.pays.law(truth, length, flip)
        return [misjudged, judged], [wrong, 1 - wrong]


class Overlong(VerifierSpec):
    """Pays 0 up to limit - buffer tokens, then falls linearly to -1 at the limit: -clip((l - limit) / buffer + 1).

    Arguments:
        limit: tokens from which on the penalty is whole, >= 1.
        buffer: tokens over which it rises, 0 < buffer <= limit.
    Source: soft overlong punishment of DAPO (arXiv 2503.14476). Valid when: responses differ in length (trees).
    """

    kind: Literal["overlong"] = "overlong"
    limit: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    buffer: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _buffer_within_limit(self) -> Overlong:
        if self.buffer > self.limit:
            raise Refusal(
                f"buffer = {self.buffer} exceeds limit = {self.limit}; give a buffer up to the limit"
            )
        return self

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        return [-jnp.clip((length - self.limit) / self.buffer + 1, 0, 1)], [jnp.ones_like(truth)]


class Format(VerifierSpec):
    """Pays 1 for a well-formed response, 0 for another; well-formed with a chance that the truth sets.

    Arguments:
        right: chance that a correct response is well-formed.
        wrong: chance that a wrong one is.
    Source: format rewards of R1-style recipes. Valid when: format is independent of all but correctness.
    """

    kind: Literal["format"] = "format"
    right: Chance = 1.0
    wrong: Chance

    @property
    def random(self) -> bool:
        return True

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        good = jnp.where(truth > 0, self.right, self.wrong).astype(truth.dtype)
        return [jnp.ones_like(truth), jnp.zeros_like(truth)], [good, 1 - good]


class Term(Spec):
    """One named term of a shaped reward; its name is the kind of what it pays.

    Arguments:
        weight: its factor, not 0.
        pays: what is paid.
    """

    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    pays: Annotated[Clean | PlusMinus | NegativeOnly | Noisy | Overlong | Format, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _has_weight(self) -> Term:
        if self.weight == 0:
            raise Refusal(f"weight = 0 of term {self.pays.kind}; leave the term out")
        return self


class Shaped(VerifierSpec):
    """Pays sum_k weight_k times what term k pays; random terms are independent of one another.

    Arguments:
        terms: at least one term; no two of a kind.
    Source: shaped rewards. Valid when: always.
    """

    kind: Literal["shaped"] = "shaped"
    terms: Annotated[tuple[Term, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_kind_once(self) -> Shaped:
        names = [term.pays.kind for term in self.terms]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise Refusal(f"terms holds {twice[0]} twice; give each kind of term once")
        return self

    @property
    def random(self) -> bool:
        return any(term.pays.random for term in self.terms)

    def law(self, truth: jax.Array, length: jax.Array, flip: jax.Array) -> Law:
        rewards, chances = [jnp.zeros_like(truth)], [jnp.ones_like(truth)]
        for term in self.terms:
            pays, odds = term.pays.law(truth, length, flip)
            rewards = [reward + term.weight * paid for reward in rewards for paid in pays]
            chances = [chance * odd for chance in chances for odd in odds]
        return rewards, chances


Verifier = Annotated[
    Clean | PlusMinus | NegativeOnly | Noisy | Overlong | Format | Shaped, Field(discriminator="kind")
]


def check_verifier(verifier: VerifierSpec, reward: Any, flip: Any = None) -> None:
    """Reject a verifier and arms (reward (A,), flip (A,)) that leave a field without effect, or a law undefined.

    Errors: Refusal where `flip` meets a verifier that never misjudges, where a noisy verifier has nothing
    to misjudge with, or where its arms have a true reward other than 0 and 1.
    """
    parts = [term.pays for term in verifier.terms] if isinstance(verifier, Shaped) else [verifier]
    noisy = [part for part in parts if isinstance(part, Noisy)]
    reward = np.asarray(reward)
    if flip is not None and not noisy:
        raise Refusal(
            f"arms have flip, but {type(verifier).__name__} never misjudges; use noisy, or flip None"
        )
    odd = reward[(reward != 0) & (reward != 1)]
    for part in noisy:
        if odd.size:
            raise Refusal(f"reward {odd[0]} with a noisy verifier; it misjudges rewards of 0 and 1 alone")
        silent = flip is None or not np.any(np.asarray(flip))
        if part.false_positive == part.false_negative == 0 and silent:
            raise Refusal("noisy with rates 0 and no flip misjudges nothing; give rates, or use its `pays`")


def length_and_flip(arms: Any, choices: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(n,) tokens of each choice, from its mask (n, T), and (n,) its chance of being misjudged."""
    flip = jnp.zeros_like(mask[:, 0]) if arms.flip is None else jnp.asarray(arms.flip, mask.dtype)[choices]
    return mask.sum(axis=1), flip
