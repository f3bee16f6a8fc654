"""Another folder finds the probe that depends on the same things, and no other; damage is seen and mended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from linearised import small, spec

from experiments.specs import ProbeSpec
from experiments.stages import Run
from llm_bridge.adapters import AdapterSpec
from llm_bridge.models import LanguageModel, load_model
from llm_bridge.queries import Query
from llm_bridge.warning import CacheWarning
from theory.rules import preset


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cache of its own, and the stages whose probes were measured."""
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONEARM_PROBE_CACHE")
    stages: list[str] = []
    own = Run.measured

    def noted(run: Run, *how):
        stages.append(run.spec.stage("probe"))
        return own(run, *how)

    monkeypatch.setattr(Run, "measured", noted)
    return stages


def asked(**changes):
    return spec(**({"forecast": small(), "probe": ProbeSpec(rollouts=60)} | changes))


def test_another_folder_finds_it(tmp_path: Path, tiny, measured: list[str]) -> None:
    """With more rounds and another rule; what the folders then hold is the same, byte for byte."""
    bars: list[str] = []
    first = Run(asked(), tmp_path / "a", model=tiny).probe()
    other = asked(rounds=9, rule=preset("rloo", eta=0.1, rollouts=3))
    again = Run(other, tmp_path / "b", lambda name, *_: bars.append(name), model=tiny).probe()
    assert len(measured) == 1 and bars == ["kept probe"]
    np.testing.assert_array_equal(again.gram, first.gram)
    assert again.responses.tokens == first.responses.tokens and again.p0 == first.p0
    for name in ("probe.json", "probe.safetensors"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_what_it_depends_on_is_the_key(tmp_path: Path, tiny, measured: list[str]) -> None:
    query = asked().query
    others = (
        asked(query=Query(prompt=query.prompt, answer=query.answer, verifier="last_number")),
        asked(adapter=AdapterSpec(rank=1, blocks="all")), asked(seed=1), asked(max_tokens=2),
        asked(probe=ProbeSpec(rollouts=61)),
    )  # fmt: skip
    for i, other in enumerate((asked(), *others)):
        Run(other, tmp_path / str(i), model=tiny).probe()
    assert len(set(measured)) == 6
    trained = load_model("tiny-arithmetic", dtype="float64")
    object.__setattr__(trained, "fingerprint", "of other weights")
    Run(asked(), tmp_path / "trained", model=trained).probe()
    assert len(measured) == 7


def test_a_damaged_one_is_measured_again(tmp_path: Path, tiny, measured: list[str]) -> None:
    Run(asked(), tmp_path / "a", model=tiny).probe()
    (file,) = (tmp_path / "cache" / "probes").glob("*/probe.safetensors")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.warns(CacheWarning, match=r"is damaged .*made again"):
        Run(asked(), tmp_path / "b", model=tiny).probe()
    assert len(measured) == 2
    Run(asked(), tmp_path / "c", model=tiny).probe()
    assert len(measured) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, tiny, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match=r"not kept .*set ONEARM_CACHE to a folder.*ONEARM_PROBE_CACHE=off"):
        Run(asked(), tmp_path / "a", model=tiny).probe()
    assert len(measured) == 1 and (tmp_path / "a" / "probe.json").exists()


def test_it_can_be_left_out(
    tmp_path: Path, tiny, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEARM_PROBE_CACHE", "off")
    for name in "ab":
        Run(asked(), tmp_path / name, model=tiny).probe()
    assert len(measured) == 2 and not (tmp_path / "cache").exists()
