"""Marks by exclusion: every field of every spec counts for every stage, unless it is named as not mattering there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from experiments.screening.spec import ScreenSpec
from experiments.specs import (
    ForecastSpec,
    HeldOut,
    ModelSpec,
    ProbeSpec,
    RelineariseSpec,
    RunSpec,
)
from experiments.specs.stages import NOT_MATTERING
from llm_bridge.network.specs import AdapterSpec, FullSpec
from llm_bridge.queries.query import Query
from theory.pay import Noisy
from theory.rules.dialects import preset

ONE = Query(prompt="3+4=", answer="7", verifier="integer", name="a", stop="\n")
FULLEST = RunSpec(
    queries=(ONE, Query(prompt="1+1=", answer="2")),
    batch=1,
    held_out=HeldOut(queries=(Query(prompt="2+6=", answer="8"),)),
    model=ModelSpec(name="tiny-arithmetic"),
    rule=preset("minimalist", eta=0.1),
    pay=Noisy(false_positive=0.1, false_negative=0.2),
    adapter=AdapterSpec(),
    probe=ProbeSpec(rollouts=600, precision=0.1, sketch=100),
    forecast=ForecastSpec(relinearise=RelineariseSpec(rounds=(3,), rollouts=50)),
)
"""Every part is there, so that every field is."""


def fields(model: BaseModel, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all leaves."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from fields(value, (*path, name))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield from fields(value[0], (*path, name, 0))
        else:
            yield (*path, name)


def another(model: BaseModel, name: str) -> Any:
    """A value of the field's type that it does not have."""
    value, kind = getattr(model, name), type(model).model_fields[name].annotation
    choices = [x for part in (kind, *get_args(kind)) if get_origin(part) is Literal for x in get_args(part)]
    if others := [x for x in choices if x != value]:
        return others[0]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 0.5 + 0.013
        case str():
            return value + "x"
        case tuple():
            return (*value, value[-1] + 1)
        case None:
            return {"name": "x", "stop": "y", "entry": "x"}.get(name, 5)
    raise AssertionError(f"{name}: no other value of {value!r} is known")


def changed(model: Any, path: tuple[Any, ...]) -> Any:
    """The model with another value at a path; without validation, which is not what is tested."""
    head, *rest = path
    if isinstance(model, tuple):
        return (changed(model[0], tuple(rest)), *model[1:])
    value = another(model, head) if not rest else changed(getattr(model, head), tuple(rest))
    return model.model_copy(update={head: value})


KINDS = {path for path in fields(FULLEST) if path[-1] == "kind"}
"""Names of alternatives have one value each; another alternative is another part."""


@pytest.mark.parametrize(
    "path", sorted(set(fields(FULLEST)) - KINDS, key=str), ids=lambda path: ".".join(map(str, path))
)
def test_every_field_of_a_run_changes_the_marks_of_the_stages_it_matters_for(path: tuple[Any, ...]) -> None:
    other = changed(FULLEST, path)
    assert other.model_dump() != FULLEST.model_dump(), "the field is not in the spec's dump"
    for stage, left_out in NOT_MATTERING.items():
        # A probe is of all queries, held out or not.
        counts = path[0] not in left_out or (stage == "probe" and path[:2] == ("held_out", "queries"))
        assert (other.stage(stage) != FULLEST.stage(stage)) == counts, stage


@pytest.mark.parametrize(
    "change",
    [
        {"rule": preset("rloo", eta=0.1)}, {"adapter": FullSpec()}, {"held_out": None},
        {"pay": Noisy(false_positive=0.3)}, {"queries": FULLEST.queries[::-1]},
    ],
    ids=["rule", "adapter", "held_out", "pay", "order of queries"],
)  # fmt: skip
def test_another_part_changes_the_overlay(change: dict[str, Any]) -> None:
    assert FULLEST.model_copy(update=change).stage("overlay") != FULLEST.stage("overlay")


def test_no_name_that_does_not_matter_is_misspelt() -> None:
    named = set().union(*NOT_MATTERING.values())
    assert named <= set(RunSpec.model_fields), (
        "a misspelt exclusion excludes nothing, and a renamed field counts"
    )


def test_every_field_of_a_screening_counts() -> None:
    spec = ScreenSpec(source="builtin", queries="abc", most=100)
    for path in fields(spec):
        assert changed(spec, path).stage != spec.stage, path


def test_two_stages_of_one_run_have_different_marks() -> None:
    assert len({FULLEST.stage(stage) for stage in NOT_MATTERING}) == len(NOT_MATTERING)


def test_importing_a_spec_loads_neither_torch_nor_jax() -> None:
    code = (
        "import sys, experiments.specs, experiments.screening.spec\n"
        "loaded = {'torch', 'jax', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
