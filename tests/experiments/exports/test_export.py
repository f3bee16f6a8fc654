"""Exported rules: TRL runs them and moves as we say; verl's hooks get our weights; the rest is refused by name."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.exports.export import export
from llm_bridge.models.tiny import tiny_folder
from theory.refusal import Refusal
from theory.rules import SGD, Adam, Batch, LinearDecay, Rule, preset

ETA = 0.5
PROMPTS = ("3+4=", "1+1=")
FULL = Rule(
    signal={"kind": "group_mean_std"},
    objective={"kind": "ppo_clip", "clip_high": 0.28},
    aggregation={"kind": "token_mean"},
    kl={"kind": "k2", "beta": 0.5},
    entropy={"kind": "exact", "beta": 0.05},
    optimiser=SGD(eta=ETA, momentum=0.5, schedule=LinearDecay(steps=4)),
    rollouts=4,
    epochs=2,
)


def loaded(source: str) -> SimpleNamespace:
    space: dict[str, Any] = {"__name__": "exported"}
    exec(compile(source, "exported.py", "exec"), space)
    return SimpleNamespace(**space)


def policy(model: Any, prompts: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(R, T) log probabilities and entropies by the model's own forward."""
    every = (
        model(input_ids=torch.cat([prompts, ids], dim=1)).logits[:, prompts.shape[1] - 1 : -1].log_softmax(-1)
    )
    return every.gather(2, ids[:, :, None])[:, :, 0], -(every.exp() * every).sum(-1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
@pytest.mark.parametrize(
    ("rule", "micro_batch"),
    [
        (preset("minimalist", eta=ETA), None),
        (preset("rloo", eta=ETA), None),
        (preset("trl-grpo", eta=ETA, rollouts=4), 2),
        (Rule(optimiser=Adam(eta=1e-3, weight_decay=0.1, clip_norm=0.5), rollouts=2), None),
        (FULL, 4),
    ],
    ids=["minimalist", "rloo", "trl-grpo in micro-batches", "adam", "everything"],
)
def test_trl_takes_the_step_of_the_rule(tmp_path: Path, rule: Rule, micro_batch: int | None) -> None:
    """Two optimiser steps of two queries by TRL's own loop, against the same two steps written out here."""
    pytest.importorskip("trl", reason="the optional extra is not installed: pip install 'onearm[trl]'")
    from datasets import Dataset

    seen: list[tuple[str, list[int]]] = []

    def paid(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        seen.extend(zip(prompts, completion_ids, strict=True))
        return [reward(ids) for ids in completion_ids]

    def reward(ids: list[int]) -> float:
        return float(ids[0] % 2)

    file = loaded(export(rule, "trl"))
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_folder()),
        AutoTokenizer.from_pretrained(tiny_folder()),
    )
    own, reference = copy.deepcopy(model), copy.deepcopy(model)
    args = file.arguments(
        prompts=2, micro_batch=micro_batch, output_dir=str(tmp_path), max_completion_length=3, max_steps=2,
        use_cpu=True, activation_checkpointing=False, report_to="none", disable_tqdm=True, save_strategy="no",
        logging_strategy="no",
    )  # fmt: skip
    trainer = file.OnearmTrainer(
        model=model,
        reward_funcs=paid,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": list(PROMPTS)}),
        processing_class=tokenizer,
    )
    trainer.train()

    rows = 2 * rule.rollouts
    assert len(seen) == rows * 2 // rule.epochs
    o = rule.optimiser
    leaves = list(own.parameters())
    ascent: Any = (
        torch.optim.SGD(leaves, lr=o.eta, momentum=o.momentum, maximize=True)
        if isinstance(o, SGD)
        else torch.optim.AdamW(leaves, lr=o.eta, weight_decay=o.weight_decay, maximize=True)
    )
    step = 0
    for first in range(0, len(seen), rows):
        part = seen[first : first + rows]
        prompts = torch.cat([tokenizer(text, return_tensors="pt").input_ids for text, _ in part])
        width = max(len(ids) for _, ids in part)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for _, ids in part])
        mask = torch.tensor([[1.0] * len(ids) + [0.0] * (width - len(ids)) for _, ids in part])
        groups = torch.tensor([PROMPTS.index(text) for text, _ in part])
        rewards = torch.tensor([reward(ids) for _, ids in part])
        with torch.no_grad():
            old, base = policy(own, prompts, ids)[0], policy(reference, prompts, ids)[0]
        for _ in range(rule.epochs):
            logs, entropies = policy(own, prompts, ids)
            batch = Batch(logs.detach(), old, base, rewards, groups, mask)
            gain = (rule.weights(batch)[0] * logs).sum() + (rule.entropy_weights(batch) * entropies).sum()
            ascent.zero_grad()
            gain.backward()
            if o.clip_norm:
                torch.nn.utils.clip_grad_norm_(leaves, o.clip_norm)
            for group in ascent.param_groups:
                group["lr"] = o.eta * float(o.schedule.factor(np.asarray(step)))
            ascent.step()
            step += 1
    pairs = list(zip(model.parameters(), leaves, reference.parameters(), strict=True))
    moved = torch.cat([(a - c).detach().flatten() for a, _, c in pairs])
    wanted = torch.cat([(b - c).detach().flatten() for _, b, c in pairs])
    assert float(wanted.norm()) > 1e-3
    # Adam divides by the root of tiny squares, where rounding is all there is.
    assert float((moved - wanted).norm()) <= (1e-2 if isinstance(o, Adam) else 1e-4) * float(wanted.norm())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_trl_settings_that_are_not_the_rules_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the optional extra is not installed: pip install 'onearm[trl]'")
    from datasets import Dataset

    file = loaded(export(preset("rloo"), "trl"))
    args = file.arguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        temperature=0.7,
        report_to="none",
        activation_checkpointing=False,
    )
    with pytest.raises(ValueError, match=r"temperature = 0.7 is not the rule's 1.0"):
        file.OnearmTrainer(
            model=AutoModelForCausalLM.from_pretrained(tiny_folder()),
            reward_funcs=lambda completions, **_: [0.0 for _ in completions],
            args=args,
            train_dataset=Dataset.from_dict({"prompt": ["3+4="]}),
            processing_class=AutoTokenizer.from_pretrained(tiny_folder()),
        )


def verl_stub(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """verl 0.9's two registries and `agg_loss`, as its `core_algos` publishes them; verl itself asks for an older
    transformers than ours, and cannot be installed beside it."""
    advantages: dict[str, Any] = {}
    losses: dict[str, Any] = {}

    def agg_loss(
        loss_mat, loss_mask, loss_agg_mode, dp_size=1, batch_num_tokens=None, global_batch_size=None,
        loss_scale_factor=None,
    ):  # fmt: skip
        sums, counts = (loss_mat * loss_mask).sum(-1), loss_mask.sum(-1)
        if loss_agg_mode == "token-mean":
            return sums.sum() / batch_num_tokens * dp_size
        if loss_agg_mode == "seq-mean-token-mean":
            return (sums / (counts + 1e-8)).sum() / global_batch_size * dp_size
        loss = sums.sum() / global_batch_size * dp_size
        return loss / loss_scale_factor if loss_agg_mode == "seq-mean-token-sum-norm" else loss

    module = ModuleType("verl.trainer.ppo.core_algos")
    vars(module).update(
        agg_loss=agg_loss,
        register_adv_est=lambda name: lambda function: advantages.setdefault(name, function),
        register_policy_loss=lambda name: lambda function: losses.setdefault(name, function),
    )
    for name in ("verl", "verl.trainer", "verl.trainer.ppo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.core_algos", module)
    return advantages, losses


@pytest.mark.parametrize(
    "name",
    [
        "minimalist",
        "rloo",
        "verl-grpo",
        "trl-grpo-sequence",
        "dr-grpo",
        "max-rl",
        "verl-reinforce-plus-plus",
        "gspo",
    ],
)
def test_verls_hooks_give_the_weights_of_the_rule(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Advantages of a whole round, losses in two micro-batches with the round's counts, off-policy."""
    rule = Rule(objective={"kind": "gspo"}, optimiser=SGD(eta=1)) if name == "gspo" else preset(name)
    advantages, losses = verl_stub(monkeypatch)
    source = export(rule, "verl")
    loaded(source)
    register = f"onearm_{rule.hash}"
    settings = dict(re.findall(r"^    (algorithm\S*?|actor\S*?)=(.+)$", source, flags=re.MULTILINE))
    assert settings["algorithm.adv_estimator"] == register

    rng = torch.Generator().manual_seed(0)
    count, width = 4 * rule.rollouts, 5
    lengths = torch.arange(count) % width + 1
    mask = (torch.arange(width)[None] < lengths[:, None]).double()
    logs = (-torch.rand(count, width, generator=rng, dtype=torch.float64)).requires_grad_()
    old = logs.detach() + 0.3 * torch.randn(logs.shape, generator=rng, dtype=torch.float64)
    rewards = (torch.rand(count, generator=rng) < 0.5).double()
    index = np.array(
        [f"uid-{i % 4}" for i in range(count)], dtype=object
    )  # verl's uid; groups are not contiguous
    paid = torch.zeros_like(mask)
    paid[torch.arange(count), lengths - 1] = rewards
    batch = Batch(logs.detach(), old, logs.detach(), rewards, torch.arange(count) % 4, mask)
    wanted = rule.weights(batch)[0]

    each, _ = advantages[register](token_level_rewards=paid, response_mask=mask, index=index, config=None)
    scale = settings.get("actor_rollout_ref.actor.loss_scale_factor")
    info = {
        "dp_size": 1,
        "batch_num_tokens": int(mask.sum()),
        "global_batch_size": count,
        "loss_scale_factor": None if scale is None else float(scale),
    }
    total = torch.zeros((), dtype=torch.float64)
    for part in torch.arange(count).split(count // 2):
        loss, _ = losses[register](
            old_log_prob=old[part],
            log_prob=logs[part],
            advantages=each[part],
            response_mask=mask[part].bool(),
            loss_agg_mode=settings["actor_rollout_ref.actor.loss_agg_mode"],
            config=SimpleNamespace(global_batch_info=info),
            rollout_is_weights=None,
        )
        total = total + loss
    total.backward()
    assert logs.grad is not None and float(wanted.abs().sum()) > 0
    np.testing.assert_allclose(-logs.grad.numpy(), wanted.numpy(), atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "to", "message"),
    [
        (preset("rloo"), "tunix", "choose one of trl, verl"),
        (preset("prime-rl-rae"), "trl", "moving_average remembers earlier rounds"),
        (preset("remax"), "verl", "greedy draws rollouts that are not trained on"),
        (preset("trl-rloo"), "trl", "RLOOTrainer"),
        (preset("papers-2601.22532-baseline"), "trl", "micro_batch_token_mean"),
        (preset("papers-2601.22532-baseline"), "verl", "use token_mean"),
        (Rule(optimiser=SGD(eta=1, momentum=0.9)), "verl", "use a constant rate"),
        (Rule(optimiser=SGD(eta=1), entropy={"kind": "sampled", "beta": 1}), "trl", 'use "exact"'),
        (
            Rule(optimiser=SGD(eta=1), entropy={"kind": "exact", "beta": 1}),
            "verl",
            "use token_mean, or no bonus",
        ),
        (Rule(optimiser=SGD(eta=1), kl={"kind": "k2", "beta": 1, "refresh": 5}), "trl", "kl refresh = 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_exported_is_refused_by_name(rule: Rule, to: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        export(rule, to)


def test_the_command_writes_a_file_that_holds_the_rule(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "rule.py"
    ran = CliRunner().invoke(
        app, ["export", "rloo", "--to", "verl", "--eta", "0.25", "--rollouts", "6", "--out", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert "'rollouts': 6" in out.read_text() and "'eta': 0.25" in out.read_text()
    refused = CliRunner().invoke(app, ["export", "remax", "--to", "trl", "--out", str(tmp_path / "no.py")])
    assert refused.exit_code == 2 and not (tmp_path / "no.py").exists()
