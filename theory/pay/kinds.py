"""The kinds of pay: what a judged response is paid, given its true reward t, its length, and how it is misjudged.

One class each, a member of `Pay` and a row of `PAYS`. The same lines run on NumPy, in JAX (the simulator) and on torch.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any, Literal

from array_api_compat import array_namespace
from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.batch import Array
from theory.rules.spec import Spec

Law = tuple[list[Array], list[Array]]
"""Possible rewards of each rollout and their probabilities, one array per outcome."""
Chance = Annotated[float, Field(ge=0, le=1)]


class PaySpec(Spec):
    """Pay by its law: with probability chance[k] a rollout is paid reward[k].

    Valid when: all arrays of a call come from one back end and are of one float type.
    """

    @property
    def name(self) -> str:
        """The pay's kind, for messages."""
        return type(self).model_fields["kind"].default

    @property
    def random(self) -> bool:
        """Whether the reward can differ between two pulls of one arm."""
        return False

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        """Rewards and chances given true rewards, lengths in tokens, and chances of being misjudged."""
        raise NotImplementedError

    def pay(self, uniform: Array, truth: Array, length: Array, flip: Array) -> Any:
        """The reward that a uniform number in [0, 1) picks from the law, elementwise, of arrays of one shape."""
        xp = array_namespace(truth)
        rewards, chances = self.law(truth, length, flip)
        below = accumulate(chances[:-1])  # from the first outcome on, so that a rare one keeps its odds
        paid = rewards[-1]
        for reward, edge in reversed(list(zip(rewards[:-1], below, strict=True))):
            paid = xp.where(uniform < edge, reward, paid)
        return paid


class Clean(PaySpec):
    """Pays the reward itself: t."""

    kind: Literal["clean"] = "clean"

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        return [truth], [_certain(truth)]


class PlusMinus(PaySpec):
    """Pays +1 for a correct response, -1 for a wrong one: 2 t - 1."""

    kind: Literal["plus_minus"] = "plus_minus"

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        return [2 * truth - 1], [_certain(truth)]


class NegativeOnly(PaySpec):
    """Pays nothing for a correct response, -1 for a wrong one: t - 1.

    Source: negative sample reinforcement (arXiv 2506.01347). Valid when: always; in expectation it moves a
    policy as the true reward does (they differ by a constant), its noise is another.
    """

    kind: Literal["negative_only"] = "negative_only"

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        return [truth - 1], [_certain(truth)]


class Noisy(PaySpec):
    """Pays a judgement that errs: wrong responses pass with chance FP, correct ones fail with chance FN.

    An arm with `flip` of its own is judged twice over, independently: the chance of a final misjudgement is
    e (1 - flip) + (1 - e) flip, e = FP or FN. So rates of 0 leave the arms' own, and flip 0 those given here.

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

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        rate = _by_truth(truth, self.false_negative, self.false_positive)
        wrong = rate + flip - 2 * rate * flip
        (misjudged,), _ = self.pays.law(1 - truth, length, flip)
        (judged,), _ = self.pays.law(truth, length, flip)
        return [misjudged, judged], [wrong, 1 - wrong]


class Overlong(PaySpec):
    """Pays 0 up to limit - buffer tokens, then less and less, down to -1 at the limit.

    -clip((l - limit) / buffer + 1, 0, 1) of l tokens.

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

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        xp = array_namespace(truth)
        buffer = xp.full_like(length, self.buffer)  # torch would multiply by the inverse of a number
        return [-xp.clip((length - self.limit) / buffer + 1, 0, 1)], [_certain(truth)]


class Format(PaySpec):
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

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        good, xp = _by_truth(truth, self.right, self.wrong), array_namespace(truth)
        return [xp.ones_like(truth), xp.zeros_like(truth)], [good, 1 - good]


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


class Shaped(PaySpec):
    """Pays a weighted sum of other kinds: sum_k weight_k times what term k pays.

    Terms that are left to chance are independent of one another.

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

    def law(self, truth: Array, length: Array, flip: Array) -> Law:
        rewards, chances = [array_namespace(truth).zeros_like(truth)], [_certain(truth)]
        for term in self.terms:
            pays, odds = term.pays.law(truth, length, flip)
            rewards = [reward + term.weight * paid for reward in rewards for paid in pays]
            chances = [chance * odd for chance in chances for odd in odds]
        return rewards, chances


Pay = Annotated[
    Clean | PlusMinus | NegativeOnly | Noisy | Overlong | Format | Shaped, Field(discriminator="kind")
]
PAYS: dict[str, type[PaySpec]] = {
    "clean": Clean,
    "plus_minus": PlusMinus,
    "negative_only": NegativeOnly,
    "noisy": Noisy,
    "overlong": Overlong,
    "format": Format,
    "shaped": Shaped,
}
"""Kind -> class, whose docstring's first line is what help texts say of it."""


def _certain(truth: Array) -> Array:
    return array_namespace(truth).ones_like(truth)


def _by_truth(truth: Array, right: float, wrong: float) -> Array:
    """One number for correct responses, another for wrong ones, in the type of `truth`."""
    xp = array_namespace(truth)
    return xp.where(truth > 0, xp.full_like(truth, right), xp.full_like(truth, wrong))
