"""Layers are data: differences that add up, and whatever is wrong with a file said by name."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.studies.layers.configuration import Configuration
from experiments.studies.layers.ladder import merged, read_ladder
from experiments.studies.layers.worlds import read_worlds
from theory.refusal import Refusal

LOWEST = 'name = "low"\nquestion = "?"\n[change.rule.optimiser]\nkind = "sgd"\neta = 1.0\n[[variant]]\nname = "least"\n'
names = st.sampled_from("abcd")
trees = st.recursive(st.integers(0, 9), lambda inner: st.dictionaries(names, inner, min_size=1), max_leaves=6)
tables = st.dictionaries(names, trees, min_size=1)


def write(folder: Path, *layers: str) -> Path:
    for number, text in enumerate((LOWEST, *layers)):
        (folder / f"{number}-layer.toml").write_text(text)
    return folder


def layer(change: str, name: str = "up") -> str:
    return f'name = "{name}"\nquestion = "?"\n[[variant]]\nname = "v"\n{change}\n'


def leaves(value, path=()):
    if not isinstance(value, dict):
        return {path: value}
    return {key: leaf for k, v in value.items() for key, leaf in leaves(v, (*path, k)).items()}


@given(tables, tables)
def test_a_merged_table_has_every_leaf_of_the_change_and_the_others_of_the_table_below(below, change):
    try:
        out = merged(below, change)
    except ValueError as error:
        assert "leave it out" in str(error)
        return
    new, old, got = leaves(change), leaves(below), leaves(out)
    assert all(got[path] == value for path, value in new.items())
    assert all(got[path] == value for path, value in old.items() if path[:1] not in {p[:1] for p in new})
    assert set(got) <= set(new) | set(old)


def test_a_table_of_another_kind_replaces_the_old_one_whole():
    below = {"optimiser": {"kind": "sgd", "eta": 1.0, "momentum": 0.9}}
    assert merged(below, {"optimiser": {"kind": "adam", "eta": 1.0}}) == {
        "optimiser": {"kind": "adam", "eta": 1.0}
    }
    for change in ({"eta": 2.0}, {"kind": "sgd", "eta": 2.0}):
        assert merged(below, {"optimiser": change})["optimiser"] == {
            "kind": "sgd",
            "eta": 2.0,
            "momentum": 0.9,
        }
    with pytest.raises(Refusal, match=r"kind 'sgd' in the layer below already; leave it out"):
        merged(below, {"optimiser": {"kind": "sgd"}})


def test_the_layers_of_the_issue_are_there():
    layers = read_ladder()
    assert [row.name for row in layers] == [
        "minimalist", "advantage", "rollouts", "reward", "difficulty", "batch", "dress", "base-model",
    ]  # fmt: skip
    made = {v.key: v.configuration for row in layers for v in row.variants}
    lowest = made["minimalist/minimalist"]
    assert (
        lowest.rule.signal.kind == "raw" and lowest.rule.rollouts == 1 and lowest.rule.optimiser.kind == "sgd"
    )
    assert lowest.rule.kl.kind == "none" and lowest.rule.objective.kind == "policy_gradient"
    assert {c.rule.rollouts for k, c in made.items() if k.startswith("rollouts/")} == {8, 16, 32, 64}
    batches = {c.batch for k, c in made.items() if k.startswith("batch/") and c.rule.rollouts == 1}
    assert {1, 8, 32, 64, 128} <= batches
    budget = {(c.batch, c.rule.rollouts) for k, c in made.items() if k.startswith("batch/")}
    assert {(256 // n, n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)} <= budget
    assert {c.difficulty for c in made.values()} == {"easy", "medium", "hard", "extremely_hard"}
    paper = made["dress/paper"].rule
    assert (
        paper.kl.kind == "k3"
        and paper.optimiser.kind == "adam"
        and paper.aggregation.kind == "micro_batch_token_mean"
    )


def test_every_variant_runs_or_is_refused_with_a_reason_in_every_world():
    for world in read_worlds().values():
        for variant in (v for row in read_ladder() for v in row.variants):
            reason = world.refusal(variant.configuration, "full")
            if reason is None:
                world.spec(variant.configuration, "full")
            else:
                assert len(reason) > 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("change.rules = 1", r"1-layer\.toml: variant 'v'.*rules.*Extra inputs"),
        ("change.rule.signal = { kind = 'rew' }", r"variant 'v'.*signal"),
        ("change.rule.rollouts = 0", r"variant 'v'.*rollouts"),
        (
            "change.rule.optimiser.eta = 1.0",
            r"rule\.optimiser\.eta = 1\.0 is so in the layer below already; leave it out",
        ),
        ("change.difficulty = 'medium'", r"up/v is the same as low/least"),
        ("", r"up/v is the same as low/least: its change changes nothing"),
        ("change.batch = 4", r"batch = 4 of queries = 1"),
        ("shows = ['w']", r"Extra inputs"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(Refusal, match=f"(?s){message}"):
        read_ladder(write(tmp_path, layer(change)))


def test_a_layer_that_is_missing_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "2-up.toml").write_text(layer("change.difficulty = 'hard'"))
    with pytest.raises(Refusal, match=r"no file 1-NAME\.toml"):
        read_ladder(tmp_path)
    with pytest.raises(Refusal, match="holds no layer"):
        read_ladder(tmp_path / "empty")


def test_a_layers_own_change_is_inherited_and_a_variants_is_not(tmp_path):
    first = 'name = "a"\nquestion = "?"\n[change]\nqueries = 8\n[[variant]]\nname = "v"\nchange.batch = 2\n'
    layers = read_ladder(write(tmp_path, first, layer("change.batch = 4", "b")))
    made = layers[2].variants[0].configuration
    assert (made.queries, made.batch) == (8, 4)
    assert layers[1].variants[0].configuration.batch == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queries": 4, "difficulty": "hard"}, "several queries are a spectrum"),
        ({"shared": False, "queries": 4}, "leave them out"),
        ({"shared": False, "overlap": 0.1}, "leave them out"),
    ],
)
def test_a_field_without_effect_is_refused(fields, message):
    with pytest.raises(Refusal, match=message):
        Configuration.model_validate({"rule": {"optimiser": {"kind": "sgd", "eta": 1.0}}, **fields})


def test_mean_pay():
    rule = {"optimiser": {"kind": "sgd", "eta": 1.0}}
    noisy = {"kind": "noisy", "false_positive": 0.1, "false_negative": 0.3}
    form = {
        "kind": "shaped",
        "terms": [{"pays": {"kind": "clean"}}, {"weight": 0.2, "pays": {"kind": "format", "wrong": 0.5}}],
    }
    assert Configuration.model_validate({"rule": rule}).paid() == (0.0, 1.0)
    assert Configuration.model_validate({"rule": rule, "pay": noisy}).paid() == pytest.approx((0.1, 0.7))
    assert Configuration.model_validate({"rule": rule, "pay": form}).paid() == pytest.approx((0.1, 1.2))
