"""A response tree that holds its edges' scores in place of their kernel: the state is the parameters themselves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import NDArray

from bandit_sim.arms.checks import Array, check_shape, concrete
from bandit_sim.arms.tree import TreeArms
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree


@register_dataclass
@dataclass(frozen=True)
class ScoredTree:
    """Leaves of a response tree whose parameters theta are simulated: f = (1 / share) scores theta on its edges.

    Of a forest, all queries' edges have their scores in the same parameters; see `bandit_sim.arms.forest.forest`.
    Any optimiser can act on theta as it does in the network, Adam, clips and decay included, where a kernel carries
    function values alone.

    Arguments (E edges, P parameters):
        tree: the leaves, pulled edge by edge; its kernel is not read.
        scores: (E, P) gradients of the edges' log probabilities, in the tree's order of edges.
        share: of all parameters, how many are simulated: a sample drawn uniformly stands for all of them.
    Errors: Refusal naming the shape or the share.
    Valid when: as `TreeArms`, and an optimiser moves each parameter by its own gradient alone, up to a common factor.
    """

    tree: TreeArms
    scores: Array
    share: float = field(default=1.0, metadata={"static": True})

    def __post_init__(self) -> None:
        if concrete(self.scores):
            check_shape("scores", self.scores, (len(self.tree.node), np.shape(self.scores)[1]))
            if not 0 < self.share <= 1:
                raise Refusal(f"share = {self.share}; give what part of all parameters the scores are of")

    @property
    def reward(self) -> Array:
        return self.tree.reward

    @property
    def flip(self) -> Array | None:
        return self.tree.flip

    @property
    def query(self) -> Array | None:
        return self.tree.query

    @property
    def training(self) -> int:
        return self.tree.training

    @property
    def batch(self) -> int:
        return self.tree.batch

    @classmethod
    def of(cls, arms: TreeArms, scores: NDArray[np.floating], share: float = 1.0) -> ScoredTree:
        """Tree arms, of one query or a forest, with scores (E, P) in the arms' order of edges."""
        dtype = arms.kernel.dtype
        # The one entry keeps the kernel's dtype; an E x E matrix would be carried for nothing.
        return cls(replace(arms, kernel=np.zeros((1, 1), dtype)), np.asarray(scores, dtype), share)

    @classmethod
    def from_tree(
        cls, tree: ResponseTree, scores: NDArray[np.floating], share: float = 1.0, tokens: int | None = None
    ) -> ScoredTree:
        """`TreeArms.from_tree` with scores (E, P) in the tree's own order of edges."""
        return cls.of(TreeArms.from_tree(tree, tokens), np.asarray(scores)[tree.by_node], share)
