"""A probe of one query or of several comes back from its folder bit for bit, and of another stage not at all."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.folder.probe_store import GRAM, load_probe, read_probe, save_probe
from llm_bridge.models.language_model import load_model
from llm_bridge.network.plain import open_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.probe.measure import measure
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.rollouts.asked import Question
from theory.refusal import Refusal
from theory.trees.joint_probe import JointProbe
from theory.trees.probe_record import ProbeRecord


def probed(queries: int, **fields) -> JointProbe:
    model = load_model("tiny-arithmetic")
    split = open_model(model.model, AdapterSpec(rank=2, blocks=1))
    questions = [
        Question(
            model.encode_prompt(prompt),
            lambda t, right=right: float(model.decode(list(t)) == right),
            model.end_tokens,
        )
        for prompt, right in (("3+4=", "7"), ("1+1=", "2"))[:queries]
    ]
    return measure(split, questions, ProbeSpec(rollouts=200, **fields), max_tokens=3, seed=0)


@pytest.mark.parametrize("fields", [{}, {"sketch": 64, "coordinates": 20}])
@pytest.mark.parametrize("queries", [1, 2])
def test_what_was_saved_is_there_again(queries: int, fields: dict, tmp_path: Path) -> None:
    made = probed(queries, **fields)
    first = made.probes[0].noting(model="of these weights", rounding_mean=0.5)
    made = JointProbe((first, *made.probes[1:]), made.gram)
    save_probe(tmp_path, made, "stage")
    found = load_probe(tmp_path, "stage", queries)
    assert found is not None and load_probe(tmp_path, "another", queries) is None
    np.testing.assert_array_equal(found.gram, made.gram, strict=True)
    for a, b in zip(found.probes, made.probes, strict=True):
        assert a.meta == b.meta and a.layout == b.layout and a.share == b.share
        np.testing.assert_array_equal(a.gram, b.gram, strict=True)
        np.testing.assert_equal(vars(a.responses), vars(b.responses))
        np.testing.assert_equal(a.scores, b.scores)
    where = tmp_path if queries == 1 else tmp_path / "probes" / "00"
    assert read_probe(where).meta == first.meta and (tmp_path / GRAM).exists() == (queries > 1)
    arrays = set(load_file(where / "probe.safetensors"))
    assert arrays - {"scores", "share"} == {"gram"} | {
        f"response_{name}" for name in ("length", "tokens", "logprobs", "counts", "rewards", "ended")
    }


def test_a_probe_of_several_is_whole_or_not_there(tmp_path: Path) -> None:
    made = probed(2)
    save_probe(tmp_path, made, "stage")
    (tmp_path / "probes" / "01" / "probe.json").unlink()
    assert load_probe(tmp_path, "stage", 2) is None
    save_probe(tmp_path, made, "stage")
    (tmp_path / GRAM).unlink()
    assert load_probe(tmp_path, "stage", 2) is None
    assert load_probe(tmp_path, "stage", 1) is None, "several queries are no probe of one"


def test_a_record_says_what_is_there_and_stays_as_it_is() -> None:
    record = ProbeRecord(rollouts=5, seed=2, sketch=64, sketch_error=0.25)
    told = record.to_json()
    assert told["sketch"] == 64 and "model" not in told and "rounding_mean" not in told
    assert ProbeRecord.from_json(json.loads(json.dumps(told))) == record
    with pytest.raises(FrozenInstanceError):
        record.seed = 3  # type: ignore[misc]
    with pytest.raises(Refusal, match=r"no field 'wind'.*another version.*measure it again"):
        ProbeRecord.from_json(told | {"wind": 1})
