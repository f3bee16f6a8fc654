"""A rule as a Python file that TRL or verl runs, so that what was forecast here runs there."""

from __future__ import annotations

import ast
from importlib import metadata, resources
from pprint import pformat
from typing import Any

from theory.refusal import Refusal
from theory.rules.dialects import name_of
from theory.rules.optimiser import SGD
from theory.rules.rule import Rule

VERSIONS = {"trl": "1.16", "verl": "0.9"}
"""Whose hooks the exported file fits."""

MODES = {
    "token_mean": "token-mean",
    "sequence_sum": "seq-mean-token-sum",
    "sequence_mean_token_mean": "seq-mean-token-mean",
    "constant": "seq-mean-token-sum-norm",
}
"""verl's `loss_agg_mode` of our aggregations."""


def export(rule: Rule, to: str) -> str:
    """Python source that makes TRL or verl train by the rule.

    TRL: a subclass of `GRPOTrainer` with the rule's loss and optimiser, and `arguments()`, its configuration.
    verl: functions for `register_adv_est` and `register_policy_loss`, and the settings that go with them.

    Arguments:
        to: "trl" or "verl".
    Errors: Refusal naming the part of the rule that cannot be carried over, and what to use.
    Valid when: the trainer samples at temperature 1 over the full vocabulary; one optimiser step per round and
        epoch; for TRL, one process.
    """
    if to not in VERSIONS:
        raise Refusal(f"--to {to!r} is unknown; choose one of {', '.join(VERSIONS)}")
    _refuse_what_no_trainer_holds(rule)
    return {"trl": _trl, "verl": _verl}[to](rule)


def _refuse_what_no_trainer_holds(rule: Rule) -> None:
    import numpy as np

    if rule.init(np) != ():
        raise Refusal(
            f"signal {rule.signal.kind} remembers earlier rounds, which a trainer's hooks do not hand on; export a "
            "rule without memory"
        )
    if rule.signal.helpers:
        raise Refusal(
            f"signal {rule.signal.kind} draws rollouts that are not trained on, which a trainer's hooks do not draw; "
            "export a rule without extra or greedy rollouts"
        )
    if rule.signal.reads_logprobs:
        raise Refusal(
            f"signal {rule.signal.kind} reads log-probabilities, which a trainer does not have when it scores; export "
            "a rule whose signal reads rewards alone"
        )
    if rule.entropy.kind == "sampled":
        raise Refusal(
            'entropy "sampled" has no equal in a trainer, which holds the distribution; use "exact"'
        )
    if rule.kl.refresh is not None:
        raise Refusal(
            f"kl refresh = {rule.kl.refresh}: the exported file does not move the trainer's reference; leave it out"
        )


def _trl(rule: Rule) -> str:
    if rule.kl.kind != "none" and rule.kl.place == "reward":
        raise Refusal(
            'kl place "reward": GRPOTrainer takes no KL off the reward; use k2 in the loss, or TRL\'s RLOOTrainer'
        )
    if rule.aggregation.kind == "micro_batch_token_mean":
        raise Refusal(
            "aggregation micro_batch_token_mean depends on the order of the batch, which TRL shuffles; use token_mean"
        )
    return _filled("trl", rule)


def _verl(rule: Rule) -> str:
    mode = MODES.get(rule.aggregation.kind)
    if mode is None:
        raise Refusal(
            f"aggregation {rule.aggregation.kind}: verl 0.9 averages over the whole round; use token_mean"
        )
    o, actor = rule.optimiser, "actor_rollout_ref.actor"
    if o.schedule.changes or (isinstance(o, SGD) and o.momentum):
        raise Refusal(
            f"optimiser {o.kind} with momentum or a schedule has no equal among verl's settings; use a constant rate"
        )
    register = f"onearm_{rule.hash}"
    settings: dict[str, Any] = {
        "algorithm.adv_estimator": register,
        f"{actor}.policy_loss.loss_mode": register,
        f"{actor}.loss_agg_mode": mode,
        f"{actor}.ppo_epochs": rule.epochs,
        f"{actor}.optim.optimizer": "SGD" if isinstance(o, SGD) else "AdamW",
        f"{actor}.optim.lr": o.eta,
        f"{actor}.optim.weight_decay": 0.0 if isinstance(o, SGD) else o.weight_decay,
        # verl clips at 1 unless told otherwise.
        f"{actor}.optim.clip_grad": o.clip_norm or 1e9,
        "actor_rollout_ref.rollout.n": rule.rollouts,
        "actor_rollout_ref.rollout.temperature": 1.0,
    }
    if not isinstance(o, SGD):
        settings[f"{actor}.optim.betas"] = f"[{o.beta1},{o.beta2}]"
        settings[f"{actor}.optim.override_optimizer_config"] = f"{{eps: {o.eps}}}"
    if rule.aggregation.kind == "constant":
        settings[f"{actor}.loss_scale_factor"] = rule.aggregation.divisor
    if rule.kl.kind != "none":
        settings |= (
            {
                f"{actor}.use_kl_loss": True,
                f"{actor}.kl_loss_type": rule.kl.kind,
                f"{actor}.kl_loss_coef": rule.kl.beta,
            }
            if rule.kl.place == "loss"
            else {
                "algorithm.use_kl_in_reward": True,
                "algorithm.kl_penalty": rule.kl.kind,
                "algorithm.kl_ctrl.kl_coef": rule.kl.beta,
            }
        )
    if rule.entropy.kind == "exact":
        if rule.aggregation.kind != "token_mean":
            raise Refusal(
                f"entropy with aggregation {rule.aggregation.kind}: verl averages the bonus like the loss, here it is "
                "a mean over tokens; use token_mean, or no bonus"
            )
        settings[f"{actor}.entropy_coeff"] = rule.entropy.beta
    lines = "\n".join(f"    {name}={value}" for name, value in settings.items())
    return _filled("verl", rule, settings=lines, register=register, mode=mode)


def _filled(to: str, rule: Rule, **fields: str) -> str:
    template = resources.files("experiments.exports").joinpath(f"{to}.py.txt").read_text()
    source = template.format(
        name=name_of(rule) or rule.hash,
        version=VERSIONS[to],
        onearm=metadata.version("onearm"),
        rule=pformat(rule.model_dump(mode="json"), width=100, sort_dicts=False),
        **fields,
    )
    ast.parse(source)  # a template that went wrong is ours to find, not the trainer's
    return source
