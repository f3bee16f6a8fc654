"""A probe: the bandit measured on the base model, as plain arrays; it yields response trees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from theory.refusal import Refusal
from theory.trees.prefix_tree import PrefixTree, Responses, Tokens, exit_of
from theory.trees.probe_record import ProbeRecord
from theory.trees.response_tree import ResponseTree

STEEPEST = 3.0
"""Largest factor by which the score of one class of a tail may be deduced from the other's."""


@dataclass(frozen=True)
class Probe:
    """Rollouts of one query on the base model, their prefix tree, and the Gram matrix of its scores.

    p0 = sum of the exact masses of the distinct correct responses found + N1 / N, the second term being the
    Good-Turing estimate of the correct mass not found (N1 correct responses seen exactly once, N rollouts).

    Arguments:
        responses: the distinct responses with exact log probabilities, counts and rewards.
        layout: the prefix tree grown from them.
        gram: (M, M) inner products of the scores of the layout's M atoms.
        meta: how it was measured, by what, and at which cost.
        scores: (M, P') the scores themselves in P' of the parameters, where an optimiser will need them.
        share: P' of all.
    Source: design of this project; Good (1953); McAllester and Schapire (2000) for the spread of N1 / N.
    Valid when: the rollouts are independent draws of the base model at temperature 1.
    """

    responses: Responses
    layout: PrefixTree
    gram: NDArray[np.floating]
    meta: ProbeRecord = field(default_factory=ProbeRecord)
    scores: NDArray[np.floating] | None = None
    share: float = 1.0

    def noting(self, **changes: Any) -> Probe:
        """The same probe with these fields of its record."""
        return replace(self, meta=replace(self.meta, **changes))

    @property
    def found(self) -> float:
        """Exact probability of the distinct correct responses that the probe found."""
        return float(self.responses.mass[self.responses.rewards > 0].sum())

    def seen(self, times: int) -> int:
        """Number of distinct correct responses seen exactly `times` times."""
        return int(np.sum((self.responses.rewards > 0) & (self.responses.counts == times)))

    @property
    def missing(self) -> float:
        """Good-Turing estimate of the probability of correct responses that the probe did not find."""
        return self.seen(1) / self.responses.rollouts

    @property
    def p0(self) -> float:
        return self.found + self.missing

    @property
    def kept(self) -> list[Tokens]:
        """The correct responses that are leaves of their own."""
        r = self.responses
        leaves = (edge.response for edge in self.layout.edges if edge.kind == "leaf")
        return [r.tokens[i] for i in leaves if r.rewards[i] > 0]

    def p0_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of p0: found + missing +- z sqrt(N1 + 2 N2) / N.

        Never below the mass found, which is exact. Where no correct response was seen just once or twice the
        upper end is that of zero events in N trials (the rule of three).
        """
        n = self.responses.rollouts
        tail = (1 - level) / 2
        half = float(stats.norm.ppf(1 - tail)) * np.sqrt(self.seen(1) + 2 * self.seen(2)) / n
        unseen = 1 - tail ** (1 / n)
        return max(self.found, self.p0 - half), min(1.0, max(self.p0 + half, self.found + unseen))

    def tree(self, weights: NDArray[np.floating] | None = None) -> ResponseTree:
        """The response tree; `weights` (D,) stands in for the weight one of each rollout seen once.

        A rest or stub edge leads to a two-class node where correct responses were seen beyond it. With member scores h
        of weights omega (exact mass plus the share of the missing mass it speaks for) the measured class has the
        score  g = sum omega h - g(exit)  and the other -q/(1-q) g.  The inner product of that class with itself
        counts a response with itself only as often as two draws coincide, which a plain mean of few members
        would overstate.
        """
        return self.tree_and_scores(weights)[0]

    def tree_and_scores(
        self, weights: NDArray[np.floating] | None = None
    ) -> tuple[ResponseTree, NDArray[np.floating]]:
        """`tree(weights)`, and C (E, M): the score of edge e is sum_m C_em times the score of atom m."""
        r, n = self.responses, self.responses.rollouts
        unit = np.ones(len(r.counts)) if weights is None else weights
        mass = r.mass
        edges, tails = self.layout.edges, self.layout.tails
        count = len(edges) + 2 * len(tails)
        coefficient = np.zeros((count, len(self.layout.atoms)))
        probability = np.zeros(count)
        nodes = self.layout.nodes()
        label = {node: i for i, node in enumerate(nodes)}
        node = np.zeros(count, dtype=np.int64)
        depth = np.zeros(count, dtype=np.int64)
        correction = np.zeros((count, count))
        at: dict[Tokens, float] = {(): 1.0}
        for e, edge in enumerate(edges):
            node[e], depth[e] = label[edge.node], len(edge.node)
            probability[e] = edge.probability
            coefficient[e, edge.atom] = 1.0
            if edge.kind == "child":
                at[(*edge.node, edge.token)] = at[edge.node] * edge.probability
        kept = {edge.response for edge in edges if edge.kind == "leaf"}
        exact = np.array([sum(mass[i] for i in tail.correct if i not in kept) for tail in tails])
        once = np.array([sum(unit[i] for i in tail.correct if r.counts[i] == 1) / n for tail in tails])
        room = np.array([at[tail.node] * edges[tail.exit].probability for tail in tails]) - exact
        unseen = _pour(once, room)
        for t, tail in enumerate(tails):
            good, bad = len(edges) + 2 * t, len(edges) + 2 * t + 1
            node[[good, bad]] = len(nodes) + t
            depth[[good, bad]] = len(tail.node)
            beyond = at[tail.node] * edges[tail.exit].probability
            q = float(np.clip((exact[t] + unseen[t]) / beyond, 1e-9, 1 - 1e-9))
            probability[[good, bad]] = q, 1 - q
            share = np.array([
                (0.0 if i in kept else mass[i]) + (unit[i] / n if r.counts[i] == 1 else 0.0)
                for i in tail.members
            ])  # fmt: skip
            if tail.measured == "wrong":
                share = np.array([r.counts[i] * unit[i] for i in tail.members], dtype=float)
            omega = share / share.sum()
            measured, other, ratio = (
                (good, bad, -q / (1 - q)) if tail.measured == "correct" else (bad, good, -(1 - q) / q)
            )
            if -ratio > STEEPEST:
                continue  # the split stays as it is: no sample of the rarer class, and deducing it blows up
            coefficient[measured, list(tail.atoms)] = omega
            coefficient[measured, edges[tail.exit].atom] -= 1.0
            coefficient[other] = ratio * coefficient[measured]
            whole = beyond * (q if tail.measured == "correct" else 1 - q)
            real = np.array([mass[i] for i in tail.members]) / max(whole, 1e-300)
            shift = _coincidence(self.gram[np.ix_(tail.atoms, tail.atoms)], omega, np.minimum(real, 1.0))
            side = np.zeros(count)
            side[measured], side[other] = 1.0, ratio
            correction += shift * np.outer(side, side)
        kernel = coefficient @ self.gram @ coefficient.T + correction
        path, reward, length = self._leaves(count)
        return ResponseTree(node, probability, path, reward, depth, length, kernel), coefficient

    def bootstrap(self, seed: int) -> ResponseTree:
        """A tree drawn with the probe's own noise: Bayesian bootstrap of the rollouts behind the tails.

        Masses of found responses are exact and stay; the weight of each response seen once is Exp(1)
        (Rubin, 1981), and responses seen twice add their share of the spread sqrt(N1 + 2 N2) / N.
        """
        return self.tree(self.bootstrap_weights(seed))

    def bootstrap_weights(self, seed: int) -> NDArray[np.floating]:
        """(D,) the weights behind `bootstrap(seed)`."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, 7)))
        return rng.exponential(size=len(self.responses.counts))

    def _leaves(self, count: int) -> tuple[NDArray[np.integer], NDArray[np.floating], NDArray[np.floating]]:
        """Paths, rewards and lengths of the leaves: kept responses, bare rests, and the classes of tails."""
        edges, tails, r = self.layout.edges, self.layout.tails, self.responses
        into: dict[Tokens, int] = {
            (*edge.node, edge.token): e for e, edge in enumerate(edges) if edge.kind == "child"
        }
        tail_at = {tail.exit: t for t, tail in enumerate(tails)}
        away: dict[tuple[int, bool], list[int]] = {}
        for i, (edge, paid) in enumerate(zip(self.layout.exits, r.rewards > 0, strict=True)):
            away.setdefault((edge, bool(paid)), []).append(len(r.tokens[i]))
        rows: list[tuple[list[int], float, float]] = []
        for e, edge in enumerate(edges):
            if edge.kind == "child":
                continue
            up = [into[edge.node[:d]] for d in range(1, len(edge.node) + 1)]
            if edge.kind == "leaf":
                tokens = r.tokens[edge.response]
                rows.append(([*up, e], float(r.rewards[edge.response]), len(tokens)))
                continue
            mean = {c: _mean(away.get((e, c), []), len(edge.node) + 1) for c in (True, False)}
            if e in tail_at:
                good = len(edges) + 2 * tail_at[e]
                rows.append(([*up, e, good], 1.0, mean[True]))
                rows.append(([*up, e, good + 1], 0.0, mean[False]))
            else:
                rows.append(([*up, e], 0.0, mean[False]))
        path = np.zeros((len(rows), count), dtype=np.int8)
        for row, (on, _, _) in enumerate(rows):
            path[row, on] = 1
        return path, np.array([x[1] for x in rows]), np.array([x[2] for x in rows], dtype=float)

    def leaf_of(self, tokens: Tokens, reward: float) -> int:
        """The leaf a response belongs to; one that leaves the tree ends in the class of its reward.

        Errors: Refusal for tokens that stop at a resolved node, which no whole response does.
        """
        into, rest, leaves = self._index
        edge = exit_of(tokens, self.layout.edges, into, rest)
        if edge is None:
            raise Refusal(f"response {tokens} ends inside the tree; give whole responses, end token included")
        right, wrong = leaves[edge]
        return right if reward > 0 else wrong

    @cached_property
    def _index(self) -> tuple[dict[Tokens, int], dict[Tokens, int], dict[int, tuple[int, int]]]:
        """The edge into each prefix that has one; each node's rest edge; and the leaves (of a correct and of a
        wrong response) behind each edge that leaves the tree."""
        edges = self.layout.edges
        into = {(*edge.node, edge.token): e for e, edge in enumerate(edges) if edge.kind != "rest"}
        rest = {edge.node: e for e, edge in enumerate(edges) if edge.kind == "rest"}
        with_tail = {tail.exit for tail in self.layout.tails}
        leaves: dict[int, tuple[int, int]] = {}
        leaf = 0
        for e, edge in enumerate(edges):
            if edge.kind != "child":
                leaves[e] = (leaf, leaf + (e in with_tail))
                leaf += 1 + (e in with_tail)
        return into, rest, leaves


def _pour(shares: NDArray[np.floating], room: NDArray[np.floating]) -> NDArray[np.floating]:
    """Spread the total of `shares` in their proportion, no tail above its room; what overflows goes to the rest.

    Singletons say how much correct mass is unseen in all, not that it hides exactly where they were found.
    """
    filled = np.zeros_like(shares)
    left, open_ = float(shares.sum()), room > 0
    for _ in range(len(shares)):
        weight = np.where(open_, shares, 0.0)
        if left <= 0 or weight.sum() <= 0:
            break
        step = np.minimum(left * weight / weight.sum(), room - filled)
        filled = filled + np.where(open_, step, 0.0)
        left = float(shares.sum() - filled.sum())
        open_ = filled < room * (1 - 1e-12)
    return filled


def _mean(values: list[int], default: int) -> float:
    return float(np.mean(values)) if values else float(default)


def _coincidence(
    gram: NDArray[np.floating], omega: NDArray[np.floating], real: NDArray[np.floating]
) -> float:
    """What to add to omega' gram omega so that a response meets itself with its real share only."""
    self_real = float(np.sum(real**2 * np.diag(gram)))
    plain = float(omega @ gram @ omega)
    self_plain = float(np.sum(omega**2 * np.diag(gram)))
    pairs = 1 - float(np.sum(omega**2))
    if pairs < 1e-12:
        # One member: nothing is known of two different ones; they share at least what the class shares with rest.
        return 0.0
    cross = (plain - self_plain) / pairs
    return (1 - float(np.sum(real**2))) * cross + self_real - plain
