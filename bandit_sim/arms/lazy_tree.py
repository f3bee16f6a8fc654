"""The lazy token tree: too many responses to list, so that only the prefixes training has moved exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_dataclass
from numpy.typing import ArrayLike

from bandit_sim.arms.checks import Array, concrete, floats
from bandit_sim.arms.token_tree import TokenTree
from theory.refusal import Refusal


@register_dataclass
@dataclass(frozen=True)
class LazyTree:
    """As `TokenTree`, at any size: base logits(prefix) = law[depth] + roughness * normal(hash of seed and prefix).

    True rewards are 1 for the responses listed in `correct`, or those of a function; with a list the success
    is exact (each listed response is walked), with a function only the sampled reward is known.

    Arguments:
        law: (T, V) base logits by token position; the T-th token ends a response whatever it is.
        correct: (C, T) tokens of each correct response, -1 beyond its end; None with `pays`.
        pays: (tokens (T,), length ()) -> () true reward, traceable by JAX, tokens -1 beyond the end; None with
            `correct`. The same function object is needed for compiled code to be found again.
        roughness: standard deviation of what is each prefix's own, >= 0.
        seed: of the hash; without effect, and so left at 0, where roughness is 0.
        end: the token that ends a response.
    Errors: Refusal naming the field, its value and the fix.
    Source: tabular softmax policy of a deterministic token-level decision process.
    Valid when: the visited prefixes fit in memory.
    """

    law: Array
    correct: Array | None = None
    pays: Callable[[Any, Any], Any] | None = field(default=None, metadata={"static": True})
    roughness: float = field(default=0.0, metadata={"static": True})
    seed: int = field(default=0, metadata={"static": True})
    end: int = field(default=0, metadata={"static": True})

    def __post_init__(self) -> None:
        if (self.correct is None) == (self.pays is None):
            raise Refusal("give exactly one of correct (a list of responses) and pays (a function)")
        if self.roughness < 0 or (self.roughness == 0 and self.seed):
            raise Refusal(f"roughness = {self.roughness}, seed = {self.seed}; a seed needs roughness > 0")
        if concrete(self.law) and (np.ndim(self.law) != 2 or not np.all(np.isfinite(np.asarray(self.law)))):
            raise Refusal(f"law has shape {np.shape(self.law)}; give finite (T, V) logits")

    @classmethod
    def of(cls, law: ArrayLike, depth: int, correct: Sequence[Sequence[int]], **others: Any) -> LazyTree:
        """The tree of a next-token law, (V,) or (depth, V) probabilities, and its correct responses by their tokens.

        Errors: Refusal for a correct response that the tree does not hold, or one listed twice.
        """
        mass, end = floats(law), others.get("end", 0)
        if mass.shape[-1:] != (mass.size // (1 if mass.ndim == 1 else depth),) or not np.all(mass > 0):
            raise Refusal(f"law has shape {mass.shape}; give positive (V,) or ({depth}, V) probabilities")
        logits = np.log(np.broadcast_to(mass, (depth, mass.shape[-1])))
        table = np.full((len(correct), depth), -1, np.int32)
        for row, tokens in enumerate(correct):
            whole = 0 < len(tokens) <= depth and end not in tokens[:-1]
            whole = whole and (tokens[-1] == end or len(tokens) == depth)
            if not whole or min(tokens) < 0 or max(tokens) >= mass.shape[-1]:
                raise Refusal(
                    f"correct[{row}] = {tuple(tokens)} is no response; give up to {depth} tokens below "
                    f"{mass.shape[-1]}, the last one {end} (or the {depth}-th)"
                )
            table[row, : len(tokens)] = tokens
        if not len(table) or len(np.unique(table, axis=0)) < len(table):
            raise Refusal("correct is empty or lists a response twice; give each correct response once")
        return cls(law=logits, correct=table, **others)

    def base(self, prefix_key: jax.Array, position: jax.Array, dtype: Any) -> jax.Array:
        """(V,) base logits at the prefix with this key, `position` tokens long."""
        logits = jnp.asarray(self.law, dtype)[position]
        if self.roughness == 0:
            return logits
        return logits + jnp.asarray(self.roughness, dtype) * jax.random.normal(
            prefix_key, logits.shape, dtype
        )

    def truth(self, tokens: jax.Array, length: jax.Array, dtype: Any) -> jax.Array:
        """() true reward of the response tokens (T,), -1 beyond its length."""
        if self.pays is not None:
            return jnp.asarray(self.pays(tokens, length)).astype(dtype)
        return jnp.all(jnp.asarray(self.correct) == tokens, axis=1).any().astype(dtype)

    def enumerate(self) -> TokenTree:
        """The same bandit with every response listed. Errors: Refusal where there are too many."""
        depth = np.shape(self.law)[0]
        dtype = jnp.asarray(self.law).dtype

        def next_token(prefix: tuple[int, ...]) -> np.ndarray:
            key = jax.random.key(self.seed)
            for token in prefix:
                key = jax.random.fold_in(key, token)
            logits = np.asarray(self.base(key, jnp.asarray(len(prefix)), dtype), np.float64)
            weight = np.exp(logits - logits.max())
            return weight / weight.sum()

        def reward(tokens: tuple[int, ...]) -> float:
            padded = np.full(depth, -1, np.int32)
            padded[: len(tokens)] = tokens
            return float(self.truth(jnp.asarray(padded), jnp.asarray(len(tokens)), dtype))

        return TokenTree.grow(next_token, depth, reward, end=self.end)
