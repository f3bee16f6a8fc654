"""Named rules: one trainer's arithmetic each, with its version; `preset` fetches one by name.

A dialect holds what the trainer does to the rewards, the ratio and the average. The optimiser is a layer of
its own: every dialect starts from SGD, whatever its trainer pairs it with, except where a paper's whole
configuration is named. On-policy no clip binds, and a dialect differs from the plain rule by its signal and
its average alone.
"""

from __future__ import annotations

from theory.refusal import Refusal
from theory.rules.aggregation import (
    Aggregation,
    Constant,
    MicroBatchTokenMean,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.kl import K1, K3
from theory.rules.objectives import PolicyGradient, PPOClip
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import Rule
from theory.rules.signals import (
    GPG,
    OPO,
    BatchMean,
    BatchMeanStd,
    Greedy,
    GroupMean,
    GroupMeanBatchStd,
    GroupMeanStd,
    GroupMeanWhitened,
    LeaveOneOut,
    MaxRL,
    MovingAverage,
    PassAtK,
    RewardWindow,
    Sign,
    Signal,
)

_SGD = SGD(eta=0.05)


def _plain(signal: Signal, rollouts: int, aggregation: Aggregation | None = None) -> Rule:
    """Policy gradient without a ratio."""
    return Rule(signal=signal, aggregation=aggregation or SequenceSum(), optimiser=_SGD, rollouts=rollouts)


def _clipped(
    signal: Signal, aggregation: Aggregation | None = None, *, clip_high: float = 0.2, rollouts: int = 8
) -> Rule:
    """PPO clip of the token ratio, token mean unless told otherwise."""
    return Rule(
        signal=signal,
        objective=PPOClip(clip_low=0.2, clip_high=clip_high),
        aggregation=aggregation or TokenMean(),
        optimiser=_SGD,
        rollouts=rollouts,
    )


def _paper(signal: Signal) -> Rule:
    """arXiv 2601.22532, every released script: AdamW, gradient clip, k3 in the loss, token mean per micro-batch of 4
    responses, no active clip of the ratio (one update per round)."""
    return Rule(
        signal=signal,
        objective=PolicyGradient(),
        aggregation=MicroBatchTokenMean(micro_batch=4),
        kl=K3(beta=0.001),
        optimiser=Adam(eta=1e-6, weight_decay=0.01, clip_norm=1.0),
        rollouts=1,
    )


_TRL_BUDGET = Constant(divisor=512)  # max_completion_length of GRPOConfig() 1.10
_PADDED = Constant(divisor=1024)  # verl divides by the padded width: the response budget of its examples

PRESETS: dict[str, Rule] = {
    # Raw reward, policy gradient of the whole response, no KL, SGD, one rollout: the papers' bottom layer.
    "minimalist": Rule(optimiser=_SGD),
    # arXiv 2402.14740: each rollout against the mean of the others, on-policy.
    "rloo": _plain(LeaveOneOut(), 4),
    # Each rollout against the mean of its group, nothing else: GRPO (arXiv 2402.03300) without std, clip or length.
    "group-mean": _plain(GroupMean(), 8),
    # arXiv 2310.10505: against the greedy response.
    "remax": _plain(Greedy(), 1),
    # arXiv 2602.02710: divided by the number of successes.
    "max-rl": _plain(MaxRL(), 8),
    # arXiv 2605.07689: +-1 about 1/2. arXiv 2506.01347: successes alone, failures alone, 0.1 PSR + NSR.
    "sign": _plain(Sign(), 4),
    "psr": _plain(Sign(negative=0), 8),
    "nsr": _plain(Sign(positive=0), 8),
    "w-reinforce": _plain(Sign(positive=0.1), 8),
    # arXiv 2503.20783: no std, and a constant in place of the length (3,000 tokens in its published runs).
    "dr-grpo": _clipped(GroupMean(), Constant(divisor=3000)),
    # TRL 1.10 GRPOConfig(): scale_rewards "group", loss_type "dapo", beta 0; then its other scale_rewards and losses.
    "trl-grpo": _clipped(GroupMeanStd(ddof=1, eps=1e-4)),
    "trl-grpo-batch": _clipped(GroupMeanBatchStd(ddof=1, eps=1e-4)),
    "trl-grpo-sequence": _clipped(GroupMeanStd(ddof=1, eps=1e-4), SequenceMeanTokenMean()),
    "trl-dr-grpo": _clipped(GroupMean(), _TRL_BUDGET),
    # TRL 1.10 RLOOTrainer: summed log-probabilities, mean over responses, k1 in the reward.
    "trl-rloo": Rule(signal=LeaveOneOut(), kl=K1(beta=0.05, place="reward"), optimiser=_SGD, rollouts=2),
    # verl 0.7 adv_estimator=..., token-mean; a group of one falls back to the reward, except where noted.
    "verl-grpo": _clipped(GroupMeanStd(ddof=1, eps=1e-6, singleton="raw")),
    # floors the variance, and then adds another 1e-6 to the root, which is left out here.
    "verl-grpo-vectorized": _clipped(
        GroupMeanStd(ddof=1, eps=1e-6, eps_place="sqrt(max(var,eps))", singleton="raw")
    ),
    "verl-dr-grpo": _clipped(GroupMean(singleton="raw"), _PADDED),
    "verl-rloo": _clipped(LeaveOneOut(singleton="raw")),
    "verl-rloo-vectorized": _clipped(LeaveOneOut(singleton="zero")),
    "verl-remax": _clipped(Greedy(), rollouts=1),
    "verl-opo": _clipped(OPO(singleton="raw")),
    "verl-gpg": _plain(GPG(singleton="raw"), 8, TokenMean()),
    "verl-grpo-passk": _clipped(PassAtK()),
    "verl-reinforce-plus-plus": _clipped(BatchMeanStd(ddof=1, eps=1e-8, eps_place="sqrt(var+eps)")),
    "verl-reinforce-plus-plus-baseline": _clipped(
        GroupMeanWhitened(ddof=1, eps=1e-8, eps_place="sqrt(var+eps)", singleton="raw")
    ),
    # OpenRLHF (2026-08) advantage_estimator=...: token mean; `reinforce` centres a round of one to zero.
    "openrlhf-reinforce": _clipped(BatchMeanStd(ddof=0, eps=1e-8, singleton="zero")),
    "openrlhf-reinforce-no-std": _clipped(BatchMean(singleton="zero")),
    "openrlhf-reinforce-baseline": _clipped(GroupMeanWhitened(ddof=0, eps=1e-8)),
    "openrlhf-rloo": _clipped(LeaveOneOut()),
    "openrlhf-group-norm": _clipped(GroupMeanStd(ddof=1, eps=1e-9)),
    "openrlhf-dr-grpo": _clipped(GroupMean()),
    # tunix (2026-08): refuses one generation; sequence-mean-token-mean unless told otherwise.
    "tunix-grpo": _clipped(GroupMeanStd(ddof=1, eps=1e-6), SequenceMeanTokenMean()),
    "tunix-rloo": _clipped(LeaveOneOut(), SequenceMeanTokenMean()),
    "tunix-dr-grpo": _clipped(GroupMean(), SequenceMeanTokenMean()),
    # open-instruct (2026-08): "centered" is its default, "standard" divides by the population std; clip-higher.
    "open-instruct-centered": _clipped(GroupMean(singleton="zero"), clip_high=0.272),
    "open-instruct-standard": _clipped(GroupMeanStd(ddof=0, eps=1e-8, singleton="zero"), clip_high=0.272),
    # prime-rl (2026-08): global token mean; its probability-difference mask is left out (inactive on-policy).
    "prime-rl-grpo": _plain(GroupMean(singleton="zero"), 8, TokenMean()),
    "prime-rl-max-rl": _plain(MaxRL(baseline="mean", singleton="zero"), 8, TokenMean()),
    "prime-rl-rae": _plain(MovingAverage(decay=0.95), 1, TokenMean()),
    # arXiv 2601.22532, released code (verl 0.7.0.dev): raw reward through verl's fallback for a group of one,
    # which divides by 1 + 1e-6, left out here; mean and std over 7 extra rollouts; over a window of 8 rewards.
    "papers-2601.22532-baseline": _paper(GroupMeanStd(ddof=1, eps=1e-6, singleton="raw")),
    "papers-2601.22532-onerpo": _paper(GroupMeanStd(ddof=1, eps=1e-6, extra=7)),
    "papers-2601.22532-replay": _paper(RewardWindow(window=8, ddof=1, eps=1e-6)),
}


def preset(name: str, *, eta: float | None = None, rollouts: int | None = None) -> Rule:
    """The named rule, with its step size or its number of rollouts changed.

    Arguments:
        name: a key of `PRESETS`.
        eta: step size; the preset's own where not given.
        rollouts: rollouts per query and round; the preset's own where not given.
    Errors: Refusal for an unknown name, or for a value that the rule cannot use.
    """
    if name not in PRESETS:
        raise Refusal(f"rule {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    fields = dict(PRESETS[name])
    if eta is not None:
        fields["optimiser"] = {**dict(fields["optimiser"]), "eta": eta}
    if rollouts is not None:
        fields["rollouts"] = rollouts
    return Rule(**fields)


def optimised(rule: Rule, kind: str | None) -> Rule:
    """The rule with this kind of optimiser at its own step size, everything else as the kind has it by default.

    Errors: Refusal for an unknown kind.
    """
    kinds = {"sgd": SGD, "adam": Adam}
    if kind is not None and kind not in kinds:
        raise Refusal(f"optimiser {kind!r} is unknown; choose one of {', '.join(kinds)}")
    if kind is None:
        return rule
    return rule.model_copy(update={"optimiser": kinds[kind](eta=rule.optimiser.eta)})


def name_of(rule: Rule) -> str | None:
    """The name of the preset that a rule is but for eta and rollouts; None for a rule without one."""
    for name, known in PRESETS.items():
        same = known.optimiser.model_copy(update={"eta": rule.optimiser.eta})
        if rule == known.model_copy(update={"optimiser": same, "rollouts": rule.rollouts}):
            return name
    return None
