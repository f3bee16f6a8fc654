"""The strong growth condition: the noise of a stochastic gradient vanishes where its mean does (Mei et al., 2023).

Convention: one logit per arm, one pull, g = (1[a] - pi) R with E[R | a] = r_a and |R| <= bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.laws.arguments import Floats, Values, positive


def second_moment(policy: ArrayLike, square: ArrayLike) -> Values:
    """E|g|^2 = sum_a pi_a E[R_a^2] (1 - 2 pi_a + |pi|^2), of policies (..., K) and squared rewards (K,).

    Source: elementary. Valid when: one pull, no baseline.
    """
    pi = np.asarray(policy, dtype=np.float64)
    score: Floats = 1 - 2 * pi + np.sum(pi**2, axis=-1, keepdims=True)
    return np.sum(pi * np.asarray(square, dtype=np.float64) * score, axis=-1)


def gradient_norm(policy: ArrayLike, reward: ArrayLike) -> Values:
    """|grad| = |pi (r - pi.r)|, of policies (..., K) and mean rewards (K,). Source: elementary."""
    pi, r = np.asarray(policy, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    return np.sqrt(np.sum((pi * (r - np.sum(pi * r, axis=-1, keepdims=True))) ** 2, axis=-1))


def growth_constant(distance: ArrayLike, arms: int, bound: float = 1.0) -> Values:
    """C in E|g|^2 <= C |grad|:  8 bound^3 K^(3/2) / Delta^2, Delta = min over pairs |r_a - r_b|.

    Source: Mei et al., ICML 2023 (arXiv 2402.17235), the constant from memory: random policies and rewards obey it
        here, none nearer than a sixth (two-arm corners: `corner_constant`). Valid when: no two arms have equal means.
    """
    return 8 * positive("bound", bound) ** 3 * arms ** (3 / 2) / positive("distance", distance) ** 2


def safe_step(distance: ArrayLike, arms: int, bound: float = 1.0) -> Values:
    """eta = Delta^2 / (40 K^(3/2) bound^3): convergence almost surely at O(1/t), with a constant step.

    A fifth of the inverse of `growth_constant`. Far below what works: arXiv 2502.07141 shows that any constant step
    converges in the end, `regret.critical_step` what a large one costs.
    Source: as `growth_constant`, from memory. Valid when: as there.
    """
    return 1 / (5 * growth_constant(distance, arms, bound))


def corner_constant(distance: ArrayLike, square: float = 1.0) -> Values:
    """E|g|^2/|grad| -> sqrt(2) E[R^2]/Delta where all mass but a little sits on one arm, the rest on one other.

    E|g|^2 = 2 e E[R^2] and |grad| = sqrt(2) e Delta for two arms with 1 - e and e, R the reward of the rare one: the
    tight constant there is of order 1/Delta, not K^(3/2)/Delta^2.
    Source: derived for this project. Valid when: e -> 0, `square` = E[R^2] of the rare arm.
    """
    return np.sqrt(2) * square / positive("distance", distance)
