"""TRL's own loss and ours give the same gradient on the same rollouts: docs/trainers.md, held line by line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_bridge.models.tiny import tiny_folder
from theory.rules import K1, SGD, Batch, LeaveOneOut, Rule, SequenceClip, preset
from theory.rules.trl import LOSS_TYPES, from_trl

trl = pytest.importorskip("trl", reason="the optional extra is not installed: pip install 'onearm[trl]'")
# transformers tells TRL of names that it has renamed.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PROMPTS, GROUP = ("3+4=", "1+1=", "5+8="), 4
REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.25, 0.0, 1.0]
"""Three groups: two of each, all right (no signal), and one with a shaped reward."""


def rounded(tmp_path: Any, kind: str = "GRPO", **options: Any) -> tuple[Any, dict[str, Tensor]]:
    """A TRL trainer of the tiny model in float32, and the round of rollouts it made and scored by itself."""
    from datasets import Dataset

    torch.manual_seed(0)
    args = getattr(trl, f"{kind}Config")(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, activation_checkpointing=False, report_to="none",
        disable_tqdm=True, num_generations=GROUP, **{"per_device_train_batch_size": len(REWARDS), **options},
    )  # fmt: skip
    trainer = getattr(trl, f"{kind}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(tiny_folder()),
        reward_funcs=lambda completions, **_: REWARDS,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": list(PROMPTS)}),
        processing_class=AutoTokenizer.from_pretrained(tiny_folder()),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    rows = [{"prompt": prompt} for prompt in PROMPTS for _ in range(GROUP)]
    return trainer, trainer._generate_and_score_completions(rows)


def own_logs(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(R, T) log probabilities and entropies from the model's own forward."""
    prompt, ids = inputs["prompt_ids"], inputs["completion_ids"]
    every = (
        model(input_ids=torch.cat([prompt, ids], dim=1)).logits[:, prompt.shape[1] - 1 : -1].log_softmax(-1)
    )
    return every.gather(2, ids[:, :, None])[:, :, 0], -(every.exp() * every).sum(-1)


def gradient(loss: Tensor, model: Any) -> Tensor:
    grads = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    return torch.cat([g.flatten() for g in grads])


def ours(rule: Rule, model: Any, inputs: dict[str, Tensor], check: bool = True) -> Tensor:
    """Gradient of  -sum w log pi - sum bonus H,  with w = rule(batch) held constant."""
    logs, entropies = own_logs(model, inputs)
    now = logs.detach()
    batch = Batch(
        now,
        inputs.get("old_per_token_logps", now),
        inputs.get("ref_per_token_logps", now),
        torch.tensor(REWARDS),
        torch.arange(len(PROMPTS)).repeat_interleave(GROUP),
        inputs["completion_mask"],
    )
    if check:
        rule.check(batch)
    weights, _ = rule.weights(batch, rule.init(torch, len(PROMPTS)))
    bonus = rule.entropy_weights(batch)
    return gradient(-(weights * logs).sum() - (bonus * entropies).sum(), model)


def shaken(inputs: dict[str, Tensor], name: str, size: float) -> None:
    """Log probabilities away from the model's own, so that ratios leave 1 and clips bind."""
    generator = torch.Generator().manual_seed(7)
    inputs[name] = inputs[name] + size * torch.randn(inputs[name].shape, generator=generator)


def same(a: Tensor, b: Tensor) -> bool:
    return float((a - b).norm()) <= 1e-5 * float(b.norm()) and float(b.norm()) > 1e-6


SOLE: dict[str, dict[str, Any]] = {
    "luspo": {"importance_sampling_level": "sequence"},
    "cispo": {"epsilon_high": 5.0},
}
"""What a loss type needs to be one that `from_trl` takes."""


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss_and_scale_on_policy(tmp_path, loss_type: str, scale_rewards: str) -> None:
    options = {"loss_type": loss_type, "scale_rewards": scale_rewards, **SOLE.get(loss_type, {})}
    trainer, inputs = rounded(tmp_path, max_completion_length=3, **options)
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    rule = from_trl(optimiser=SGD(eta=1), num_generations=GROUP, max_completion_length=3, **options)
    assert same(ours(rule, trainer.model, inputs), theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "grpo"},
        {"loss_type": "bnpo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "dapo", "epsilon_high": 0.28},
        {"loss_type": "dapo", "delta": 1.5},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-2, "epsilon_high": 4e-2},
        {"loss_type": "dapo", "importance_sampling_level": "sequence"},
        {"loss_type": "cispo", "epsilon_high": 1.2},
        {"loss_type": "dapo", "beta": 0.1, "use_bias_correction_kl": False},
        {"loss_type": "grpo", "entropy_coef": 0.05},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_second_iteration_with_clips_kl_and_bonus(tmp_path, options: dict[str, Any]) -> None:
    """The ratio has left 1, by half a nat, so that every clip binds somewhere."""
    trainer, inputs = rounded(tmp_path, max_completion_length=3, num_iterations=2, **options)
    for name in {"old_per_token_logps", "ref_per_token_logps"} & inputs.keys():
        shaken(inputs, name, 0.5)
    rule = from_trl(
        optimiser=SGD(eta=1), num_generations=GROUP, num_iterations=2, max_completion_length=3, **options
    )
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    assert same(ours(rule, trainer.model, inputs), theirs)
    free = rule.model_copy(update={"objective": from_trl(optimiser=SGD(eta=1), loss_type="sapo").objective})
    assert not same(ours(free, trainer.model, inputs), theirs), "no ratio and no clip had anything to do"


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_micro_batches_accumulate_to_the_whole_round_except_for_bnpo(tmp_path, loss_type: str) -> None:
    """Two micro-batches of six, their losses added as the training loop adds them."""
    from trl.trainer.utils import split_tensor_dict

    options = {"loss_type": loss_type, "gradient_accumulation_steps": 2, "max_completion_length": 3}
    trainer, inputs = rounded(tmp_path, per_device_train_batch_size=6, **options)
    trainer.current_gradient_accumulation_steps = 2
    inputs["completion_mask"][:3, 1:] = 0  # so that one micro-batch has fewer tokens than the other
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    loss = sum(trainer.compute_loss(trainer.model, part) for part in split_tensor_dict(inputs, 2))
    rule = from_trl(optimiser=SGD(eta=1), num_generations=GROUP, per_device_train_batch_size=6, **options)
    theirs = gradient(loss, trainer.model)
    assert same(ours(rule, trainer.model, inputs), theirs)
    one = from_trl(optimiser=SGD(eta=1), **{**options, "gradient_accumulation_steps": 1})
    whole = rule.model_copy(update={"aggregation": one.aggregation})
    assert same(ours(whole, trainer.model, inputs), theirs) == (loss_type != "bnpo")


def test_the_kl_that_trl_corrects_is_k2_on_policy(tmp_path) -> None:
    options = {"beta": 0.1, "loss_type": "dapo"}
    trainer, inputs = rounded(tmp_path, max_completion_length=3, **options)
    shaken(inputs, "ref_per_token_logps", 0.5)
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    rule = from_trl(optimiser=SGD(eta=1), num_generations=GROUP, **options)
    assert rule.kl.kind == "k2" and same(ours(rule, trainer.model, inputs), theirs)


def test_cispo_with_trls_default_epsilon_pushes_a_fifth(tmp_path) -> None:
    """The difference behind a refusal: TRL caps the ratio at epsilon_high itself, not at 1 + epsilon_high."""
    trainer, inputs = rounded(tmp_path, max_completion_length=3, loss_type="cispo")
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    free = from_trl(optimiser=SGD(eta=1), num_generations=GROUP, loss_type="cispo", epsilon_high=5.0)
    assert same(0.2 * ours(free, trainer.model, inputs), theirs)


def test_truncated_responses_keep_their_place_in_trls_averages(tmp_path) -> None:
    """The difference behind another: masked, they still count in group means and in loss_type grpo's mean."""
    options = {"loss_type": "grpo", "mask_truncated_completions": True}
    trainer, inputs = rounded(tmp_path, max_completion_length=2, **options)
    masked = inputs["completion_mask"].sum(1) == 0
    assert 0 < int(masked.sum()) < len(REWARDS)
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    rule = from_trl(optimiser=SGD(eta=1), num_generations=GROUP, loss_type="grpo")
    assert not same(ours(rule, trainer.model, inputs, check=False), theirs)
    logs, _ = own_logs(trainer.model, inputs)
    everything = torch.ones_like(inputs["completion_mask"])
    groups = torch.arange(len(PROMPTS)).repeat_interleave(GROUP)
    batch = Batch(*[logs.detach()] * 3, torch.tensor(REWARDS), groups, everything)
    advantage = rule.signal.advantage(batch.cleaned())
    mask, present = inputs["completion_mask"], ~masked
    means = (logs * mask).sum(1)[present] / mask.sum(1)[present]
    by_hand = -(advantage[present] * means).sum() / len(REWARDS)
    assert same(gradient(by_hand, trainer.model), theirs)


@pytest.mark.parametrize("off_policy", [False, True])
def test_rloo(tmp_path, off_policy: bool) -> None:
    """trl-rloo on-policy; with the ratio of whole responses it is the sequence clip, off-policy too."""
    trainer, inputs = rounded(tmp_path, "RLOO", max_completion_length=3, beta=0.0)
    logs = own_logs(trainer.model, inputs)[0].detach() * inputs["completion_mask"]
    inputs["old_per_token_logps"] = logs
    if off_policy:
        shaken(inputs, "old_per_token_logps", 0.3)
    # What a mask hides does not matter to us; TRL sums before it knows.
    inputs["old_logps"] = (inputs["old_per_token_logps"] * inputs["completion_mask"]).sum(1)
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    rule = preset("trl-rloo", rollouts=GROUP)
    assert rule.signal == LeaveOneOut() and rule.kl == K1(beta=0.05, place="reward")
    update = {"kl": Rule(optimiser=SGD(eta=1)).kl}
    update |= {"objective": SequenceClip()} if off_policy else {}
    assert same(ours(rule.model_copy(update=update), trainer.model, inputs), theirs)


def test_rloo_takes_the_kl_off_the_reward(tmp_path) -> None:
    """TRL scores policy and reference itself; ours is given a reference that is d lower on every token."""
    trainer, inputs = rounded(tmp_path, "RLOO", max_completion_length=3)
    assert trainer.beta == 0.05  # the preset's
    head = trainer.ref_model.lm_head
    with torch.no_grad():
        head.weight.data = head.weight.data.clone() * 0.5
    rows = [{"prompt": prompt} for prompt in PROMPTS for _ in range(GROUP)]
    inputs = trainer._generate_and_score_completions(rows)
    theirs = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    with torch.no_grad():
        inputs["ref_per_token_logps"] = own_logs(trainer.ref_model, inputs)[0]
    rule = preset("trl-rloo", rollouts=GROUP)
    assert same(ours(rule, trainer.model, inputs), theirs)
    without = rule.model_copy(update={"kl": Rule(optimiser=SGD(eta=1)).kl})
    assert not same(ours(without, trainer.model, inputs), theirs)
