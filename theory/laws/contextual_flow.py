"""Many queries that share parameters: how training on some lifts all of them, held-out ones included.

Convention: x_y = logit p_y of query y, pi_y a softmax over that query's responses; a weight on a response of query x
moves query y by their cross-kernel, as `bandit_sim.Contexts` has it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from theory.laws.arguments import Floats, closed_unit, open_unit, positive
from theory.laws.kernel_flow import Gap, integrate
from theory.refusal import Refusal


def contrast(kinds: ArrayLike, right: ArrayLike) -> float:
    """kappa = kcc - 2 kcw + kww of even arms with features' Gram matrix kinds (K, K), `right` (K,) the correct ones.

    Source: derived for this project. Valid when: even arms within the classes.
    """
    good = np.asarray(right, bool)
    apart = good / good.sum() - ~good / (~good).sum()
    return float(apart @ np.asarray(kinds, dtype=np.float64) @ apart)


def contextual_flow(
    p0: ArrayLike,
    coupling: ArrayLike,
    frequency: ArrayLike,
    eta: float,
    times: ArrayLike,
    gap: Gap | None = None,
) -> Floats:
    """(T, N) success of every query at the ascending times (T,).

        dx_y/dt = eta sum_x coupling_yx frequency_x gap(p_x) p_x (1 - p_x)

    Arguments:
        p0: (N,) success probabilities of the base policy.
        coupling: (N, N) class contrast of queries y and x: kcc - kcw - kwc + kww of their cross-kernel. A single
            query is kappa. For `Contexts`: kappa [(1 - overlap) 1[x = y] + overlap].
        frequency: (N,) share of a round that goes to each query; 0 for a held-out one.
        eta: step size; a round's gradient is the mean over its rollouts.
        times: in updates.
        gap: p -> E[A | correct] - E[A | wrong]; default 1.
    Errors: Refusal naming a shape or value.
    Source: derived for this project; the two-number law for cross-kernels. Held-out success rises at all only through
        its row of couplings: no overlap, no generalisation, however far training goes; a query that has been learned
        teaches nothing more, so a hard query that is helped by easy ones must get there before they are done.
    Valid when: eta -> 0, even arms and class-wise overlaps (then exact), or p0 << 1.
    """
    start = np.atleast_1d(open_unit("p0", p0))
    pull, share = np.asarray(coupling, dtype=np.float64), np.atleast_1d(closed_unit("frequency", frequency))
    if pull.shape != (len(start), len(start)) or share.shape != start.shape:
        raise Refusal(
            f"p0 {start.shape}, coupling {pull.shape}, frequency {share.shape}; give (N,), (N, N), (N,)"
        )
    x0, step = logit(start), float(positive("eta", eta))

    def push(_: float, moved: Floats) -> Floats:
        p = expit(x0 + moved)
        return step * (pull @ (share * (1.0 if gap is None else gap(p)) * p * (1 - p)))

    return expit(x0 + integrate(push, len(start), times))


def transfer_limit(p0: ArrayLike, trained: ArrayLike, coupling_ratio: ArrayLike) -> Floats:
    """Success of a held-out query when one trained query has gone from p0[1] to `trained`.

        logit p_y - logit p_y(0) = ratio (logit p_x - logit p_x(0)),   ratio = coupling_yx / coupling_xx

    Whatever the signal, the step size and the time: the ratio of couplings is all. So p_x -> 1 drags every overlapping
    query to 1 in the end, but only as slowly as the tail 1 - p_x ~ 1/t.
    Arguments:
        p0: (2,) base success of the held-out and of the trained query.
        trained: success of the trained query later.
        coupling_ratio: of the base model.
    Source: derived for this project. Valid when: one trained query, as `contextual_flow`.
    """
    held_out, start = logit(open_unit("p0", p0))
    gain = np.asarray(coupling_ratio, dtype=np.float64) * (logit(open_unit("trained", trained)) - start)
    return expit(held_out + gain)
