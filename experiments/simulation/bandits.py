"""Bandits as data: each kind with its numbers, and the arms it builds for the simulator, which is loaded only then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

import bandit_sim
from theory.refusal import Refusal
from theory.rules.spec import Count, Spec
from theory.trees.synthetic_tree import synthetic_tree

if TYPE_CHECKING:
    from bandit_sim import ArmClasses, Contexts, LazyTree, ParticleArms, TokenTree, TreeArms

Share = Annotated[float, Field(gt=0, lt=1)]


class TwoClass(Spec):
    """K arms: `correct` of them share p0 evenly, the others share the rest."""

    kind: Literal["two_class"] = "two_class"
    arms: Count = 1000
    correct: Count = 1
    p0: Share = 0.05

    def build(self) -> ArmClasses:
        return bandit_sim.ArmClasses.two_class(arms=self.arms, correct=self.correct, p0=self.p0)


class PowerLaw(Spec):
    """K arms in two classes as in `TwoClass`; within a class the j-th likeliest has mass ~ j^-exponent."""

    kind: Literal["power_law"] = "power_law"
    arms: Count = 1000
    correct: Count = 10
    p0: Share = 0.05
    exponent: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def build(self) -> ArmClasses:
        return bandit_sim.ArmClasses.power_law(
            arms=self.arms, correct=self.correct, p0=self.p0, exponent=self.exponent
        )


class LogNormal(Spec):
    """K arms in two classes as in `TwoClass`; within a class log masses are normal with deviation sigma."""

    kind: Literal["log_normal"] = "log_normal"
    arms: Count = 1000
    correct: Count = 10
    p0: Share = 0.05
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0

    def build(self) -> ArmClasses:
        return bandit_sim.ArmClasses.log_normal(
            arms=self.arms, correct=self.correct, p0=self.p0, sigma=self.sigma
        )


PROFILES = {kind().kind: kind for kind in (TwoClass, PowerLaw, LogNormal)}
"""How probability is spread over the arms of a class, by the names that `--profile` takes."""


class Masses(Spec):
    """Groups of `count` arms each, which together have probability ~ mass and pay `reward`."""

    kind: Literal["masses"] = "masses"
    mass: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
    reward: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    count: tuple[Count, ...] | None = None
    flip: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None

    def build(self) -> ArmClasses:
        return bandit_sim.ArmClasses.from_masses(
            list(self.mass), list(self.reward),
            count=None if self.count is None else list(self.count),
            flip=None if self.flip is None else list(self.flip),
        )  # fmt: skip


class ProbeArms(Spec):
    """What `onearm probe` measured into a folder: its tree (kernel), or its responses without sharing (classes)."""

    kind: Literal["probe"] = "probe"
    folder: str
    shared: bool = True

    def build(self) -> TreeArms | ArmClasses:
        from experiments.folder.probe_store import read_probe

        probe = read_probe(Path(self.folder))
        return (
            bandit_sim.TreeArms.from_tree(probe.tree())
            if self.shared
            else bandit_sim.ArmClasses.from_probe(probe)
        )


class SyntheticTree(Spec):
    """A response tree with overlaps to choose: see `theory.trees.synthetic_tree.synthetic_tree`."""

    kind: Literal["synthetic_tree"] = "synthetic_tree"
    p0: Share = 0.1
    correct: Count = 1
    wrong: Count = 1
    depth: Count = 1
    own: Annotated[float, Field(gt=0)] = 1.0
    within: float = 0.0
    cross: float = 0.0
    whole_responses: bool = False
    """Tilt whole responses (the sequence kernel) instead of the tokens of a tree."""

    def build(self) -> TreeArms | ParticleArms:
        tree = synthetic_tree(
            self.p0, correct=self.correct, wrong=self.wrong, depth=self.depth, own=self.own,
            within=self.within, cross=self.cross,
        )  # fmt: skip
        return (
            bandit_sim.ParticleArms.from_tree(tree)
            if self.whole_responses
            else bandit_sim.TreeArms.from_tree(tree)
        )


class FreeTree(Spec):
    """Responses of up to `depth` tokens with one next-token law at every prefix, all logits free; token 0 ends one.

    `correct` lists the responses that pay 1, by their tokens.
    """

    kind: Literal["token_tree"] = "token_tree"
    law: tuple[Share, ...] = (0.2, 0.4, 0.4)
    depth: Count = 3
    correct: tuple[tuple[int, ...], ...] = ((1, 0),)

    def build(self) -> TokenTree:
        tree = bandit_sim.TokenTree.grow(
            list(self.law), self.depth, lambda tokens: float(tokens in self.correct)
        )
        if int(np.sum(tree.reward > 0)) != len(set(self.correct)):
            raise Refusal(
                f"correct = {self.correct}: not all are responses of this tree; end each with token 0, or give it "
                f"{self.depth} tokens below {len(self.law)}"
            )
        return tree


class LazyLaw(Spec):
    """As `FreeTree`, at any size: only the prefixes that training moves exist.

    `roughness` is the deviation of what every prefix adds to the law's logits, by a hash of `seed` and the prefix.
    """

    kind: Literal["lazy_tree"] = "lazy_tree"
    law: tuple[Share, ...] = (0.2, 0.4, 0.4)
    depth: Count = 12
    correct: tuple[tuple[int, ...], ...] = ((1, 2, 0),)
    roughness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def build(self) -> LazyTree:
        return bandit_sim.LazyTree.of(
            list(self.law), self.depth, self.correct, roughness=self.roughness, seed=self.seed
        )


class SyntheticForest(Spec):
    """Queries with a response tree each, and an overlap between them: see `bandit_sim.arms.forest.synthetic_forest`."""

    kind: Literal["synthetic_forest"] = "synthetic_forest"
    p0: tuple[Share, ...] = (0.05, 0.1, 0.2, 0.4)
    held_out: tuple[Share, ...] = ()
    batch: Count = 1
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    correct: Count = 1
    wrong: Count = 1
    depth: Count = 1
    own: Annotated[float, Field(gt=0)] = 1.0
    within: float = 0.0
    cross: float = 0.0

    def build(self) -> TreeArms:
        return bandit_sim.synthetic_forest(
            list(self.p0), held_out=list(self.held_out) or None, batch=self.batch, overlap=self.overlap,
            correct=self.correct, wrong=self.wrong, depth=self.depth, own=self.own, within=self.within,
            cross=self.cross,
        )  # fmt: skip


class Queries(Spec):
    """Many queries that share features: see `bandit_sim.arms.contexts.Contexts.spectrum`."""

    kind: Literal["contexts"] = "contexts"
    p0: tuple[Share, ...] = (0.05, 0.1, 0.2, 0.4)
    held_out: tuple[Share, ...] = ()
    arms: Count = 20
    correct: Count = 1
    batch: Count = 1
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    within: float = 0.0
    cross: float = 0.0
    wrong: float = 0.0
    near: Count | None = None

    def build(self) -> Contexts:
        return bandit_sim.Contexts.spectrum(
            list(self.p0), held_out=list(self.held_out) or None, arms=self.arms, correct=self.correct, batch=self.batch,
            overlap=self.overlap, within=self.within, cross=self.cross, wrong=self.wrong, near=self.near,
        )  # fmt: skip


Bandit = Annotated[
    TwoClass
    | PowerLaw
    | LogNormal
    | Masses
    | ProbeArms
    | SyntheticTree
    | SyntheticForest
    | FreeTree
    | LazyLaw
    | Queries,
    Field(discriminator="kind"),
]
