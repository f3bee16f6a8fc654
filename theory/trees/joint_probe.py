"""A joint probe: several queries measured on one base model, with the inner products of scores across queries."""

from __future__ import annotations

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
        drawn = [
            probe.tree_and_scores(None if seed is None else probe.bootstrap_weights(seed + 1000 * q))
            for q, probe in enumerate(self.probes)
        ]
        atoms = np.cumsum([0, *(len(probe.layout.atoms) for probe in self.probes)])
        edges = np.cumsum([0, *(len(tree.node) for tree, _ in drawn)])
        kernel = np.zeros((edges[-1], edges[-1]))
        spans = [slice(a, b) for a, b in pairwise(edges)]
        for q, (tree, scores) in enumerate(drawn):
            # C_q G_q. once, then one product per query.
            partial = scores @ self.gram[atoms[q] : atoms[q + 1]]
            for other in range(q):
                block = partial[:, atoms[other] : atoms[other + 1]] @ drawn[other][1].T
                kernel[spans[q], spans[other]], kernel[spans[other], spans[q]] = block, block.T
            kernel[spans[q], spans[q]] = tree.kernel
        return [tree for tree, _ in drawn], kernel
