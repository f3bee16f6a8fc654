"""What every engine offers. An engine knows how a weight on log pi(choice) moves its policy, and no rule."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class AnyArms(Protocol):
    """What the arms of every engine have; `bandit_sim.engines.registry` lists which engine pulls which."""

    @property
    def reward(self) -> Any:
        """(A,) true reward of each choice."""
        ...

    @property
    def flip(self) -> Any:
        """(A,) chance that noisy pay misjudges the choice; None is 0 for all."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A policy over A choices with a state of logits; `arms` is the kind of arms the engine pulls."""

    linear: bool
    """True where the state holds function values, which only a step linear in the direction may move."""

    def init(self, arms: Any) -> jax.Array:
        """The base policy's state: logits (D,)."""
        ...

    def query_count(self, arms: Any) -> int:
        """How many queries there are; a rule with memory keeps one for each."""
        ...

    def pick(self, arms: Any, key: jax.Array) -> jax.Array:
        """(B,) the queries of one round's batch, no two alike."""
        ...

    def query_of(self, arms: Any, choices: jax.Array) -> jax.Array:
        """(n,) the query that each of the choices (n,) answers."""
        ...

    def frequency(self, arms: Any) -> jax.Array:
        """(A,) share of a batch that goes to the query of each choice, in expectation; 0 for a held-out one."""
        ...

    def log_probabilities(self, arms: Any, state: jax.Array) -> jax.Array:
        """(A,) log pi of every choice as rollouts draw it, given its query."""
        ...

    def success(self, arms: Any, state: jax.Array) -> jax.Array:
        """() p = sum over choices of pi times true reward; the mean over training queries where there are several."""
        ...

    def held_out(self, arms: Any, state: jax.Array) -> jax.Array:
        """() the mean of p over the queries never trained on. Errors: Refusal where there are none."""
        ...

    def sample(
        self, arms: Any, state: jax.Array, keys: jax.Array, uniform: jax.Array, queries: jax.Array
    ) -> jax.Array:
        """(n,) choices, each for its query (n,), by its uniform number (n,); one of several tokens by its key (n,)."""
        ...

    def greedy(self, arms: Any, state: jax.Array, queries: jax.Array) -> jax.Array:
        """(n,) the greedy choice for each query (n,)."""
        ...

    def token_logprobs(self, arms: Any, state: jax.Array, choices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(n, T) log pi of each token of the choices (n,), and the mask (n, T) of real tokens."""
        ...

    def token_mask(self, arms: Any, choices: jax.Array, dtype: Any) -> jax.Array:
        """(n, T) 1 on the real tokens of the choices (n,)."""
        ...

    def direction(self, arms: Any, state: jax.Array, choices: jax.Array, weights: jax.Array) -> jax.Array:
        """(D,) where sum_it w_it grad log pi(y_it) moves the logits, per unit of eta."""
        ...

    def entropy_direction(
        self, arms: Any, state: jax.Array, choices: jax.Array, weights: jax.Array
    ) -> jax.Array:
        """(D,) where sum_it w_it grad H(pi(. | prefix_it)) moves the logits: exact entropy of the next token."""
        ...

    def entropy(self, arms: Any, state: jax.Array, queries: jax.Array) -> jax.Array:
        """() entropy of the policy over choices in nats, mean over the queries (n,)."""
        ...

    def metric(self, arms: Any, gradient: jax.Array) -> jax.Array:
        """(D,) where a gradient with respect to the state moves it: along itself, or K times it in a kernel engine."""
        ...
