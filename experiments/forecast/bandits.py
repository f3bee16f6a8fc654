"""The bandits that a probe describes: its forest with the kernel, and the comparisons that leave something out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from bandit_sim import AnyArms, Arms, Contexts, ParticleArms, forest, replay_asked
from experiments.folder.observed import Observed
from experiments.specs import RunSpec
from theory.refusal import Refusal
from theory.rules.rule import Rule
from theory.trees.joint_probe import JointProbe
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
    coefficients: list[Floats]

    @classmethod
    def of(cls, joint: JointProbe, seed: int | None = None) -> Drawn:
        return cls(*joint.trees_and_scores(seed))


def forest_of(spec: RunSpec, joint: JointProbe, drawn: Drawn, tokens: int | None = None) -> AnyArms:
    """The forest with its kernel; where the optimiser acts on parameters, with the scores that the probe holds."""
    given = {"training": len(spec.queries), "batch": spec.batch, "tokens": tokens}
    if spec.rule.optimiser.linear:
        return forest(drawn.trees, drawn.kernel, **given)
    scores = [
        c @ p.scores for c, p in zip(drawn.coefficients, joint.probes, strict=True) if p.scores is not None
    ]
    return forest(drawn.trees, scores=np.concatenate(scores), share=joint.probes[0].share, **given)


def apart(drawn: Drawn) -> Drawn:
    """The same without the kernel's blocks between queries, as if none taught another."""
    query = np.repeat(np.arange(len(drawn.trees)), [len(tree.node) for tree in drawn.trees])
    return drawn._replace(kernel=np.where(query[:, None] == query[None, :], drawn.kernel, 0.0))


def sequences_of(spec: RunSpec, joint: JointProbe, drawn: Drawn, tokens: int | None = None) -> AnyArms:
    """Whole responses in place of their tokens: each a particle whose score is the sum of its edges'."""
    if spec.rule.optimiser.linear and len(drawn.trees) == 1:
        return ParticleArms.from_tree(drawn.trees[0])
    path = np.asarray(block_diag(*(tree.path for tree in drawn.trees)), drawn.kernel.dtype)
    whole = Drawn(
        [tree.as_sequences() for tree in drawn.trees],
        path @ drawn.kernel @ path.T,
        [tree.path @ own for tree, own in zip(drawn.trees, drawn.coefficients, strict=True)],
    )
    return forest_of(spec, joint, whole, tokens)


def tabular_of(spec: RunSpec, joint: JointProbe) -> Arms | Contexts:
    """The bandit without shared parameters: every response found an arm of its exact mass.

    Mass not found is spread over many arms: their number does not matter while each is small.
    """
    if len(joint.probes) == 1:
        return tabular_arms(joint.probes[0])
    each = [_masses(probe, UNSEEN_OF_SEVERAL) for probe in joint.probes]
    arms = max(len(mass) for mass, _ in each)
    logits, reward = np.full((len(each), arms), np.log(1e-30)), np.zeros((len(each), arms))
    for q, (mass, paid) in enumerate(each):
        logits[q, : len(mass)] = np.log(np.maximum(mass / mass.sum(), 1e-30))
        reward[q, : len(mass)] = paid
    return Contexts(
        logits.ravel(),
        reward.ravel(),
        np.float64(0),
        np.eye(arms),
        training=len(spec.queries),
        batch=spec.batch,
    )


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
    norm, share = rule.optimiser.clip_norm, joint.probes[0].share
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
    arms = forest_of(spec, joint, Drawn.of(joint))
    leaves = leaves_of(joint, observed)
    return np.asarray(replay_asked(arms, held_rule(joint, spec.rule), leaves, observed.rewards))


def leaves_of(joint: JointProbe, observed: Observed) -> NDArray[np.integer]:
    """(S, T, R) leaf of the forest for each response of a record; off the tree it is its outcome's class."""
    starts = np.cumsum([0, *(len(probe.tree().reward) for probe in joint.probes)])
    leaves = np.zeros(observed.rewards.shape, dtype=np.int64)
    for (s, t, i), q in np.ndenumerate(observed.query):
        leaf = joint.probes[q].leaf_of(observed.tokens[s][t][i], float(observed.outcomes[s, t, i]))
        leaves[s, t, i] = starts[q] + leaf
    return leaves
