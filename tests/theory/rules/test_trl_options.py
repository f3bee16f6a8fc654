"""TRL's options as rules, without TRL: the named dialects are these, and what has no equal is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from theory.refusal import Refusal
from theory.rules import PRESETS, SGD
from theory.rules.trl import LOSS_TYPES, NEUTRAL, VERSION, from_trl

DOCUMENT = Path(__file__).parents[3] / "docs" / "trainers.md"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("trl-grpo", {}),
        ("trl-grpo-batch", {"scale_rewards": "batch"}),
        ("trl-grpo-sequence", {"loss_type": "grpo"}),
        ("trl-grpo", {"scale_rewards": True}),
        ("trl-dr-grpo", {"loss_type": "dr_grpo", "scale_rewards": "none"}),
        ("trl-dr-grpo", {"loss_type": "dr_grpo", "scale_rewards": False}),
    ],
)
def test_named_dialects_are_these_options(name: str, options: dict[str, Any]) -> None:
    assert from_trl(optimiser=PRESETS[name].optimiser, **options) == PRESETS[name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "ppo"}, "loss_type = 'ppo' is unknown; choose one of grpo"),
        ({"scale_rewards": "round"}, "scale_rewards = 'round' is unknown"),
        ({"loss_type": "luspo"}, 'importance_sampling_level = "sequence"'),
        ({"loss_type": "cispo"}, "epsilon_high = 0.2.* give epsilon_high > 1"),
        ({"loss_type": "sapo", "num_iterations": 2}, "set num_iterations = 1"),
        ({"loss_type": "vespo", "num_iterations": 2}, "set num_iterations = 1"),
        ({"beta": 0.1, "num_iterations": 2}, "use_bias_correction_kl = False or num_iterations = 1"),
        ({"delta": 1.1}, "give a larger delta"),
        ({"delta": 2.0, "importance_sampling_level": "sequence"}, "delta = 2.0 has no equal"),
        ({"importance_sampling_level": "response"}, "choose token or sequence"),
        ({"entropy_coef": 0.1, "gradient_accumulation_steps": 2}, "set gradient_accumulation_steps = 1"),
        ({"mask_truncated_completions": True}, "set it to False"),
        ({"temperature": 0.7}, "set it to 1.0"),
        ({"learning_rate": 0.1}, "learning_rate is no option"),
        ({"num_generations": 1}, "needs rollouts >= 2"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_has_no_equal_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        from_trl(optimiser=SGD(eta=1), **options)


def test_the_document_names_every_loss_and_every_option_without_equal() -> None:
    text = DOCUMENT.read_text()
    assert f"TRL {VERSION}" in text
    rows = re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE)
    assert set(LOSS_TYPES) <= set(rows)
    assert all(f"`{name}`" in text for name in NEUTRAL)
