"""How to split a budget of rollouts between queries and rollouts per query: the U-statistic law.

Convention: g_q = E[A s] is query q's gradient, s the score of a response with respect to the trained parameters; the
round's gradient is the mean over B queries of their group's. Only inner products of scores enter: a kernel.
With leave-one-out the group's gradient is a U-statistic of its rollouts, so its mean squared error is exactly

    MSE(B, G) = c1/B + c2/(B G) + c3/(B G (G-1))

    c1 = E|g_q - g|^2,   c2 = E tr Cov((r - V_q) s),   c3 = E[ Var(r) E|s|^2 + |g_q|^2 ].

c1 is what queries differ by, c2 what rollouts differ by under the true value baseline, c3 the price of not knowing it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theory.laws.arguments import Floats, Values
from theory.refusal import Refusal

Baseline = Literal["leave_one_out", "none", "value"]


class Split(NamedTuple):
    """The constants of a set of queries under one policy and one signal; units: squared gradient.

    Arguments:
        queries: c1.
        rollouts: c2.
        baseline: c3; zero for a signal that estimates no baseline.
        pool: number of queries that a batch is drawn from without replacement; None for endlessly many.
    """

    queries: float
    rollouts: float
    baseline: float
    pool: int | None = None

    def mse(self, batch: ArrayLike, group: ArrayLike) -> Values:
        """E|gradient of a round - true gradient|^2 with `batch` queries of `group` rollouts each.

        c1/B (Q-B)/(Q-1) + c2/(B G) + c3/(B G (G-1)); the factor of c1 is 1 for an endless pool.
        Valid when: as `constants`; G >= 2 where c3 > 0, infinite at G = 1.
        """
        b, g = (np.asarray(x, dtype=np.float64) for x in (batch, group))
        left = 1.0 if self.pool is None else (self.pool - b) / max(self.pool - 1, 1)
        with np.errstate(divide="ignore"):
            price = self.baseline / (b * g * (g - 1)) if self.baseline else 0.0
        return self.queries * left / b + self.rollouts / (b * g) + price

    @property
    def best_group(self) -> float:
        """G* = 1 + sqrt(c3/c1) at a fixed budget B G = N, whatever N is; 1 without a baseline to estimate.

        The source has sqrt(c3/c1), from a c3/(B G^2) that is right for large G; the exact G (G-1) adds the 1. With a
        finite pool the optimum depends on N: use `best_split`. Infinite where all queries have one gradient.
        """
        if self.baseline == 0:
            return 1.0
        return float(1 + np.sqrt(np.divide(self.baseline, self.queries))) if self.queries > 0 else np.inf

    def best_split(self, budget: int) -> tuple[int, int]:
        """(B, G) of least MSE among the splits B G = budget in whole numbers, B at most the pool."""
        groups = [g for g in range(1, budget + 1) if budget % g == 0 and budget // g <= (self.pool or budget)]
        best = min(groups, key=lambda g: float(self.mse(budget // g, g)))
        return budget // best, best


def constants(
    policy: ArrayLike,
    reward: ArrayLike,
    kernel: ArrayLike,
    baseline: Baseline = "leave_one_out",
    pool: int | None = None,
) -> Split:
    """c1, c2, c3 of Q queries with K responses each, exactly, by summing over all responses.

    Arguments:
        policy: (Q, K) probabilities of the responses of each query.
        reward: (Q, K) their rewards.
        kernel: (Q K, Q K) inner products of features or of scores, query by query; scores are centred here. For one
            probed query: leaf probabilities, rewards and `sequence_kernel()` of its tree, with c1 = 0.
        baseline: of the signal: "leave_one_out", the true "value", or "none" (raw reward, c3 = 0: then one rollout
            per query is best, and an interior optimum exists only because a baseline must be estimated).
        pool: as `Split`.
    Errors: Refusal naming the shapes, or a policy that does not sum to one.
    Source: arXiv 2603.01162, theorems 2 and 7 and proposition 3; here with c3 exact instead of an order.
    Valid when: on-policy, queries drawn evenly; leave-one-out mean without division by the std.
    """
    pi, r, gram = (np.asarray(x, dtype=np.float64) for x in (policy, reward, kernel))
    if pi.ndim != 2 or r.shape != pi.shape or gram.shape != (pi.size, pi.size):
        raise Refusal(
            f"policy {pi.shape}, reward {r.shape}, kernel {gram.shape}; give (Q, K) twice and (Q K, Q K)"
        )
    if np.any(np.abs(pi.sum(axis=1) - 1) > 1e-6):
        raise Refusal(f"policy sums to {pi.sum(axis=1)[0]:.6g}; give probabilities of all responses")
    count, arms = pi.shape
    scores = _centred(gram, pi)
    value = (pi * r).sum(axis=1, keepdims=True)
    spread = (pi * (r - value) ** 2).sum(axis=1)
    advantage = r if baseline == "none" else r - value
    weight = (pi * advantage)[:, None, :] * np.eye(count)[:, :, None]  # g_q as a sum over responses
    inner = np.einsum("qa,ab,pb->qp", weight.reshape(count, -1), scores, weight.reshape(count, -1))
    norm, mean = np.diag(inner), inner.mean()
    length = np.diag(scores).reshape(count, arms)
    noise = (pi * advantage**2 * length).sum(axis=1) - norm
    price = spread * (pi * length).sum(axis=1) + norm if baseline == "leave_one_out" else np.zeros(count)
    return Split(float(norm.mean() - mean), float(noise.mean()), float(price.mean()), pool)


def along_gradient(policy: ArrayLike, reward: ArrayLike, kernel: ArrayLike) -> Floats:
    """(Q K, Q K) the kernel seen along the mean gradient: of it, the constants are those of Var(step of mean success).

        u u^T,  u = K pi r / Q of centred scores:  a step of eta moves the mean success by eta u.(weights)

    Source: derived for this project. Valid when: eta -> 0.
    """
    pi, r = (np.asarray(x, dtype=np.float64) for x in (policy, reward))
    along = _centred(np.asarray(kernel, dtype=np.float64), pi) @ (pi * r / len(pi)).ravel()
    return np.outer(along, along)


def shared_kernel(queries: int, kinds: ArrayLike, overlap: float) -> Floats:
    """(Q K, Q K) kernel of queries that share a part of their features: (1 - o) 1[q = q'] K + o K.

    As `bandit_sim.Contexts` has it. Source: arXiv 2601.22532, as a batched contextual bandit.
    """
    mixing = (1 - overlap) * np.eye(queries) + overlap
    return np.asarray(np.kron(mixing, np.asarray(kinds, dtype=np.float64)), dtype=np.float64)


def _centred(gram: Floats, policy: Floats) -> Floats:
    """Kernel of the scores s_a = phi_a - sum_b pi_b phi_b, from that of features (or of scores, which stay)."""
    count, arms = policy.shape
    blocks = np.zeros((count * arms, count * arms))
    for q in range(count):
        at = slice(q * arms, (q + 1) * arms)
        blocks[at, at] = np.eye(arms) - policy[q][None, :]
    return blocks @ gram @ blocks.T
