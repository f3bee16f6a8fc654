"""The rule as data: validation, hash, presets, and no field that changes nothing."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

import theory.rules
from tests.theory.rules.signal_table import ALTERNATIVES
from tests.theory.rules.table import random_batch, round_of
from theory.refusal import Refusal
from theory.rules import PRESETS, SGD, Adam, Batch, GroupMean, LeaveOneOut, Rule, preset
from theory.rules.aggregation import Aggregation
from theory.rules.entropy import Entropy
from theory.rules.kl import KL
from theory.rules.objectives import Objective
from theory.rules.signals import Signal

UNIONS = {"objective": Objective, "aggregation": Aggregation, "kl": KL, "entropy": Entropy}
BASE = {"optimiser": {"kind": "sgd", "eta": 0.1}, "rollouts": 2}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"signal": {"kind": "leave_one_out"}, "rollouts": 1}, "leave_one_out needs rollouts >= 2; for one"),
        (
            {"signal": {"kind": "group_mean"}, "rollouts": 1},
            'for one rollout use raw.*singleton "raw" or "zero"',
        ),
        (
            {"signal": {"kind": "group_mean_std"}, "rollouts": 1},
            "group_mean_std.*needs rollouts >= 2; for one",
        ),
        ({"signal": {"kind": "raw", "singleton": "raw"}}, "singleton"),
        ({"signal": {"kind": "leave_one_out", "ddof": 1}}, "ddof"),
        ({"signal": {"kind": "group_mean_std", "ddof": 2}}, "ddof"),
        ({"signal": {"kind": "group_mean_std", "eps": -1}}, "eps"),
        ({"signal": {"kind": "group_mean", "extra": -1}}, "extra"),
        ({"signal": {"kind": "raw", "extra": 1}}, "extra"),
        ({"signal": {"kind": "greedy", "singleton": "raw"}}, "singleton"),
        (
            {"signal": {"kind": "sign", "positive": 0, "negative": 0}},
            "never learns; give at least one above 0",
        ),
        ({"signal": {"kind": "sign", "positive": -1}}, "positive"),
        ({"signal": {"kind": "sign", "reference": float("nan")}}, "reference"),
        ({"signal": {"kind": "moving_average", "decay": 1.0}}, "decay"),
        ({"signal": {"kind": "reward_window", "window": 1}}, "window"),
        ({"signal": {"kind": "reward_window", "singleton": "error"}}, "singleton"),
        ({"signal": {"kind": "reward_window"}, "rollouts": 9}, "window = 8 forgets.*give window >= 9"),
        ({"signal": {"kind": "batch_mean_std", "weighting": "query"}}, "weighting"),
        ({"signal": {"kind": "max_rl", "baseline": "std"}}, "baseline"),
        ({"signal": {"kind": "opo"}, "rollouts": 1}, "opo needs rollouts >= 2; for one rollout use raw"),
        (
            {"signal": {"kind": "batch_mean_std", "eps": 0}},
            'batch_mean_std with eps = 0 .*write eps_place "std',
        ),
        ({"signal": {"kind": "median"}}, "median"),
        ({"objective": {"kind": "ppo_clip", "clip_low": 1.0}}, "clip_low"),
        ({"objective": {"kind": "ppo_clip", "clip_high": 0.0}}, "clip_high"),
        ({"objective": {"kind": "ppo_clip", "dual_clip": 1.0}}, "dual_clip"),
        ({"objective": {"kind": "cispo"}}, "clip_high"),
        ({"objective": {"kind": "cispo", "clip_high": 1, "clip_low": 1.5}}, "clip_low"),
        ({"objective": {"kind": "gspo", "clip_low": 1.0}}, "clip_low"),
        ({"objective": {"kind": "gmpo", "clip_low": 0}}, "clip_low"),
        ({"objective": {"kind": "policy_gradient", "clip_low": 0.2}}, "clip_low"),
        ({"kl": {"kind": "k3", "beta": 0}}, "beta"),
        ({"kl": {"kind": "k1", "beta": 0, "place": "reward"}}, "beta"),
        ({"kl": {"kind": "k2", "beta": 0.1, "place": "signal"}}, "place"),
        ({"kl": {"kind": "k2", "beta": 0.1, "refresh": 0}}, "refresh"),
        (
            {"kl": {"kind": "k1", "beta": 0.1, "refresh": 5}},
            'refresh = 5 changes nothing for k1 in the loss.*use place "reward", or use k2',
        ),
        (
            {"kl": {"kind": "k2", "beta": 0.1, "refresh": 1}},
            "refresh = 1 with epochs = 1.*refresh >= 2 or ep",
        ),
        (
            {"kl": {"kind": "k1", "beta": 0.1, "place": "reward", "refresh": 1}, "epochs": 3},
            'refresh = 1 in place "reward".*give refresh >= 2',
        ),
        ({"entropy": {"kind": "exact", "beta": 0}}, "beta"),
        ({"entropy": {"kind": "exact", "beta": 1, "centre": "group"}}, "centre"),
        ({"entropy": {"kind": "none", "beta": 1}}, "beta"),
        (
            {"entropy": {"kind": "sampled", "beta": 1, "centre": "group"}, "rollouts": 1},
            'centre "group" needs rollouts >= 2, got 1.*use centre "none"',
        ),
        ({"aggregation": {"kind": "micro_batch_token_mean"}}, "micro_batch"),
        ({"aggregation": {"kind": "micro_batch_token_mean", "micro_batch": 0}}, "micro_batch"),
        ({"epochs": 0}, "epochs"),
        ({"optimiser": {"kind": "sgd", "eta": 0.1, "momentum": 1.0}}, "momentum"),
        ({"optimiser": {"kind": "sgd", "eta": 0.1, "nesterov": True}}, "nesterov.*give momentum > 0"),
        ({"optimiser": {"kind": "sgd", "eta": 0.1, "clip_norm": 0}}, "clip_norm"),
        ({"optimiser": {"kind": "adam", "eta": 0.1, "momentum": 0.9}}, "momentum"),
        ({"optimiser": {"kind": "sgd", "eta": 0.1, "schedule": {"kind": "linear"}}}, "steps"),
        ({"optimiser": {"kind": "sgd", "eta": 0.1, "schedule": {"kind": "constant", "steps": 9}}}, "steps"),
        (
            {
                "optimiser": {
                    "kind": "adam",
                    "eta": 0.1,
                    "schedule": {"kind": "cosine", "steps": 5, "warmup": 5},
                }
            },
            "warmup = 5 of steps = 5 leaves none to decay in; give warmup < steps",
        ),
        (
            {
                "optimiser": {
                    "kind": "sgd",
                    "eta": 0.1,
                    "schedule": {"kind": "linear", "steps": 5, "final": 1.0},
                }
            },
            "final",
        ),
        ({"kl": {"kind": "none", "beta": 0.1}}, "beta"),
        ({"kl": {"kind": "none", "refresh": 2}}, "refresh"),
        ({"aggregation": {"kind": "constant"}}, "divisor"),
        ({"aggregation": {"kind": "constant", "divisor": 0}}, "divisor"),
        ({"aggregation": {"kind": "token_mean", "divisor": 3}}, "divisor"),
        ({"optimiser": {"kind": "sgd", "eta": 0}}, "eta"),
        ({"optimiser": {"kind": "sgd", "eta": float("inf")}}, "eta"),
        ({"optimiser": {"kind": "sgd", "eta": float("nan")}}, "eta"),
        ({"optimiser": {"kind": "sgd", "eta": 0.1, "beta1": 0.9}}, "beta1"),
        ({"optimiser": {"kind": "adam", "eta": 0.1, "beta2": 1.0}}, "beta2"),
        ({"optimiser": {"kind": "adam", "eta": 0.1, "weight_decay": -1}}, "weight_decay"),
        ({"rollouts": 0}, "rollouts"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_field_that_cannot_be_used_is_rejected_by_name(fields, words):
    with pytest.raises(Refusal, match=words):
        Rule(**{**BASE, **fields})


def test_a_singleton_policy_makes_one_rollout_legal():
    for singleton in ("raw", "zero"):
        assert Rule(signal=GroupMean(singleton=singleton), optimiser=SGD(eta=1)).rollouts == 1


def test_a_rule_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        preset("minimalist").rollouts = 2  # type: ignore[misc]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json_with_its_hash(name):
    rule = preset(name)
    again = Rule.model_validate_json(rule.model_dump_json())
    assert again == rule == PRESETS[name] and again.hash == rule.hash and len(rule.hash) == 12


def test_hashes_tell_all_presets_and_settings_apart():
    rules = [*PRESETS.values(), preset("minimalist", eta=0.1), preset("minimalist", rollouts=2)]
    rules += [Rule(optimiser=Adam(eta=0.05))]
    assert len({rule.hash for rule in rules}) == len(rules)
    assert preset("minimalist", eta=1).hash == preset("minimalist", eta=1.0).hash


def test_a_hash_does_not_drift_between_machines_or_versions():
    """SHA-256 of the canonical JSON; a change here orphans every stored result, so it must be deliberate."""
    assert preset("minimalist").hash == "bc7063176e45"


def test_a_preset_takes_eta_and_rollouts():
    rule = preset("rloo", eta=0.3, rollouts=16)
    assert (rule.optimiser.eta, rule.rollouts, rule.signal) == (0.3, 16, LeaveOneOut())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "reinforce"}, "'reinforce' is unknown; choose one of minimalist, rloo"),
        ({"name": "rloo", "rollouts": 1}, "leave_one_out needs rollouts >= 2; for one rollout use raw"),
        ({"name": "dr-grpo", "rollouts": 1}, "group_mean .*needs rollouts >= 2"),
        ({"name": "trl-grpo", "rollouts": 1}, "group_mean_std .*needs rollouts >= 2"),
        ({"name": "minimalist", "eta": -1.0}, "eta"),
        ({"name": "minimalist", "rollouts": 0}, "rollouts"),
    ],
)
def test_a_preset_that_cannot_be_made_says_why(arguments, words):
    with pytest.raises(Refusal, match=words):
        preset(**arguments)


def test_the_minimalist_preset_is_the_papers_bottom_layer():
    rule = preset("minimalist")
    kinds = [part.kind for part in (rule.signal, rule.objective, rule.aggregation, rule.kl, rule.optimiser)]
    assert kinds == ["raw", "policy_gradient", "sequence_sum", "none", "sgd"] and rule.rollouts == 1


def test_extra_rollouts_make_one_rollout_legal():
    assert Rule(signal=GroupMean(extra=1), optimiser=SGD(eta=1)).roles == (0, 1)


@pytest.mark.parametrize("spec", get_args(get_args(Signal)[0]), ids=lambda spec: spec.__name__)
def test_every_field_of_a_signal_changes_the_weights_and_the_hash(spec):
    kind = spec.model_fields["kind"].default
    assert set(ALTERNATIVES[kind]) == set(spec.model_fields) - {"kind"}
    reference = Rule(**{**BASE, "signal": {"kind": kind}})
    rounds = [round_of(seed, roles=True) for seed in range(10)]
    # Rounds that masking leaves with a single rollout, for what happens then.
    rounds += [b._replace(role=np.where(np.arange(6) == 0, 0, 2)) for b in rounds[:5]]

    def played(rule: Rule) -> list[np.ndarray]:
        state, result = rule.init(np, 3), []
        for batch in rounds:
            w, state = rule.weights(batch, state)
            result.append(w)
        return result

    expected = played(reference)
    for field, value in ALTERNATIVES[kind].items():
        changed = Rule(**{**BASE, "signal": {"kind": kind, field: value}})
        assert changed.hash != reference.hash
        assert any(np.any(a != b) for a, b in zip(played(changed), expected, strict=True)), field


# A specification, and another value for each of its fields: each must change the weights of some batch.
MUTATIONS: list[tuple[str, dict, dict]] = [
    ("objective", {"kind": "policy_gradient"}, {}),
    ("objective", {"kind": "ppo_clip"}, {"clip_low": 0.5, "clip_high": 0.5, "dual_clip": 1.3}),
    ("objective", {"kind": "cispo", "clip_high": 0.2}, {"clip_low": 0.3, "clip_high": 0.5}),
    ("objective", {"kind": "gspo"}, {"clip_low": 0.3, "clip_high": 0.5}),
    ("objective", {"kind": "sequence_clip"}, {"clip_low": 0.5, "clip_high": 0.9}),
    ("objective", {"kind": "gmpo"}, {"clip_low": 0.1, "clip_high": 0.1}),
    ("aggregation", {"kind": "sequence_sum"}, {}),
    ("aggregation", {"kind": "token_mean"}, {}),
    ("aggregation", {"kind": "sequence_mean_token_mean"}, {}),
    ("aggregation", {"kind": "constant", "divisor": 2}, {"divisor": 3}),
    ("aggregation", {"kind": "micro_batch_token_mean", "micro_batch": 2}, {"micro_batch": 3}),
    *(("kl", {"kind": k, "beta": 0.1}, {"beta": 0.2, "place": "reward"}) for k in ("k1", "k2", "k3", "abs")),
    *(
        ("kl", {"kind": k, "beta": 0.1, "place": "reward"}, {"beta": 0.2, "place": "loss"})
        for k in ("k1", "k3")
    ),
    ("entropy", {"kind": "none"}, {}),
    ("entropy", {"kind": "exact", "beta": 0.1}, {"beta": 0.2}),
    ("entropy", {"kind": "sampled", "beta": 0.1}, {"beta": 0.2, "centre": "group"}),
]
# Fields that move the run and not the weights of one batch: held by test_optimiser and by the trainer's tests.
ELSEWHERE = {"kind", "refresh"}


@pytest.mark.parametrize(("part", "fields", "changes"), MUTATIONS)
def test_every_field_changes_the_weights_and_the_hash(part, fields, changes):
    reference = Rule(**{**BASE, part: fields})
    assert set(type(getattr(reference, part)).model_fields) - ELSEWHERE == set(changes), (
        "a field without a test"
    )
    batches = [random_batch(seed) for seed in range(20)]
    for field, value in changes.items():
        changed = Rule(**{**BASE, part: {**fields, field: value}})
        assert changed.hash != reference.hash
        assert any(differ(changed, reference, b) for b in batches), field


def differ(one: Rule, other: Rule, batch: Batch) -> bool:
    return any(
        np.any(a != b)
        for a, b in (
            (one.weights(batch)[0], other.weights(batch)[0]),
            (one.entropy_weights(batch), other.entropy_weights(batch)),
        )
    )


@pytest.mark.parametrize("part", ["objective", "aggregation", "kl", "entropy"])
def test_every_kind_of_these_parts_is_mutated(part):
    """The union's members against the table above, so that a new one cannot be forgotten."""
    union = get_args(get_args(UNIONS[part])[0])
    listed = {fields["kind"] for name, fields, _ in MUTATIONS if name == part}
    kinds = {member.model_fields["kind"].default for member in union}
    assert kinds - {"none"} <= listed


def test_refresh_is_part_of_the_hash():
    fixed, moving = (Rule(**BASE, kl={"kind": "k2", "beta": 0.1, "refresh": n}) for n in (None, 3))
    assert fixed.hash != moving.hash
    assert Rule(**BASE, kl={"kind": "k2", "beta": 0.1, "refresh": 1}, epochs=2).kl.refresh == 1


def test_the_public_names_are_the_listed_ones():
    assert sorted(theory.rules.__all__) == sorted(set(theory.rules.__all__))
    assert all(hasattr(theory.rules, name) for name in theory.rules.__all__)
