"""The token tree: responses built token by token, with free logits at every prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import ArrayLike, NDArray

from bandit_sim.arms.checks import Array, check_flip, check_reward, concrete, floats
from theory.refusal import Refusal
from theory.trees.response_tree import ResponseTree

Tokens = tuple[int, ...]
Law = ArrayLike | Callable[[Tokens], ArrayLike]

MOST_LEAVES = 2**20


@register_dataclass
@dataclass(frozen=True)
class TokenTree:
    """All responses of up to T tokens over V symbols: pi(y) = prod_t softmax(logits of y's prefix)[y_t].

    The logits of every prefix are parameters of their own. Leaves are in the order of their tokens. Made by
    `grow`, `random` or `from_tree`; `starting` makes rollouts begin at a prefix.

    Arguments (N prefixes that go on, L responses):
        logits: (N, V) base logits at each prefix, prefix 0 the empty one; -inf is a token that never comes.
        child: (N, V) the prefix a token leads to, or -1 - leaf where it ends the response.
        node: (L, T) prefix before token t of the response.
        token: (L, T) that token.
        length: (L,) tokens of the response.
        reward: (L,) its true reward.
        flip: (L,) chance that noisy pay misjudges it; None is 0 for all.
        root: () prefix that rollouts begin at.
        within: (L,) whether the response begins with that prefix.
        skip: tokens of that prefix; rollouts are neither asked for them nor trained on them.
    Errors: Refusal naming the leaf or the prefix.
    Source: tabular softmax policy of a deterministic token-level decision process.
    Valid when: the tree is small enough to list; for larger ones see `LazyTree`.
    """

    logits: Array
    child: Array
    node: Array
    token: Array
    length: Array
    reward: Array
    root: Array
    within: Array
    flip: Array | None = None
    skip: int = field(default=0, metadata={"static": True})

    def __post_init__(self) -> None:
        if concrete(self.logits, self.reward):
            check_reward(self.reward)
            check_flip(self.flip, self.reward)
            values = np.asarray(self.logits)
            bad = np.flatnonzero(
                np.isnan(values).any(1) | (values == np.inf).any(1) | ~np.isfinite(values).any(1)
            )
            if bad.size:
                raise Refusal(
                    f"logits of prefix {bad[0]} are {values[bad[0]]}; each is finite or -inf, one of them finite"
                )

    @classmethod
    def grow(
        cls,
        law: Law,
        depth: int,
        reward: Callable[[Tokens], float],
        *,
        end: int = 0,
        start: Sequence[int] = (),
    ) -> TokenTree:
        """The tree of a base next-token law.

        Arguments:
            law: (V,) or (depth, V) probabilities of the next token, or a function of the prefix giving (V,).
            depth: most tokens T of a response; the T-th ends it whatever it is.
            reward: true reward of a response, its end token included.
            end: the token that ends a response.
            start: prefix that rollouts begin at; success is reported from the empty prefix all the same.
        Errors: Refusal naming the prefix whose law is no distribution, or for more than 2**20 leaves.
        """
        if depth < 1:
            raise Refusal(f"depth = {depth}; give at least 1 token")
        next_token = _as_function(law, depth)
        logits: list[NDArray[np.floating]] = []
        child: list[NDArray[np.integer]] = []
        paths: list[list[tuple[int, int]]] = []

        def visit(prefix: Tokens, path: list[tuple[int, int]]) -> int:
            here, mass = len(logits), floats(next_token(prefix))
            if mass.ndim != 1 or np.any(~(mass >= 0)) or abs(mass.sum() - 1) > 1e-6:
                raise Refusal(f"law at prefix {prefix} is {mass}; give (V,) chances that sum to 1")
            with np.errstate(divide="ignore"):
                logits.append(np.log(mass))
            child.append(np.full(len(mass), -1, np.int32))
            for token in np.flatnonzero(mass).tolist():
                step = [*path, (here, token)]
                if token == end or len(step) == depth:
                    paths.append(step)
                    child[here][token] = -len(paths)
                else:
                    child[here][token] = visit((*prefix, token), step)
                if len(paths) > MOST_LEAVES:
                    raise Refusal(f"more than {MOST_LEAVES} responses; use LazyTree, or a smaller depth")
            return here

        visit((), [])
        pays = np.array([float(reward(tuple(token for _, token in path))) for path in paths])
        tree = cls._of(np.stack(logits), np.stack(child), paths, pays)
        return tree.starting(start) if len(start) else tree

    @classmethod
    def random(
        cls, vocabulary: int, depth: int, seed: int, reward: Callable[[Tokens], float], *, end: int = 0
    ) -> TokenTree:
        """A tree whose next-token law at every prefix is drawn from the flat Dirichlet distribution."""
        rng = np.random.default_rng(seed)
        return cls.grow(lambda prefix: rng.dirichlet(np.ones(vocabulary)), depth, reward, end=end)

    @classmethod
    def from_tree(cls, tree: ResponseTree) -> TokenTree:
        """The leaves of a response tree with free logits at every node: what a model without sharing would do.

        Errors: Refusal where an edge carries more or less than one token (a rest or a tail of a probe).
        """
        _, slot = np.unique(tree.node, return_inverse=True)
        rank = np.array([np.sum(slot[:e] == n) for e, n in enumerate(slot)])
        logits = np.full((slot.max() + 1, rank.max() + 1), -np.inf)
        with np.errstate(divide="ignore"):
            logits[slot, rank] = np.log(tree.probability)
        child = np.full(logits.shape, -1, np.int32)
        paths: list[list[tuple[int, int]]] = []
        for leaf, on_path in enumerate(np.asarray(tree.path) > 0):
            edges = np.flatnonzero(on_path)
            edges = edges[np.argsort(tree.depth[edges], kind="stable")]
            if np.any(tree.depth[edges] != np.arange(tree.length[leaf])):
                raise Refusal(
                    f"leaf {leaf} has edges at depths {tree.depth[edges]} and {tree.length[leaf]:g} tokens; a token "
                    "tree needs one edge per token, so probe deeper, or use TreeArms with `tabular_kernel`"
                )
            paths.append([(int(slot[e]), int(rank[e])) for e in edges])
            for edge, after in zip(edges, [*slot[edges[1:]], -1 - leaf], strict=True):
                child[slot[edge], rank[edge]] = after
        root = paths[0][0][0]
        return replace(cls._of(logits, child, paths, floats(tree.reward)), root=np.int32(root))

    @classmethod
    def _of(
        cls, logits: np.ndarray, child: np.ndarray, paths: list[list[tuple[int, int]]], reward: np.ndarray
    ) -> TokenTree:
        length = np.array([len(path) for path in paths], np.int32)
        node, token = np.zeros((2, len(paths), length.max()), np.int32)
        for leaf, path in enumerate(paths):
            node[leaf, : len(path)], token[leaf, : len(path)] = np.transpose(path)
        return cls(logits, child, node, token, length, reward, np.int32(0), np.ones(len(paths), bool))

    def starting(self, prefix: Sequence[int]) -> TokenTree:
        """The same tree with rollouts that begin at this prefix (restarts); success stays that of the whole tree.

        Errors: Refusal for a prefix that no response goes through.
        """
        if self.skip:
            raise Refusal(
                f"rollouts begin after {self.skip} tokens already; give the whole prefix to the full tree"
            )
        depth = len(prefix)
        within = (self.token[:, :depth] == np.asarray(prefix, np.int32)).all(1) & (self.length > depth)
        if not within.any():
            raise Refusal(f"start = {tuple(prefix)}; no response goes on from there")
        root = self.node[np.argmax(within), depth]
        return replace(self, root=np.int32(root), within=within, skip=depth)


def _as_function(law: Law, depth: int) -> Callable[[Tokens], ArrayLike]:
    if callable(law):
        return law
    table = floats(law)
    table = np.broadcast_to(table, (depth, table.shape[0])) if table.ndim == 1 else table
    if table.ndim != 2 or len(table) != depth:
        raise Refusal(f"law has shape {np.shape(law)}; give (V,), ({depth}, V), or a function of the prefix")
    return lambda prefix: table[len(prefix)]
