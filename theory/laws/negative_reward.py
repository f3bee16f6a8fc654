"""When reward on failures makes a policy collapse: a first-order gain against a second-order loss.

Convention: as `theory.laws.kernel_flow`; advantage A of a rollout by its class alone. The mean field
cannot fall (dp/dt >= 0 with a positive semidefinite kernel), so what falls is the typical seed: E[log p].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theory.laws.arguments import Floats, Values, positive, whole


class LogDrift(NamedTuple):
    """E[log p after a round] - log p = eta gain - eta^2 loss + O(eta^3)."""

    gain: float
    loss: float

    @property
    def critical_step(self) -> float:
        """Step size above which the typical seed loses success in its first round: gain/loss; infinite if no loss."""
        return self.gain / self.loss if self.loss > 0 else np.inf

    def at(self, eta: float) -> float:
        """eta gain - eta^2 loss."""
        return eta * self.gain - eta**2 * self.loss


def log_drift(
    mass: ArrayLike,
    reward: ArrayLike,
    kernel: ArrayLike,
    pay: tuple[float, float] = (-1.0, 0.0),
    rollouts: int = 1,
) -> LogDrift:
    """Gain and loss of log p in a round, from masses (L,), rewards (L,) in {0, 1} and kernel (L, L).

        gain = (A_c - A_w) p (1-p)^2 kappa,
        loss = 1/2 [ S/n + (1 - 1/n) s ],   S = sum_a pi_a A_a^2 spread(v_a),   s = spread(sum_a pi_a A_a v_a),
        v_a = K (e_a - pi),   spread(v) = Var_pi(v) - Var_u(v)

    Var_pi over all responses, Var_u over the correct ones. A push of either sign scatters the logits, and log p pays
    half the scatter of the logits that it competes with, less that of its own. More rollouts average it away.
    Arguments:
        mass, reward, kernel: as `kernel_flow.coupling`.
        pay: advantage of a failure and of a success; (0, 1) raw, (-1, 1), (-1, 0) negative only.
        rollouts: n, averaged into one update.
    Source: derived for this project.
    Valid when: eta K << 1.
    """
    pi, right = np.asarray(mass, dtype=np.float64), np.asarray(reward) > 0
    pi = pi / pi.sum()
    gram, advantage = np.asarray(kernel, dtype=np.float64), np.where(right, pay[1], pay[0])
    of_correct = np.where(right, pi, 0) / pi[right].sum()
    pushes = gram - (gram @ pi)[:, None]
    mean = pushes @ (pi * advantage)
    single = (pi * advantage**2) @ _spread(pi, of_correct, pushes)
    together = _spread(pi, of_correct, mean)
    share = 1 / whole("rollouts", rollouts, 1)
    loss = (share * single + (1 - share) * together) / 2
    return LogDrift(float((of_correct - pi) @ mean), float(loss))


def rarest_that_learns(
    eta: float, contrast: float, scatter: float, pay: tuple[float, float] = (-1.0, 0.0)
) -> float:
    """Success probability below which reward on failures makes the typical seed collapse.

        p* = eta A_w^2 V / (2 (A_c - A_w) kappa):  eta V/(2 kappa) negative only, eta V/(4 kappa) for +-1

    Raw reward has no such p: its loss is paid on successes alone, so both terms are proportional to p, and only the
    step size decides. That is why a hard query survives raw reward, and not -1 on failures: at p0 -> 0 every round
    pays the loss, hardly any brings the gain. Lowering eta moves p* down with it.
    Arguments:
        eta: step size.
        contrast: kappa = kcc - 2 kcw + kww (`kernel_flow.Coupling`).
        scatter: V = mean over wrong responses a of spread(v_a), as in `log_drift` (`wrong_scatter`).
        pay: advantage of a failure and of a success.
    Source: derived for this project. Valid when: p* << 1, eta K << 1.
    """
    lost, won = pay
    return float(
        positive("eta", eta) * lost**2 * scatter / (2 * (won - lost) * positive("contrast", contrast))
    )


def wrong_scatter(mass: ArrayLike, reward: ArrayLike, kernel: ArrayLike) -> float:
    """V of `rarest_that_learns`: about kww of a response with itself over the number of wrong ones that matter.

    Tabular even arms: V = 1/M, so p* = eta/(2M) is below the mass of a single wrong arm. Overlaps among wrong
    responses make V of order one, and p* of the order of eta. Source, Valid when: as there.
    """
    pi, right = np.asarray(mass, dtype=np.float64), np.asarray(reward) > 0
    gram = np.asarray(kernel, dtype=np.float64)
    of_correct, of_wrong = (np.where(side, pi, 0) / pi[side].sum() for side in (right, ~right))
    pi = pi / pi.sum()
    return float(of_wrong @ _spread(pi, of_correct, gram - (gram @ pi)[:, None]))


def _spread(policy: Floats, correct: Floats, pushes: Floats) -> Floats:
    """Variance over all responses minus that over the correct ones, of a push (L,) or of each column of (L, N)."""

    def variance(weights: Floats) -> Values:
        return weights @ pushes**2 - (weights @ pushes) ** 2

    return np.asarray(variance(policy) - variance(correct))
