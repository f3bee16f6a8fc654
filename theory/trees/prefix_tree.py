"""The prefix tree of a probe's rollouts: which edges are resolved, where the rest and the tails begin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theory.refusal import Refusal

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Responses:
    """The distinct responses of a probe (D of them).

    Arguments:
        tokens: the D responses, each a tuple of token ids (its end token included, where it has one).
        logprobs: exact log probability of each token given its prefix, one tuple per response.
        counts: (D,) how many of the rollouts gave this response.
        rewards: (D,) verified reward, 0 or 1.
        ended: (D,) true where the response closed with an end token, false where it was cut at the limit.
    """

    tokens: tuple[Tokens, ...]
    logprobs: tuple[tuple[float, ...], ...]
    counts: NDArray[np.integer]
    rewards: NDArray[np.floating]
    ended: NDArray[np.bool_]

    @property
    def rollouts(self) -> int:
        return int(self.counts.sum())

    @property
    def mass(self) -> NDArray[np.floating]:
        """(D,) exact probability of each response under the base model."""
        return np.exp(np.array([sum(row) for row in self.logprobs]))


@dataclass(frozen=True)
class Atom:
    """One score to measure: grad log of a product of token probabilities, or of the rest of a node.

    `tokens` holds the prefix and what is scored; scoring starts at position `start`. Where `complement` is
    given, tokens is the prefix alone and the score is that of the set of all tokens outside `complement`.
    """

    tokens: Tokens
    start: int
    complement: Tokens | None = None


@dataclass(frozen=True)
class Edge:
    """An edge that leaves a resolved node: to another one ("child"), to a whole response ("leaf"), to one token
    beyond which nothing is resolved ("stub"), or to all other tokens ("rest"). A response leaves the tree by the
    last two."""

    node: Tokens
    kind: Literal["child", "leaf", "stub", "rest"]
    probability: float
    atom: int
    token: int = -1
    response: int = -1


@dataclass(frozen=True)
class Tail:
    """What lies beyond a rest or a stub edge, `exit`: two classes, the correct remainders and the wrong ones.

    Only the rarer class is measured (`atoms`, one per response in `members`); the score of the other follows
    from sum pi g = 0 with a factor of at most one, so that it cannot blow up.
    """

    node: Tokens
    exit: int
    correct: tuple[int, ...]
    measured: Literal["correct", "wrong"]
    members: tuple[int, ...]
    atoms: tuple[int, ...]


@dataclass(frozen=True)
class PrefixTree:
    """Resolved edges, tails and the scores (atoms) they need."""

    edges: tuple[Edge, ...]
    tails: tuple[Tail, ...]
    atoms: tuple[Atom, ...]
    exits: tuple[int, ...] = field(repr=False)
    """For each response the edge by which it leaves: its leaf, or a rest or stub edge."""

    def nodes(self) -> list[Tokens]:
        return list(dict.fromkeys(edge.node for edge in self.edges))


def exit_of(
    tokens: Tokens, edges: Sequence[Edge], into: Mapping[Tokens, int], rest: Mapping[Tokens, int]
) -> int | None:
    """The edge by which a response leaves the tree: its leaf, a stub, or the rest of the last node it reaches.

    Arguments:
        into: the edge into each prefix that has one; rest: the rest edge of each node that has one.
    None for tokens that stop at a resolved node, or leave a node that holds every token.
    """
    for depth in range(1, len(tokens) + 1):
        edge = into.get(tokens[:depth], rest.get(tokens[: depth - 1]))
        if edge is None or edges[edge].kind != "child":
            return edge
    return None


def grow(
    responses: Responses,
    *,
    vocabulary: int,
    cut: float = 5.0,
    leaf_cut: float = 3.0,
    keep: Literal["correct", "all"] = "correct",
    wrong_samples: int = 32,
) -> PrefixTree:
    """Grow the prefix tree: a prefix is resolved while its exact probability times N reaches `cut`.

    Arguments:
        responses: the probe's distinct responses.
        vocabulary: number of tokens; a node whose edges hold them all has no rest.
        cut: expected visits (of the N rollouts) from which on a prefix is a node of its own. By exact
            probability, never by what happened to be sampled: that would bias p0 down.
        leaf_cut: the same for a whole response, or a single token, at a resolved node; rarer ones join its rest.
            The tokens of a rest move as one, while in the model those that gain grow beyond their mean.
        keep: "correct" resolves the paths of correct responses only, enough for a signal that ignores
            failures; "all" resolves wrong ones too.
        wrong_samples: at most this many wrong remainders are scored where wrong is the rarer class of a tail.
    """
    total = responses.rollouts
    prefix_mass: dict[Tokens, float] = {(): 1.0}
    bearing: set[Tokens] = {()}
    for tokens, logs, reward in zip(responses.tokens, responses.logprobs, responses.rewards, strict=True):
        for depth, log in enumerate(np.cumsum(logs), start=1):
            prefix_mass[tokens[:depth]] = float(np.exp(log))
            if reward > 0:
                bearing.add(tokens[:depth])
    number = {tokens: i for i, tokens in enumerate(responses.tokens)}
    resolved = {
        prefix
        for prefix, p in prefix_mass.items()
        if prefix not in number and p * total >= cut and (keep == "all" or prefix in bearing)
    } | {()}
    likely = {prefix for prefix, p in prefix_mass.items() if p * total >= leaf_cut}
    kept = {prefix for prefix in likely if prefix[:-1] in resolved and (keep == "all" or prefix in bearing)}

    atoms: list[Atom] = []
    edges: list[Edge] = []
    children: dict[Tokens, list[Tokens]] = defaultdict(list)
    for prefix in sorted((resolved | kept) - {()}, key=lambda p: (len(p), p)):
        children[prefix[:-1]].append(prefix)
    at: dict[Tokens, int] = {}
    rest_of: dict[Tokens, int] = {}
    for node in sorted(resolved, key=lambda p: (len(p), p)):
        held = 0.0
        for child in children[node]:
            p = prefix_mass[child] / prefix_mass[node]
            held += p
            kind: Literal["child", "leaf", "stub"] = (
                "leaf" if child in number else "child" if child in resolved else "stub"
            )
            at[child] = len(edges)
            edges.append(Edge(node, kind, p, len(atoms), child[-1], number.get(child, -1)))
            atoms.append(Atom(child, len(node)))
        if len(children[node]) < vocabulary:
            rest_of[node] = len(edges)
            edges.append(Edge(node, "rest", max(1.0 - held, 1e-12), len(atoms)))
            atoms.append(Atom(node, len(node), tuple(sorted(child[-1] for child in children[node]))))

    exits: list[int] = []
    leaving: dict[int, list[int]] = defaultdict(list)
    for i, tokens in enumerate(responses.tokens):
        edge = exit_of(tokens, edges, at, rest_of)
        if edge is None:
            raise Refusal(f"response {tokens} leaves the tree at a node that holds every token")
        exits.append(edge)
        if edges[edge].kind != "leaf":
            leaving[edge].append(i)
        elif responses.rewards[i] > 0 and responses.counts[i] == 1 and tokens[:-1] in rest_of:
            # A kept response seen once speaks for unseen ones beside it; the tail of its node's rest then
            # borrows its score.
            leaving[rest_of[tokens[:-1]]].append(i)

    tails: list[Tail] = []
    for edge, members in leaving.items():
        node = edges[edge].node
        correct = [i for i in members if responses.rewards[i] > 0]
        if not correct:
            continue
        wrong = [i for i in members if responses.rewards[i] <= 0]
        seen = responses.counts
        rarer_wrong = 0 < seen[wrong].sum() < seen[correct].sum()
        if rarer_wrong:
            wrong = sorted(wrong, key=lambda i: (-int(seen[i]), i))[:wrong_samples]
        chosen = wrong if rarer_wrong else correct
        first = len(atoms)
        atoms.extend(Atom(responses.tokens[i], len(node)) for i in chosen)
        tails.append(
            Tail(
                node,
                edge,
                tuple(correct),
                "wrong" if rarer_wrong else "correct",
                tuple(chosen),
                tuple(range(first, len(atoms))),
            )
        )
    return PrefixTree(tuple(edges), tuple(tails), tuple(atoms), tuple(exits))
