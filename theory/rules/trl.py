"""TRL's GRPO options as a rule: the update that `GRPOTrainer` makes with them, or a refusal that says why not."""

from __future__ import annotations

from typing import Any

from theory.refusal import Refusal
from theory.rules.aggregation import (
    Aggregation,
    Constant,
    MicroBatchTokenMean,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.entropy import ExactEntropy, NoEntropy
from theory.rules.kl import K2, K3, KL, NoKL
from theory.rules.objectives import CISPO, GSPO, Objective, PolicyGradient, PPOClip
from theory.rules.optimiser import Optimiser
from theory.rules.rule import Rule
from theory.rules.signals import GroupMean, GroupMeanBatchStd, GroupMeanStd, Signal

VERSION = "1.16"
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")

# Options that change the update and have no equal here, at the value that leaves them out.
NEUTRAL: dict[str, Any] = {
    "mask_truncated_completions": False,
    "multi_objective_aggregation": "sum_then_normalize",
    "off_policy_mask_threshold": None,
    "repetition_penalty": 1.0,
    "min_p": None,
    "temperature": 1.0,
    "top_entropy_quantile": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "use_adaptive_entropy": False,
    "use_vllm": False,
}


def from_trl(
    *,
    optimiser: Optimiser,
    loss_type: str = "dapo",
    scale_rewards: str | bool = "group",
    num_generations: int = 8,
    num_iterations: int = 1,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    use_bias_correction_kl: bool = True,
    importance_sampling_level: str = "token",
    entropy_coef: float = 0.0,
    max_completion_length: int = 512,
    per_device_train_batch_size: int = 8,
    gradient_accumulation_steps: int = 1,
    **others: Any,
) -> Rule:
    """The rule of a `GRPOConfig`; its own defaults where an option is not given.

    Arguments: named and defined as in `trl.GRPOConfig` 1.16, except `optimiser`, ours in place of its AdamW.
    Errors: Refusal naming the option that has no equal here, or that is none of TRL's.
    Source: trl 1.16 `GRPOTrainer._compute_loss` and `_generate_and_score_completions`, held by
    tests/llm_bridge/test_trl.py; docs/trainers.md says what differs.
    Valid when: one process, one reward function, one optimiser step per generation and iteration.
    """
    for name, value in others.items():
        if name not in NEUTRAL:
            raise Refusal(f"{name} is no option that this rule reads; leave it out, or see docs/trainers.md")
        if value != NEUTRAL[name]:
            raise Refusal(f"{name} = {value!r} has no equal here; set it to {NEUTRAL[name]!r}")
    if loss_type not in LOSS_TYPES:
        raise Refusal(f"loss_type = {loss_type!r} is unknown; choose one of {', '.join(LOSS_TYPES)}")
    high = epsilon if epsilon_high is None else epsilon_high
    micro = per_device_train_batch_size if gradient_accumulation_steps > 1 else None
    if entropy_coef and micro is not None:
        raise Refusal(
            f"entropy_coef = {entropy_coef} with gradient_accumulation_steps = {gradient_accumulation_steps} is a "
            "mean over micro-batches, which has no equal here; set gradient_accumulation_steps = 1"
        )
    return Rule(
        signal=_signal(scale_rewards),
        objective=_objective(loss_type, importance_sampling_level, epsilon, high, delta, num_iterations),
        aggregation=_aggregation(loss_type, max_completion_length, micro),
        kl=_kl(beta, use_bias_correction_kl, num_iterations),
        entropy=ExactEntropy(beta=entropy_coef) if entropy_coef else NoEntropy(),
        optimiser=optimiser,
        rollouts=num_generations,
        epochs=num_iterations,
    )


def _signal(scale_rewards: str | bool) -> Signal:
    name = scale_rewards if isinstance(scale_rewards, str) else ("group" if scale_rewards else "none")
    signals: dict[str, Signal] = {
        "group": GroupMeanStd(ddof=1, eps=1e-4),
        "batch": GroupMeanBatchStd(ddof=1, eps=1e-4),
        "none": GroupMean(),
    }
    if name not in signals:
        raise Refusal(f"scale_rewards = {name!r} is unknown; choose one of {', '.join(signals)}")
    return signals[name]


def _objective(
    loss_type: str, level: str, low: float, high: float, delta: float | None, iterations: int
) -> Objective:
    if level not in ("token", "sequence"):
        raise Refusal(f"importance_sampling_level = {level!r} is unknown; choose token or sequence")
    if loss_type in ("sapo", "vespo"):
        # Their gates are 1 where the ratio is, and it is in the one update after each generation.
        if iterations > 1:
            raise Refusal(
                f"loss_type = {loss_type!r} with num_iterations = {iterations}: its gate on ratios other than 1 has "
                "no equal here; set num_iterations = 1"
            )
        return PolicyGradient()
    if loss_type == "cispo":
        if level == "sequence":
            raise Refusal('loss_type = "cispo" of sequence ratios has no equal here; use level "token"')
        if high <= 1:
            raise Refusal(
                f"epsilon_high = {high}: for cispo TRL caps the ratio itself at epsilon_high, so that even on-policy "
                f"every push is {high} of what it should be; give epsilon_high > 1 (5 in TRL's documentation)"
            )
        return CISPO(clip_high=high - 1)
    if level == "sequence":
        if delta is not None:
            raise Refusal(f'delta = {delta} has no equal with importance_sampling_level "sequence"; drop it')
        return GSPO(clip_low=low, clip_high=high)
    if loss_type == "luspo":
        raise Refusal('loss_type = "luspo" needs importance_sampling_level = "sequence"')
    if delta is not None and delta <= 1 + high:
        raise Refusal(
            f"delta = {delta} is within the clip 1 + {high}, where it takes the place of the clip for positive "
            "advantages too, which has no equal here; give a larger delta"
        )
    return PPOClip(clip_low=low, clip_high=high, dual_clip=delta)


def _aggregation(loss_type: str, budget: int, micro: int | None) -> Aggregation:
    if loss_type in ("grpo", "sapo"):
        return SequenceMeanTokenMean()
    if loss_type == "dr_grpo":
        return Constant(divisor=budget)
    if loss_type == "luspo":
        return SequenceSum()
    if loss_type == "bnpo" and micro is not None:
        return MicroBatchTokenMean(micro_batch=micro)
    return TokenMean()


def _kl(beta: float, corrected: bool, iterations: int) -> KL:
    """TRL's k3; times the ratio, its default, it has the gradient rho * d of k2 where rho is 1."""
    if not beta:
        return NoKL()
    if not corrected:
        return K3(beta=beta)
    if iterations > 1:
        raise Refusal(
            f"beta = {beta} with use_bias_correction_kl and num_iterations = {iterations}: k3 times a ratio other "
            "than 1 has no equal here; set use_bias_correction_kl = False or num_iterations = 1"
        )
    return K2(beta=beta)
