"""Several correct arms under the minimalist rule, exactly: the chain on words of successes.

With more than one correct arm the order of successes matters (each step subtracts eta pi at the policy of the day), so
neither the count of successes nor their composition is a state; the word of correct arms pulled so far is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from theory.laws.arguments import Floats, positive, whole
from theory.refusal import Refusal

_MOST_WORDS = 2**20


class Words(NamedTuple):
    """The law of p over seeds.

    Arguments (T rounds, W words of at most T successes):
        mean, spread: (T + 1,) mean and standard deviation of p after t rounds.
        success: (W,) p after each word.
        probability: (W,) probability of each word after T rounds.
    """

    mean: Floats
    spread: Floats
    success: Floats
    probability: Floats


def word_chain(masses: ArrayLike, correct: int, eta: float, rounds: int) -> Words:
    """The exact law of p_t with `correct` correct arms, raw 0/1 reward, one rollout a round, SGD.

        P_{t+1}(w a) = (1 - p(w a)) P_t(w a) + pi_a(w) P_t(w),   theta(w a) = theta(w) + eta (e_a - pi(w))

    Arguments:
        masses: (K,) probabilities of the base policy, up to a factor; the first `correct` arms are correct.
        eta: step size, one logit per arm.
        rounds: T; correct^T words are kept, at most 2^20.
    Errors: Refusal for arms, masses or rounds out of range.
    Source: derived for this project. Valid when: always, at any eta; small cases by its cost. With one correct
        arm it is the birth chain.
    """
    theta = np.log(positive("masses", masses))[None, :]
    if not 1 <= correct < theta.size:
        raise Refusal(f"correct = {correct} of {theta.size} arms; give 1 <= correct <= arms - 1")
    if correct ** whole("rounds", rounds, 1) > _MOST_WORDS:
        raise Refusal(
            f"rounds = {rounds} with {correct} correct arms makes too many words; give fewer rounds"
        )
    pull: list[Floats] = []
    for _ in range(rounds + 1):
        pi = softmax(theta, axis=1)
        pull.append(pi[:, :correct])
        after = theta[:, None, :] - eta * pi[:, None, :] + eta * np.eye(theta.shape[1])[None, :correct]
        theta = after.reshape(-1, theta.shape[1])
    p = [level.sum(axis=1) for level in pull]
    law = [np.zeros(len(level)) for level in p]
    law[0][0] = 1
    mean, square = np.empty(rounds + 1), np.empty(rounds + 1)
    for t in range(rounds + 1):
        mean[t] = sum(float(a @ b) for a, b in zip(law, p, strict=True))
        square[t] = sum(float(a @ b**2) for a, b in zip(law, p, strict=True))
        if t < rounds:
            arrived = [
                np.zeros(1),
                *((a[:, None] * b).ravel() for a, b in zip(law[:-1], pull[:-1], strict=True)),
            ]
            law = [a * (1 - b) + c for a, b, c in zip(law, p, arrived, strict=True)]
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return Words(mean, spread, np.concatenate(p), np.concatenate(law))
