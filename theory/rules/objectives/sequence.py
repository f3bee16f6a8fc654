"""Objectives whose ratio belongs to the whole response: one value O_i per rollout.

An aggregation averages tokens, so O_i is handed to it as one value per token: GSPO and GMPO, whose ratio is a
mean over tokens, repeat O_i on each of the length_i tokens; the sequence clip, whose ratio is a product over
tokens, shares it out, O_i / length_i on each. The aggregation is then taken as it stands. Either way the
coefficient is of the same size as a token objective's and on-policy it is the policy gradient. The papers'
own averages are sequence_mean_token_mean for GSPO and GMPO, sequence_sum for the sequence clip.
Valid for all three when: the aggregation weighs the tokens of one response alike, as all of ours do.
"""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace

from theory.rules.batch import Batch, PerRollout, PerToken
from theory.rules.objectives.token import Above, Below
from theory.rules.spec import Spec


class GSPO(Spec):
    """Objective O_i = min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i), s_i = exp(mean_t log rho_it).

    Coefficient s_i A_i on every token where the clip does not bind, 0 where it does.

    Arguments:
        clip_low: in (0, 1); the default is its paper's, some thousand times narrower than a token clip.
        clip_high: > 0.
    Source: GSPO (arXiv 2507.18071, eq. 5). Valid when: always; on-policy it is the policy gradient.
    """

    kind: Literal["gspo"] = "gspo"
    clip_low: Below = 3e-4
    clip_high: Above = 4e-4

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        mean = _summed_log_ratio(batch) / _lengths(batch)
        return _clipped(batch, mean, advantage, 1 - self.clip_low, 1 + self.clip_high)


class SequenceClip(Spec):
    """Objective O_i = min(r_i A_i, clip(r_i, 1 - clip_low, 1 + clip_high) A_i), r_i = prod_t rho_it.

    Coefficient r_i A_i on every token where the clip does not bind, 0 where it does: PPO for the bandit
    whose arms are whole responses.

    Arguments:
        clip_low: in (0, 1), how far the response's ratio may fall while it still pays.
        clip_high: > 0, how far it may rise.
    Source: RLOO as TRL trains it (ratio of the summed log-probabilities); arXiv 2402.14740 without the clip.
    Valid when: always; the ratio's spread grows with the length, and on-policy it is the policy gradient.
    """

    kind: Literal["sequence_clip"] = "sequence_clip"
    clip_low: Below = 0.2
    clip_high: Above = 0.2

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        return _clipped(batch, _summed_log_ratio(batch), advantage, 1 - self.clip_low, 1 + self.clip_high)


class GMPO(Spec):
    """Objective O_i = A_i prod_t c_it^(1/length_i), c_it the ratio rho_it clipped in the log on one side.

    log c_it = min(log rho_it, clip_high) where A_i > 0, max(log rho_it, -clip_low) where A_i < 0.
    Coefficient A_i prod_u c_iu^(1/length_i) on the tokens whose clip does not bind, 0 on the others.

    Arguments:
        clip_low, clip_high: > 0, in nats; the default 0.4 is its paper's (exp(-0.4), exp(0.4)).
    Source: GMPO (arXiv 2507.20673, eq. 4). Valid when: always; on-policy it is the policy gradient.
    """

    kind: Literal["gmpo"] = "gmpo"
    clip_low: Above = 0.4
    clip_high: Above = 0.4

    def coefficient(self, batch: Batch, advantage: PerRollout) -> PerToken:
        xp = array_namespace(advantage)
        log_ratio = batch.logprobs - batch.old_logprobs
        up = advantage[:, None] > 0
        clipped = xp.where(
            up, xp.clip(log_ratio, None, self.clip_high), xp.clip(log_ratio, -self.clip_low, None)
        )
        mean = xp.exp(xp.sum(clipped * batch.mask, axis=1) / _lengths(batch))
        return xp.where(clipped == log_ratio, (mean * advantage)[:, None], 0.0)


def _lengths(batch: Batch) -> PerRollout:
    """(R,) real tokens, at least one: an absent rollout's ratio is 1 and its weight 0."""
    xp = array_namespace(batch.mask)
    return xp.clip(xp.sum(batch.mask, axis=1), 1.0, None)


def _summed_log_ratio(batch: Batch) -> PerRollout:
    """(R,) log pi / pi_old of the whole response."""
    return array_namespace(batch.mask).sum((batch.logprobs - batch.old_logprobs) * batch.mask, axis=1)


def _clipped(
    batch: Batch, log_ratio: PerRollout, advantage: PerRollout, lowest: float, highest: float
) -> PerToken:
    """(R, T) the response's ratio times its advantage, 0 where the clip binds; the same on all its tokens."""
    xp = array_namespace(advantage)
    ratio = xp.exp(log_ratio)
    free = ratio * advantage
    pays = free <= xp.clip(ratio, lowest, highest) * advantage
    return xp.where(pays, free, 0.0)[:, None] + xp.zeros_like(batch.logprobs)
