"""A joint probe: several queries measured on one base model, with the inner products of scores across queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from theory.refusal import Refusal
from theory.trees.probe import Probe
from theory.trees.response_tree import ResponseTree

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class JointProbe:
    """Probes of Q queries and the Gram matrix of all their scores: what training on one does to another.

    With C_q the map from the atoms of query q to the edges of its tree, the kernel between the edges of two
    queries is  K_qq' = C_q G_qq' C_q'^T,  and within one query that of `Probe.tree`.

    Arguments:
        probes: one per query.
        gram: (M, M) inner products of the scores of all atoms, query by query; M is the sum of theirs.
    Errors: Refusal where the Gram matrix does not fit the probes.
    Source: design of this project, section 2 (held-out queries enter the same kernel).
    Valid when: all probes were measured at the same parameters.
    """

    probes: tuple[Probe, ...]
    gram: Floats

    def __post_init__(self) -> None:
        atoms = sum(len(probe.layout.atoms) for probe in self.probes)
        if self.gram.shape != (atoms, atoms):
            raise Refusal(
                f"gram has shape {self.gram.shape}, the probes have {atoms} atoms; give ({atoms}, {atoms})"
            )

    def trees(self, seed: int | None = None) -> tuple[list[ResponseTree], Floats]:
        """The queries' trees and the (E, E) kernel of all their edges, tree by tree.

        Arguments:
            seed: draw the trees with the probes' own noise (`Probe.bootstrap`), each query's apart.
        """
        trees, kernel, _ = self.trees_and_scores(seed)
        return trees, kernel

    def trees_and_scores(self, seed: int | None = None) -> tuple[list[ResponseTree], Floats, list[Floats]]:
        """`trees(seed)`, and each query's C_q (E_q, M_q), which maps the scores of its atoms to those of its edges."""
        drawn = [
            probe.tree_and_scores(None if seed is None else probe.bootstrap_weights(seed + 1000 * q))
            for q, probe in enumerate(self.probes)
        ]
        trees, maps = [tree for tree, _ in drawn], [own for _, own in drawn]
        if len(trees) == 1:
            return trees, trees[0].kernel, maps
        atoms = np.cumsum([0, *(len(probe.layout.atoms) for probe in self.probes)])
        edges = np.cumsum([0, *(len(tree.node) for tree in trees)])
        kernel = np.zeros((edges[-1], edges[-1]))
        spans = [slice(a, b) for a, b in pairwise(edges)]
        for q, (tree, scores) in enumerate(drawn):
            # C_q G_q. once, then one product per query.
            partial = scores @ self.gram[atoms[q] : atoms[q + 1]]
            for other in range(q):
                block = partial[:, atoms[other] : atoms[other + 1]] @ maps[other].T
                kernel[spans[q], spans[other]], kernel[spans[other], spans[q]] = block, block.T
            kernel[spans[q], spans[q]] = tree.kernel
        return trees, kernel, maps

    def edge_scores(self, maps: Sequence[Floats]) -> Floats | None:
        """(E, P') scores of all edges in the parameters that the probes hold, tree by tree; None where they hold none.

        Arguments:
            maps: those of `trees_and_scores`.
        Valid when: every probe holds the scores of the same parameters.
        """
        held = [probe.scores for probe in self.probes]
        if any(own is None for own in held):
            return None
        return np.concatenate([c @ own for c, own in zip(maps, held, strict=True) if own is not None])

    @property
    def share(self) -> float:
        """Of all parameters, how many the probes hold scores of."""
        return self.probes[0].share


def sequences(trees: Sequence[ResponseTree], kernel: Floats) -> tuple[list[ResponseTree], Floats]:
    """Trees whose leaves are whole responses (`ResponseTree.as_sequences`), and the kernel of all of these.

        K_qq' -> path_q K_qq' path_q'^T

    Arguments:
        trees: one per query.
        kernel: (E, E) of all their edges, tree by tree.
    Errors: Refusal where the kernel does not fit the trees.
    Source: as `ResponseTree.sequence_kernel`, which it is for one query.
    """
    edges = np.cumsum([0, *(len(tree.node) for tree in trees)])
    if kernel.shape != (edges[-1], edges[-1]):
        raise Refusal(
            f"kernel has shape {kernel.shape}, the trees have {edges[-1]} edges; give ({edges[-1]}, {edges[-1]})"
        )
    spans = [slice(a, b) for a, b in pairwise(edges)]
    paths = [tree.path.astype(kernel.dtype) for tree in trees]
    blocks = [
        [path @ kernel[a, b] @ other.T for b, other in zip(spans, paths, strict=True)]
        for a, path in zip(spans, paths, strict=True)
    ]
    return [tree.as_sequences() for tree in trees], np.block(blocks)
