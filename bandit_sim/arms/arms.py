"""What can be pulled: arms without structure, arms with a kernel, and the leaves of a response tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import ArrayLike, NDArray

from bandit_sim.arms.checks import Array, check_flip, check_mass, check_reward, check_shape, concrete, floats
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree


@register_dataclass
@dataclass(frozen=True)
class Arms:
    """Arms that share nothing: pi = softmax(logits), each logit a parameter of its own (dense engine).

    Arguments:
        logits: (K,) initial logits; -inf is an arm that is never pulled.
        reward: (K,) reward of each arm.
        flip: (K,) chance that a noisy verifier misjudges the arm; None is 0 for all.
    Errors: Refusal naming the arm whose reward, logit or flip is not such a number.
    """

    logits: Array
    reward: Array
    flip: Array | None = None

    def __post_init__(self) -> None:
        if concrete(self.logits, self.reward):
            check_shape("reward", self.reward, np.shape(self.logits))
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            values = np.asarray(self.logits)
            bad = np.flatnonzero(np.isnan(values) | (values == np.inf))
            if bad.size:
                raise Refusal(f"logit of arm {bad[0]} is {values[bad[0]]}; logits are finite, or -inf")
            if not np.any(np.isfinite(values)):
                raise Refusal("no arm has a finite logit; at least one arm must be possible")

    @classmethod
    def from_masses(cls, masses: ArrayLike, reward: ArrayLike) -> Arms:
        """Arms with probabilities masses (K,) / sum of masses, and reward (K,)."""
        mass = floats(masses)
        check_mass(mass)
        with np.errstate(divide="ignore"):
            return cls(logits=np.log(mass / mass.sum()), reward=floats(reward))

    @classmethod
    def two_class(cls, *, arms: int, correct: int, p0: float) -> Arms:
        """`correct` arms of reward 1 (the first ones) share p0 evenly, the others share 1 - p0."""
        if not 0 < correct < arms:
            raise Refusal(f"correct = {correct} of arms = {arms}; give 1 <= correct <= arms - 1")
        if not 0 < p0 < 1:
            raise Refusal(f"p0 = {p0}; give a success probability strictly between 0 and 1")
        is_correct = np.arange(arms) < correct
        return cls.from_masses(
            np.where(is_correct, p0 / correct, (1 - p0) / (arms - correct)), is_correct.astype(np.float64)
        )


@register_dataclass
@dataclass(frozen=True)
class ParticleArms:
    """Whole responses that share parameters: pi ~ mass exp f, and a pull of a moves f by K[:, a] - K pi.

    Arguments:
        mass: (L,) probability of each particle; normalised by the engine's softmax.
        reward: (L,) reward of each particle.
        kernel: (L, L) inner products of the responses' scores, in nats per unit of eta times weight.
        flip: (L,) chance that a noisy verifier misjudges the particle; None is 0 for all.
    Errors: Refusal naming the particle or the shape.
    """

    mass: Array
    reward: Array
    kernel: Array
    flip: Array | None = None

    def __post_init__(self) -> None:
        if concrete(self.mass, self.reward, self.kernel):
            particles = len(self.mass)
            check_shape("reward", self.reward, (particles,))
            check_shape("kernel", self.kernel, (particles, particles))
            check_mass(self.mass)
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            if not np.all(np.isfinite(np.asarray(self.kernel))):
                raise Refusal("kernel holds a value that is not finite; probe again in float32 or float64")

    @classmethod
    def from_tree(cls, tree: ResponseTree) -> ParticleArms:
        """The leaves as whole responses: sequence kernel P K P^T, the comparison to the tree kernel."""
        dtype = tree.kernel.dtype
        return cls(
            mass=tree.leaf_probability().astype(dtype),
            reward=np.asarray(tree.reward, dtype),
            kernel=tree.sequence_kernel().astype(dtype),
        )


@register_dataclass
@dataclass(frozen=True)
class TreeArms:
    """The leaves of a response tree, pulled edge by edge; see `theory.trees.response_tree.ResponseTree`.

    Arguments (E edges, L leaves, T tokens of the longest response):
        probability: (E,) base probability of the edge at its node.
        node: (E,) node index from 0, ascending.
        depth: (E,) token position of the edge's first token.
        path: (L, E) 1 where the edge lies on the leaf's path; None where leaf i is edge i and no other.
        start: (L, T) depth of the edges that carry token t of the leaf.
        span: (L, T) how many tokens of the leaf they carry; 0 beyond the response's end.
        reward: (L,) reward of the leaf.
        kernel: (E, E) inner products of the edges' scores; or its diagonal (E,), where no two share anything.
        flip: (L,) chance that a noisy verifier misjudges the leaf; None is 0 for all.
        query: (L,) the query that the leaf answers, of a forest with a tree for each, training queries first;
            None is one query.
        training: queries trained on; the others are held out.
        batch: queries per round, drawn without replacement.
    Errors: Refusal naming the leaf or the batch.
    Valid when: a tail's tokens are alike: each has an equal share of its log-probability, and the tail moves
        with their mean weight.
    """

    probability: Array
    node: Array
    depth: Array
    path: Array | None
    start: Array
    span: Array
    reward: Array
    kernel: Array
    flip: Array | None = None
    query: Array | None = None
    training: int = field(default=1, metadata={"static": True})
    batch: int = field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if concrete(self.reward):
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            if not 1 <= self.batch <= self.training:
                raise Refusal(
                    f"batch = {self.batch} of {self.training} training queries; give 1 to all of them"
                )

    @classmethod
    def from_tree(cls, tree: ResponseTree, tokens: int | None = None) -> TreeArms:
        """Lay a tree out by tokens, in the kernel's dtype; lengths are rounded to whole tokens.

        `tokens` fixes T (default: the longest response), so that trees of equal shape share one compilation.
        """
        order = tree.by_node
        _, node = np.unique(tree.node[order], return_inverse=True)
        path, depth = np.asarray(tree.path)[:, order] > 0, tree.depth[order]
        if np.any(~path.any(axis=1)):
            raise Refusal(f"leaf {np.argmin(path.any(axis=1))} has no edge on its path")
        first_of_last = np.where(path, depth, -1).max(axis=1)
        length = np.maximum(np.rint(tree.length).astype(np.int64), first_of_last + 1)
        tokens = int(length.max()) if tokens is None else tokens
        if tokens < length.max():
            raise Refusal(f"tokens = {tokens}, but a response has {length.max()}; give at least that many")
        start = np.zeros((len(path), tokens), dtype=np.int32)
        span = np.zeros((len(path), tokens), dtype=np.int32)
        for leaf, on_path in enumerate(path):
            starts = np.unique(
                depth[on_path]
            )  # edges of one depth (a rest, then its class) carry the same tokens
            if starts[0] != 0:
                raise Refusal(f"leaf {leaf}: its first edge has depth {starts[0]}, expected 0")
            counts = np.diff(np.append(starts, length[leaf]))
            start[leaf, : length[leaf]] = np.repeat(starts, counts)
            span[leaf, : length[leaf]] = np.repeat(counts, counts)
        dtype = tree.kernel.dtype
        return cls(
            probability=np.asarray(tree.probability[order], dtype),
            node=node.astype(np.int32),
            depth=depth.astype(np.int32),
            path=None if tree.kernel.ndim == 1 and is_identity(path) else path.astype(dtype),
            start=start,
            span=span,
            reward=np.asarray(tree.reward, dtype),
            kernel=ordered(tree.kernel, order),
        )


def ordered(kernel: NDArray[np.floating], order: NDArray[np.integer]) -> NDArray[np.floating]:
    """A kernel (E, E), or its diagonal (E,), with its edges in another order."""
    return kernel[order] if kernel.ndim == 1 else kernel[np.ix_(order, order)]


def is_identity(path: NDArray[Any]) -> bool:
    """Whether leaf i is edge i and no other: a path that need not be held."""
    return path.shape[0] == path.shape[1] and bool(np.array_equal(path, np.eye(len(path))))
