"""The bandits that a probe describes: its forest with the kernel, and the comparisons that leave something out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandit_sim import AnyArms, Arms, ParticleArms, TreeArms, forest, replay_asked
from experiments.folder.observed import Observed
from experiments.specs import RunSpec
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.trees.joint_probe import JointProbe, sequences
from theory.trees.probe import Probe
from theory.trees.response_tree import ResponseTree

Array = NDArray[np.float64]
Floats = NDArray[np.floating]
UNSEEN_ARMS, UNSEEN_OF_SEVERAL = 1000, 200
"""Arms, right and wrong, among which mass is spread that a probe did not find."""


class Drawn(NamedTuple):
    """A forest drawn with a probe's own noise, or without it.

    Arguments:
        trees: one per query, those trained on first.
        kernel: (E, E) of all their edges, tree by tree.
        coefficients: (E_q, M_q) of each query: the score of an edge as a sum of scores of the probe's atoms.
    """

    trees: list[ResponseTree]
    kernel: Floats
    coefficients: Sequence[Floats]

    @classmethod
    def of(cls, joint: JointProbe, seed: int | None = None) -> Drawn:
        return cls(*joint.trees_and_scores(seed))

    @property
    def edges(self) -> NDArray[np.integer]:
        """(Q + 1,) where each tree's edges begin among all, and their number."""
        return np.cumsum([0, *(len(tree.node) for tree in self.trees)])


def forest_of(spec: RunSpec, joint: JointProbe, drawn: Drawn, tokens: int | None = None) -> AnyArms:
    """The forest with its kernel; where the optimiser acts on parameters, with the scores that the probe holds."""
    given = {"training": len(spec.queries), "batch": spec.batch, "tokens": tokens}
    if spec.rule.optimiser.linear:
        return forest(drawn.trees, drawn.kernel, **given)
    scores = joint.edge_scores(drawn.coefficients)
    assert scores is not None, "held_rule has refused a probe without scores"
    return forest(drawn.trees, scores=scores, share=joint.share, **given)


def sequences_of(spec: RunSpec, joint: JointProbe, drawn: Drawn, tokens: int | None = None) -> AnyArms:
    """Whole responses in place of their tokens: each a particle whose score is the sum of its edges'."""
    if spec.rule.optimiser.linear and len(drawn.trees) == 1:
        return ParticleArms.from_tree(drawn.trees[0])
    trees, kernel = sequences(drawn.trees, drawn.kernel)
    maps = [tree.path @ own for tree, own in zip(drawn.trees, drawn.coefficients, strict=True)]
    return forest_of(spec, joint, Drawn(trees, kernel, maps), tokens)


def tabular_of(spec: RunSpec, joint: JointProbe) -> Arms | TreeArms:
    """The bandit without shared parameters: every response found an arm of its exact mass.

    Mass not found is spread over many arms: their number does not matter while each is small.
    """
    if len(joint.probes) == 1:
        return tabular_arms(joint.probes[0])
    flat = [ResponseTree.flat(*_masses(probe, UNSEEN_OF_SEVERAL)) for probe in joint.probes]
    return forest(flat, training=len(spec.queries), batch=spec.batch)


def tabular_arms(probe: Probe) -> Arms:
    """The same of one query."""
    return Arms.from_masses(*_masses(probe, UNSEEN_ARMS))


def _masses(probe: Probe, unseen: int) -> tuple[Floats, Floats]:
    """Probability and reward of the arms of one query."""
    mass, reward = probe.responses.mass, probe.responses.rewards
    right = max(probe.p0 - probe.found, 1e-12)
    wrong = max(1 - mass[reward <= 0].sum() - probe.found - right, 1e-12)
    spread = np.full(unseen, 1 / unseen)
    return (
        np.concatenate([mass, right * spread, wrong * spread]),
        np.concatenate([reward, np.ones(unseen), np.zeros(unseen)]),
    )


def held_rule(joint: JointProbe, rule: Rule) -> Rule:
    """The rule as it acts on the parameters that the probe holds: of a sample the norm is sqrt(share) of the whole's.

    Errors: Refusal for an optimiser that acts on parameters, where the probe holds none.
    """
    if rule.optimiser.linear:
        return rule
    if any(probe.scores is None for probe in joint.probes):
        raise Refusal(
            f"optimiser {rule.optimiser.kind}{'' if rule.optimiser.kind == 'adam' else ' with clip_norm'} acts on "
            "parameters, and the probe holds the scores of none; give probe.coordinates (--coordinates 4096)"
        )
    norm, share = rule.optimiser.clip_norm, joint.share
    if norm is None or share == 1:
        return rule
    optimiser = rule.optimiser.model_copy(update={"clip_norm": norm * share**0.5})
    return rule.model_copy(update={"optimiser": optimiser})


def predicted(spec: RunSpec, joint: JointProbe, observed: Observed) -> Array | None:
    """(S, T, R) success of the query that each rollout of a run answers, before its round, as the tree kernel has it
    from that replica's own history; None where the record does not hold all that the weights read (helper rollouts).
    """
    if spec.rule.signal.helpers:
        return None
    drawn = Drawn.of(joint)
    arms, leaves = forest_of(spec, joint, drawn), leaves_of(joint, drawn, observed)
    return np.asarray(replay_asked(arms, held_rule(joint, spec.rule), leaves, observed.rewards))


def leaves_of(joint: JointProbe, drawn: Drawn, observed: Observed) -> NDArray[np.integer]:
    """(S, T, R) leaf of the forest for each response of a record; off the tree it is its outcome's class."""
    starts = np.cumsum([0, *(len(tree.reward) for tree in drawn.trees)])
    leaves = np.zeros(observed.rewards.shape, dtype=np.int64)
    for (s, t, i), q in np.ndenumerate(observed.query):
        leaf = joint.probes[q].leaf_of(observed.tokens[s][t][i], float(observed.outcomes[s, t, i]))
        leaves[s, t, i] = starts[q] + leaf
    return leaves
