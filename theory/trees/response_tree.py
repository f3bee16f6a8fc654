"""The response tree: what a probe measured on the base model, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.refusal import Refusal

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class ResponseTree:
    """One query's responses as a tree of edges (prefix, token), with the kernel of their scores.

    With state f on the edges the policy at node n is pi(e) ~ probability(e) exp f(e), normalised over the
    edges that leave n; a response is a leaf and has the product of its path's edges.

    Arguments (E edges, L leaves):
        node: (E,) label of the node each edge leaves.
        probability: (E,) base-model probability of the edge at its node; sums to one at every node.
        path: (L, E) 1 where the edge lies on the leaf's path.
        reward: (L,) verified reward of the leaf, 0 or 1.
        depth: (E,) token position (from 0) of the edge's first token.
        length: (L,) tokens of the response (the mean, where a leaf stands for many responses).
        kernel: (E, E) g(e).g(e') with g = grad log probability, with respect to the trained parameters; or its
            diagonal (E,), where no two edges share anything.

    Errors: Refusal where shapes disagree, probabilities do not sum to one, or leaves do not sum to one.
    Source: design of this project; the linearised softmax policy of each token.
    Valid when: the network stays in its linear regime, see `llm_bridge.probe.measure`.
    """

    node: Integers
    probability: Floats
    path: NDArray[np.integer]
    reward: Floats
    depth: Integers
    length: Floats
    kernel: Floats

    def __post_init__(self) -> None:
        edges, leaves = len(self.node), len(self.reward)
        wanted = {
            "probability": (edges,),
            "path": (leaves, edges),
            "depth": (edges,),
            "length": (leaves,),
            "kernel": (edges,) if self.kernel.ndim == 1 else (edges, edges),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise Refusal(f"tree.{name} has shape {getattr(self, name).shape}, expected {shape}")
        if not np.all(np.isfinite(self.kernel)):
            raise Refusal("tree.kernel holds a value that is not finite; probe again in float32 or float64")
        _, slot = np.unique(self.node, return_inverse=True)
        total = np.bincount(slot, weights=self.probability)
        if np.any(np.abs(total - 1) > 1e-6):
            raise Refusal(f"tree.probability sums to {total[np.argmax(np.abs(total - 1))]:.6g} at a node")
        mass = self.leaf_probability()
        if abs(mass.sum() - 1) > 1e-6:
            raise Refusal(f"the tree's leaves hold {mass.sum():.6g} of the probability, expected 1")

    @classmethod
    def flat(cls, mass: ArrayLike, reward: ArrayLike) -> ResponseTree:
        """Responses of one token that share nothing, with a logit each: the tabular bandit, one node, K = 1.

        Its kernel is the diagonal of ones: a push sums to zero over the node, so that K c = c is the tabular step.

        Arguments:
            mass: (L,) probability of each response; normalised here.
            reward: (L,) its reward.
        Errors: Refusal where masses are no probabilities.
        Source: `theory.trees.synthetic_tree.tabular_kernel`, up to a shift of all logits.
        """
        held, paid = np.asarray(mass, np.float64), np.asarray(reward, np.float64)
        leaves = len(paid)
        if held.shape != (leaves,) or not np.all(held >= 0) or not 0 < held.sum() < np.inf:
            raise Refusal(
                f"mass {held.shape} of {leaves} responses; give each a mass >= 0, not all of them 0"
            )
        zeros = np.zeros(leaves, dtype=np.int64)
        return cls(
            zeros,
            held / held.sum(),
            np.eye(leaves, dtype=np.int8),
            paid,
            zeros,
            np.ones(leaves),
            np.ones(leaves),
        )

    @property
    def by_node(self) -> NDArray[np.integer]:
        """(E,) the edges, node by node and in their own order within one: how the simulator lays them out."""
        return np.argsort(self.node, kind="stable")

    @property
    def visits(self) -> NDArray[np.integer]:
        """(L, E) 1 where the edge leaves a node on the leaf's path: the edges whose softmax a pull moves."""
        _, slot = np.unique(self.node, return_inverse=True)
        at_node = np.zeros((len(self.reward), slot.max() + 1), dtype=self.path.dtype)
        for leaf in range(len(self.reward)):
            at_node[leaf, slot[self.path[leaf] > 0]] = 1
        return at_node[:, slot]

    def edge_log_probability(self, f: Floats | None = None) -> Floats:
        """log pi(e) = log probability(e) + f(e) - log sum over the edges e' of its node; f is (E,), default 0."""
        with np.errstate(divide="ignore"):
            logits = np.log(self.probability) + (0.0 if f is None else f)
        _, slot = np.unique(self.node, return_inverse=True)
        top = np.full(slot.max() + 1, -np.inf)
        np.maximum.at(top, slot, logits)
        weight = np.bincount(slot, weights=np.exp(logits - top[slot]))
        return logits - (top + np.log(weight))[slot]

    def leaf_probability(self, f: Floats | None = None) -> Floats:
        """(L,) probability of every leaf: the product of its path's edges, at state f (E,)."""
        logs = self.edge_log_probability(f)
        return np.exp(np.where(self.path > 0, logs[None, :], 0.0).sum(axis=1))

    def success(self, f: Floats | None = None) -> float:
        """p = sum over leaves of probability times reward, at state f (E,)."""
        return float(self.leaf_probability(f) @ self.reward)

    def as_sequences(self) -> ResponseTree:
        """The leaves as the edges of a single node: whole responses, with the sequence kernel."""
        leaves = len(self.reward)
        zeros = np.zeros(leaves, dtype=np.int64)
        mass = self.leaf_probability()
        path = np.eye(leaves, dtype=self.path.dtype)
        return ResponseTree(
            zeros, mass / mass.sum(), path, self.reward, zeros, self.length, self.sequence_kernel()
        )

    def sequence_kernel(self) -> Floats:
        """(L, L) kernel of whole responses: the score of a response is the sum of its edges' scores."""
        path = self.path.astype(self.kernel.dtype)
        return (path * self.kernel if self.kernel.ndim == 1 else path @ self.kernel) @ path.T
