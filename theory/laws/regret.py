"""Regret of stochastic softmax policy gradient on bandits whose rewards are random (Baudry et al., NeurIPS 2025).

Convention: theta_k += eta (1[A = k] - pi_k) r, one pull a round, rewards in [-1, 1], one logit per arm, even at the
start; arm 1 is the unique best, Delta its distance to the second best; R_T = sum_{t <= T} E[mu_1 - mu_{A_t}].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import lambertw

from theory.laws.arguments import Floats, Values, open_unit, positive, whole


def second_order(eta: ArrayLike) -> Values:
    """C_eta = 2 sum_{n >= 0} (2 eta)^n / (n+2)! = (e^(2 eta) - 1 - 2 eta) / (2 eta^2) <= e^(2 eta).

    What a step's second and higher orders cost against its drift. Source: Baudry et al., theorem 1.
    """
    step = 2 * positive("eta", eta)
    # The closed form loses its digits as eta -> 0; four terms of the series are exact there.
    series = 1 + step / 3 + step**2 / 12 + step**3 / 60
    return np.where(step > 1e-3, 2 * (np.expm1(step) - step) / step**2, series)


def two_arm_bound(rounds: ArrayLike, eta: ArrayLike, distance: ArrayLike) -> Values:
    """Regret of two arms: infinite unless eta C_eta < Delta, else

        R_T <= log(1 + 4 eta Delta T) / (2 eta) + Delta / (2 eta (Delta - eta C_eta))

    Arguments:
        rounds: T.
        eta: step size.
        distance: Delta, in (0, 2).
    Source: Baudry et al., theorem 1. Tight in its first term, which is `late_regret`; the second is the price of a
        start among failures. Valid when: K = 2, rewards in [-1, 1].
    """
    step, gap = positive("eta", eta), positive("distance", distance)
    room = gap - step * second_order(step)
    with np.errstate(divide="ignore"):
        start = np.where(room > 0, gap / (2 * step * np.where(room > 0, room, 1)), np.inf)
    return np.log(1 + 4 * step * gap * positive("rounds", rounds)) / (2 * step) + start


def late_regret(rounds: ArrayLike, eta: ArrayLike, arms: int = 2) -> Values:
    """R_T ~ (K-1)/(K eta) log T: what is paid for ever once the best arm leads; log(T)/(2 eta) for two arms.

    From 1 - p ~ 1/(C eta Delta t), C = 1 + 1/(K-1), summed.
    Source: Baudry et al., figure 7, for K = 2; for K equal wrong arms derived here.
    Valid when: T -> inf, eta below the critical step, equal wrong arms.
    """
    return np.log(positive("rounds", rounds)) * (whole("arms", arms, 2) - 1) / (arms * positive("eta", eta))


def noisy_exponent(eta: ArrayLike, distance: ArrayLike, arms: int = 2) -> Values:
    """Least exponent of the regret, R_T = Omega~(T^x), where the best arm's reward is +-1 and the others' is 0.

        x = 1 - lambda/eta,  lambda = (K-1)/K log(1 + 2 Delta/(1 - Delta));  0 if eta <= lambda

    A step too large stays for long on arms that pay 0 after some bad luck with the best one: with rewards of 0 nothing
    moves there, and the only way back is to pull the best arm again.
    Source: Baudry et al., theorem 2. Valid when: arm 1 is Rademacher of mean Delta, the others 0, T -> inf.
    """
    return np.maximum(0, 1 - critical_step(distance, arms) / positive("eta", eta))


def critical_step(distance: ArrayLike, arms: int = 2) -> Values:
    """lambda of `noisy_exponent`, about 2 Delta (K-1)/K: above it, no logarithmic regret on that instance."""
    gap = open_unit("distance", distance)
    return (whole("arms", arms, 2) - 1) / arms * np.log(1 + 2 * gap / (1 - gap))


def easy_bound(rounds: ArrayLike, eta: float, distance: float, arms: int) -> Values:
    """Regret where the best arm pays 0 and the others -Delta, without noise: logarithmic at any step size.

        R_T <= [1 + log(1 + (K-1) T eta Delta)] / ((1-e) eta) + K^2/e (Delta + log(K/e)/eta),  the best e in (0, 1)

    Source: Baudry et al., lemma 1. The K^2 is far from tight here. Valid when: deterministic rewards.
    """
    e = np.linspace(0.001, 0.999, 999)
    count, gap, step = (
        whole("arms", arms, 2),
        float(positive("distance", distance)),
        float(positive("eta", eta)),
    )
    late = 1 + np.log(1 + (count - 1) * step * gap * positive("rounds", rounds))
    start = count**2 / e * (gap + np.log(count / e) / step)
    return (np.asarray(late)[..., None] / ((1 - e) * step) + start).min(axis=-1)


def failing_step(exponent: ArrayLike, distance: ArrayLike, arms: int) -> Values:
    """Step above which some instance has R_T = Omega(T^alpha).

        eta > log(1 + 2 Delta/(1 - Delta)) / (Delta (1 - alpha) (K-1))

    Source: Baudry et al., theorem 3: with many arms the step must shrink like 1/K. It is a statement about the worst
    instance; a verifier without noise is on the side of `easy_bound`.
    Valid when: K >= 3, alpha in (0, 1).
    """
    gap, alpha = open_unit("distance", distance), open_unit("exponent", exponent)
    return np.log(1 + 2 * gap / (1 - gap)) / (gap * (1 - alpha) * (whole("arms", arms, 3) - 1))


def safe_step(distance: ArrayLike, arms: int) -> Values:
    """Largest step with logarithmic regret guaranteed for equal gaps: eta e^(2 eta) = 2 Delta/(K + 2).

    Source: Baudry et al., theorem 4, solved by Lambert's W. Valid when: all wrong arms at distance Delta.
    """
    return np.real(lambertw(4 * positive("distance", distance) / (whole("arms", arms, 2) + 2))) / 2


def distance_free_step(rounds: ArrayLike) -> Values:
    """eta = sqrt(log T / T): regret O(sqrt(T log T)) whatever Delta is.

    Source: Baudry et al., corollary 1. Valid when: two arms, T >= 3.
    """
    t = positive("rounds", rounds)
    return np.sqrt(np.log(t) / t)


def distance_free_regret(rounds: int) -> float:
    """The regret at that step size for the worst Delta: max over Delta of min(Delta T, `two_arm_bound`).

    Source: derived from theorem 1 for this project. Valid when: as `distance_free_step`.
    """
    step, gaps = float(distance_free_step(rounds)), np.geomspace(1e-6, 2, 4000)
    bound: Floats = np.asarray(np.minimum(gaps * rounds, two_arm_bound(rounds, step, gaps)))
    return float(bound.max())


def stuck_exponent(eta: ArrayLike, reward: ArrayLike, arms: int = 2) -> Values:
    """Least exponent of the regret, R_T = Omega(T^x), where a wrong arm pays `reward` > 0 and there is no baseline.

        x = 1 - 1/(C eta r), C = K/(K-1);  0 if C eta r <= 1

    Every pull of the wrong arm then reinforces it; a seed that has pulled nothing else for m rounds does so with
    probability ~ m^(-1/(C eta r)) (`committal.damped_exponent`), and pays all that time. So any constant step
    converges in the end (arXiv 2502.07141), but in a mean time that is infinite beyond C eta r = 1, noise or none. A
    0/1 verifier pays wrong responses nothing and is out of its reach.
    Source: derived for this project. Valid when: T -> inf, other arms even at the start.
    """
    geometry = whole("arms", arms, 2) / (arms - 1)
    return np.maximum(0, 1 - 1 / (geometry * positive("eta", eta) * positive("reward", reward)))


def lyapunov_order(rounds: ArrayLike, eta: ArrayLike, arms: int) -> Values:
    """K log(K) log(T) / eta: the order of the regret for eta = O(Delta^2 / log T), any number of arms.

    An order, its constant unknown here; equal gaps stay below one times it.
    Source: Lattimore (arXiv 2603.26547), from a digest of the paper. Valid when: eta below that threshold.
    """
    return whole("arms", arms, 2) * np.log(arms) * np.log(positive("rounds", rounds)) / positive("eta", eta)


def proportional_regret(rounds: ArrayLike, alpha: ArrayLike) -> Values:
    """R_T ~ log(T)/alpha for policy gradient on the probabilities themselves, with steps alpha p^2 (SAMBA).

        dp/dt = -alpha Delta p^2 for the wrong arm's p, so p ~ 1/(alpha Delta t)

    Source: Denisov and Walton (arXiv 2007.10229): R_T <= log(T)/alpha for alpha < Delta; the rate re-derived here, the
        bound from the abstract. Valid when: two arms, alpha < Delta, T -> inf.
    """
    return np.log(positive("rounds", rounds)) / positive("alpha", alpha)
