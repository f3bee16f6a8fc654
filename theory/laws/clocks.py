"""Time laws of two classes: how many updates from q0 to q, in closed form or by quadrature.

Convention: dq/dt = C eta q (1-q) D(q), t in updates. Geometry C = 1 is the single logit q = sigmoid(x), C = 2 the
two-arm softmax, C = 1/K + 1/M K correct and M wrong even arms (`theory.laws.two_class`). Mean field: eta -> 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import simpson, solve_ivp
from scipy.special import expit, logit

from theory.laws.arguments import Floats, Values, open_unit, positive
from theory.laws.two_class import moments
from theory.refusal import Refusal


def raw_clock(q: Floats) -> Values:
    """D = v: F(q) = (2q-1)/(q (1-q)) + 2 ln(q/(1-q))."""
    return (2 * q - 1) / (q * (1 - q)) + 2 * logit(q)


def std_clock(q: Floats) -> Values:
    """D = sqrt(v): F(q) = 2 (2q-1)/sqrt(q (1-q))."""
    return 2 * (2 * q - 1) / np.sqrt(q * (1 - q))


def max_rl_clock(q: Floats) -> Values:
    """D = 1-q: F(q) = ln(q/(1-q)) + 1/(1-q)."""
    return logit(q) + 1 / (1 - q)


class _Clock(NamedTuple):
    """F(q), its leading orders at q0 -> 0 and at t -> inf, and a constant factor of the speed."""

    at: Callable[[Floats], Values]
    escape: Callable[[Floats], Values]
    tail: Callable[[Floats], Values]
    factor: float = 1.0


_RAW = _Clock(raw_clock, lambda q: 1 / q, lambda reach: 1 / reach)
_STD = _Clock(std_clock, lambda q: 2 / np.sqrt(q), lambda reach: 4 / reach**2)
_MAX_RL = _Clock(max_rl_clock, lambda q: np.log(1 / q), lambda reach: 1 / reach)
_CLOCKS: dict[str, _Clock] = {
    "raw": _RAW,
    "value_baseline": _RAW,
    "leave_one_out": _RAW,
    "group_mean": _RAW,
    "negative_only": _RAW,
    "plus_minus": _RAW._replace(factor=2.0),
    "group_mean_std": _STD,
    "max_rl": _MAX_RL,
    "max_rl_centred": _MAX_RL,
}


def time_to(signal: str, q: ArrayLike, q0: ArrayLike, eta: float, geometry: float = 1.0) -> Values:
    """Updates from q0 to q: t = (F(q) - F(q0)) / (C eta), F the signal's clock.

    Arguments:
        signal: a key of `two_class.SIGNALS`, with endlessly many rollouts (raw, +-1, negative-only and
            leave-one-out: any number; group mean: eta times (G-1)/G).
        q, q0: success probabilities, broadcast together.
        eta, geometry: step size, and C.
    Errors: Refusal for an unknown signal or a value out of range.
    Source: derived for this project; group_mean_std is arXiv 2601.04411, eq. 8.
    Valid when: mean field (eta -> 0) with even arms. Seeds differ by about sqrt(C eta / 2) of the time, which smears
        their mean: at eta = 1 and q0 = .05 it lies up to .28 below this curve. `birth_chain` is exact.
    """
    clock = _clock(signal)
    elapsed = clock.at(open_unit("q", q)) - clock.at(open_unit("q0", q0))
    return elapsed / (clock.factor * _speed(eta, geometry))


def std_success(times: ArrayLike, q0: float, eta: float, geometry: float = 1.0) -> Values:
    """q(t) under the mean-std signal, explicitly.

        q(t) = 1/2 + 1/2 u/sqrt(4 + u^2),  u = (2 q0 - 1)/sqrt(q0 (1 - q0)) + C eta t / 2

    Source: arXiv 2601.04411, eq. 8, there for the wrong mass p = 1 - q. Valid when: as `time_to`.
    """
    u = (std_clock(open_unit("q0", q0)) + _speed(eta, geometry) * np.asarray(times, dtype=np.float64)) / 2
    return 1 / 2 + u / np.sqrt(4 + u**2) / 2


def flow(times: ArrayLike, q0: float, speed: float, drift: Callable[[Floats], Values]) -> Floats:
    """(T,) q at the ascending times (T,) from 0 on, by integrating d logit(q)/dt = speed D(q).

    Arguments:
        times: in updates.
        q0: success probability at time 0.
        speed: C eta.
        drift: D, any function of q: (N,) -> (N,).
    Source: derived for this project. Valid when: as `time_to`.
    """
    when, start = np.atleast_1d(np.asarray(times, dtype=np.float64)), float(logit(open_unit("q0", q0)))
    end = max(when[-1], 1e-9)
    path = solve_ivp(
        lambda _, x: speed * drift(expit(x)), (0, end), [start], "DOP853", when, rtol=1e-9, atol=1e-10
    )
    return expit(path.y[0])


def success_after(
    signal: str, times: ArrayLike, q0: float, eta: float, geometry: float = 1.0, rollouts: int | None = None
) -> Floats:
    """(T,) q at the ascending times (T,), of any signal and group size; arguments as `time_to`, and G.

    Source: derived for this project. Valid when: as `time_to`.
    """
    return flow(times, q0, _speed(eta, geometry), lambda q: moments(signal, q, rollouts).drift)


def time_to_with_groups(
    signal: str, q: float, q0: float, eta: float, rollouts: int, geometry: float = 1.0, points: int = 2001
) -> float:
    """Updates from q0 to q with groups of finite size: integral of dx / (C eta D_G), x = logit q, by Simpson.

    Source: derived for this project. Valid when: as `time_to`; `points` resolve the path in log-odds.
    """
    x = np.linspace(logit(open_unit("q0", q0)), logit(open_unit("q", q)), points)
    slowness = 1 / moments(signal, expit(x), rollouts).drift
    return float(simpson(slowness, x=x)) / _speed(eta, geometry)


def escape_time(signal: str, q0: ArrayLike, eta: float, geometry: float = 1.0) -> Values:
    """Leading order, for q0 -> 0, of the updates to any fixed level: how the time depends on difficulty.

        raw, baselines 1/(C eta q0),  +-1 half of it,  mean-std 2/(C eta sqrt(q0)),  MaxRL ln(1/q0)/(C eta)

    The exponent of q0 is what a signal changes; with G q0 << 1 the mean-std signal falls back to
    sqrt(G)/((G-1) C eta q0). Source: derived for this project from `time_to`.
    Valid when: q0 << 1 and 1/q0 << G; relative corrections O(q0 ln 1/q0), O(sqrt q0), and O(1/ln) for MaxRL.
    """
    clock = _clock(signal)
    return clock.escape(open_unit("q0", q0)) / (clock.factor * _speed(eta, geometry))


def tail(signal: str, times: ArrayLike, eta: float, geometry: float = 1.0) -> Values:
    """Leading order, for t -> inf, of the mass 1 - q still wrong after t updates.

        raw, baselines, MaxRL 1/(C eta t),  +-1 half of it,  mean-std 4/(C eta t)^2

    Source: derived for this project; mean-std is arXiv 2601.04411. Valid when: as `time_to`, t >> 1/(C eta q0).
    """
    clock = _clock(signal)
    return clock.tail(clock.factor * _speed(eta, geometry) * positive("times", times))


def _clock(signal: str) -> _Clock:
    if signal not in _CLOCKS:
        raise Refusal(f"signal {signal!r} is unknown; choose one of {', '.join(_CLOCKS)}")
    return _CLOCKS[signal]


def _speed(eta: float, geometry: float) -> float:
    return float(positive("eta", eta) * positive("geometry", geometry))
