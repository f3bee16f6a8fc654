"""Shared pieces of the simulator's tests: float64, rules, and a random token model that is linear."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from theory.rules.rule import Rule
from theory.trees.response_tree import ResponseTree


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def make_rule() -> Callable[..., Rule]:
    def make(eta: float = 0.1, signal: str = "raw", rollouts: int = 1, **fields: object) -> Rule:
        spec = {"signal": {"kind": signal}, "optimiser": {"kind": "sgd", "eta": eta}, "rollouts": rollouts}
        return Rule.model_validate(spec | fields)

    return make


class TokenModel:
    """A token model whose logits are linear in theta: every node softmax has logits base + J theta.

    Responses have up to `depth` tokens over `width` symbols; symbol 0 ends a response.
    """

    def __init__(self, seed: int, width: int = 3, depth: int = 3, parameters: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.node: list[int] = []
        self.depth: list[int] = []
        self.leaves: list[list[int]] = []
        frontier: list[list[int]] = [[]]
        nodes = 0
        while frontier:
            here = frontier.pop(0)
            for token in range(width):
                edge = len(self.node)
                self.node.append(nodes)
                self.depth.append(len(here))
                step = [*here, edge]
                (self.leaves if token == 0 or len(step) == depth else frontier).append(step)
            nodes += 1
        edges = len(self.node)
        self.base = rng.normal(size=edges)
        self.jacobian = rng.normal(size=(edges, parameters))
        self.theta = np.zeros(parameters)
        self.reward = (rng.random(len(self.leaves)) < 0.4).astype(float)
        self.reward[:2] = 1.0, 0.0

    def edge_probability(self, theta: np.ndarray) -> np.ndarray:
        weight = np.exp(self.base + self.jacobian @ theta)
        return weight / np.array([sum(weight[np.array(self.node) == n]) for n in self.node])

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """(E, P) grad log pi of every edge: its row of J minus the node's expectation of J."""
        pi = self.edge_probability(theta)
        node = np.array(self.node)
        return self.jacobian - np.stack([pi[node == n] @ self.jacobian[node == n] for n in node])

    def leaf_probability(self, theta: np.ndarray) -> np.ndarray:
        pi = self.edge_probability(theta)
        return np.array([np.prod(pi[leaf]) for leaf in self.leaves])

    def success(self, theta: np.ndarray) -> float:
        return float(self.leaf_probability(theta) @ self.reward)

    def tree(self) -> ResponseTree:
        """The tree of the base policy, kernel from its explicit scores."""
        path = np.zeros((len(self.leaves), len(self.node)), dtype=np.int8)
        for row, leaf in enumerate(self.leaves):
            path[row, leaf] = 1
        g = self.scores(self.theta)
        return ResponseTree(
            node=np.array(self.node),
            probability=self.edge_probability(self.theta),
            path=path,
            reward=self.reward,
            depth=np.array(self.depth),
            length=path.sum(axis=1).astype(float),
            kernel=g @ g.T,
        )


@pytest.fixture
def token_model() -> Callable[..., TokenModel]:
    return TokenModel


@pytest.fixture(scope="session")
def make_rule_plain() -> Callable[[float], Rule]:
    """A session's raw-reward rule by step size, for hypothesis, which rejects fixtures made anew per test."""
    return lambda eta: Rule.model_validate({"optimiser": {"kind": "sgd", "eta": eta}})
