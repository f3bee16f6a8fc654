"""Another folder finds the probe that depends on the same things, and no other; damage is seen and mended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from linearised import small, spec
from theory.pay import Noisy

from experiments.folder import probe_cache, probe_store
from experiments.forecast.network import Network
from experiments.run.run import Run
from experiments.specs import HeldOut, ProbeSpec, RunSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.queries.query import Query
from theory.rules import preset
from theory.trees.joint_probe import JointProbe
from theory.trees.probe import Probe
from theory.warning import CacheWarning

A, B, C, D = (
    Query(prompt=p, answer=a, verifier="integer")
    for p, a in (("7+6=", "13"), ("1+1=", "2"), ("2+6=", "8"), ("3+4=", "7"))
)


def one(**changes: Any):
    return spec(**({"forecast": small(), "probe": ProbeSpec(rollouts=60)} | changes))


def several(*, held_out: tuple[Query, ...] = (C,), every: int = 5, **changes: Any) -> RunSpec:
    """Two queries are trained on, one is held out."""
    apart = HeldOut(queries=held_out, every=every) if held_out else None
    return one(**({"queries": (A, B), "batch": 1, "held_out": apart} | changes))


class Kind(NamedTuple):
    """A run of one query or of several, and the files of its probe."""

    name: str
    asked: Callable[..., RunSpec]
    files: tuple[str, ...]


HELD = ("probe.json", "probe.safetensors")
ONE = Kind("one", one, HELD)
SEVERAL = Kind(
    "several", several, ("gram.safetensors", *(f"probes/{q:02d}/{x}" for q in range(3) for x in HELD))
)
kinds = pytest.mark.parametrize("kind", [ONE, SEVERAL], ids=["one", "several"])


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic", dtype="float64")


@pytest.fixture(scope="module")
def whole(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, JointProbe]:
    """Both probes, measured once for all tests."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        kind.name: Run(kind.asked(), folder / kind.name, model=tiny).network.probe()
        for kind in (ONE, SEVERAL)
    }


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, JointProbe]) -> list[Network]:
    """A cache of its own, and the networks that were probed: in name, each is given the probe that is there."""
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONEARM_PROBE_CACHE")
    networks: list[Network] = []

    def noted(network: Network) -> JointProbe:
        networks.append(network)
        return whole["one" if len(network.spec.asked) == 1 else "several"]

    monkeypatch.setattr(Network, "probe", noted)
    return networks


def assert_equal(found: Any, made: Any) -> None:
    """Bit by bit."""
    if isinstance(made, JointProbe):
        np.testing.assert_array_equal(found.gram, made.gram, strict=True)
        for one_found, one_made in zip(found.probes, made.probes, strict=True):
            assert_equal(one_found, one_made)
        return
    assert isinstance(made, Probe)
    np.testing.assert_array_equal(found.gram, made.gram, strict=True)
    np.testing.assert_equal(vars(found.responses), vars(made.responses))
    np.testing.assert_equal(vars(found.tree()), vars(made.tree()))
    assert found.layout.atoms == made.layout.atoms and found.meta == made.meta and found.p0 == made.p0


FASTER = {"rounds": 9, "replicas": 5, "rule": preset("rloo", eta=0.1, rollouts=3)}
ALIKE = [
    (ONE, FASTER), (SEVERAL, FASTER), (SEVERAL, {"batch": 2, "every": 2}),
    (SEVERAL, {"pay": Noisy(false_positive=0.5)}),
    # What is trained on is probed as what is held out.
    (SEVERAL, {"queries": (A, B, C), "held_out": ()}), (SEVERAL, {"queries": (A,), "held_out": (B, C)}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes"), ALIKE)
def test_another_folder_finds_it(
    kind: Kind, changes: dict, tmp_path: Path, tiny, measured: list[Any]
) -> None:
    """With more rounds and another rule; what the folders then hold is the same, array for array."""
    bars: list[str] = []
    first = Run(kind.asked(), tmp_path / "a", model=tiny).probe()
    other = kind.asked(**changes)
    again = Run(other, tmp_path / "b", lambda name, *_: bars.append(name), model=tiny)
    assert_equal(again.probe(), first)
    assert_equal(again.probe(), first)  # now from its own folder
    assert len(measured) == 1 and bars == ["kept probe"]
    for name in kind.files:
        there, here = ((tmp_path / x / name).read_bytes() for x in "ab")
        marks = (x.stage("probe").encode() for x in (other, kind.asked()))
        assert there == here.replace(*marks)


@pytest.mark.parametrize("changes", [changes for kind, changes in ALIKE if kind is SEVERAL])
def test_what_is_not_in_the_key_changes_nothing(changes: dict, tmp_path: Path, tiny, whole) -> None:
    """Both measured: only the seconds it took differ."""
    again, before = Run(several(**changes), tmp_path, model=tiny).network.probe(), whole["several"]
    timed = [x.noting(seconds=y.meta.seconds) for x, y in zip(again.probes, before.probes, strict=True)]
    assert_equal(JointProbe(tuple(timed), again.gram), before)


COMMON = (
    {"adapter": AdapterSpec(rank=1, blocks="all")}, {"seed": 1}, {"max_tokens": 2},
    *({"probe": ProbeSpec(**({"rollouts": 600} | x))} for x in (
        {}, {"cut": 4.0}, {"leaf_cut": 2.0}, {"precision": 0.2}, {"sketch": 64},
    )),
)  # fmt: skip
OTHERWISE = A.model_copy(update={"verifier": "last_number"})
OTHERS = {
    ONE: ({"queries": (B,)}, {"queries": (OTHERWISE,)}, *COMMON),
    SEVERAL: (
        {"queries": (B, A)}, {"queries": (D, B)}, {"queries": (A, D)}, {"queries": (OTHERWISE, B)}, {"queries": (A,)},
        {"held_out": ()}, {"held_out": (D,)}, {"held_out": (C, D)}, {"held_out": (D, C)}, *COMMON,
    ),
}  # fmt: skip


@kinds
def test_what_it_depends_on_is_the_key(kind: Kind, tmp_path: Path, tiny, measured, monkeypatch) -> None:
    asked = kind.asked
    specs = [asked(), *(asked(**changes) for changes in OTHERS[kind])]
    for i, other in enumerate(specs):
        Run(other, tmp_path / str(i), model=tiny).probe()
    assert [network.spec for network in measured] == specs
    trained = replace(tiny, fingerprint="of other weights")
    Run(asked(), tmp_path / "trained", model=trained).probe()
    monkeypatch.setattr(probe_cache.metadata, "version", lambda name: "another")
    Run(asked(), tmp_path / "version", model=tiny).probe()
    assert len(measured) == len(specs) + 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in (ONE, SEVERAL) for name in kind.files])
def test_a_damaged_one_is_measured_again(
    kind: Kind, name: str, harm: Callable, tmp_path: Path, tiny, measured: list[Any], whole
) -> None:
    def probe(folder: str) -> Any:
        return Run(kind.asked(), tmp_path / folder, model=tiny).probe()

    probe("a")
    (folder,) = (tmp_path / "cache" / "probes").iterdir()
    harm(folder / name)
    with pytest.warns(CacheWarning) as said:
        assert_equal(probe("b"), whole[kind.name])
    (message,) = (str(one.message) for one in said)
    assert re.search(rf"is damaged \({name} .*\); it is made again", message)
    assert_equal(probe("c"), whole[kind.name])
    assert len(measured) == 2


def test_of_an_interrupted_one_nothing_is_kept(
    tmp_path: Path, tiny, measured: list[Any], whole, monkeypatch
) -> None:
    """Stopped between the probes of the queries."""
    run = partial(Run, several(), model=tiny)
    save_one = probe_store.save_one

    def stop(out: Path, probe: Probe, stage: str) -> None:
        if probe.meta.query == 1:
            raise KeyboardInterrupt
        save_one(out, probe, stage)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(probe_store, "save_one", stop)
        run(tmp_path / "a").probe()
    assert not list((tmp_path / "cache" / "probes").iterdir())
    for name in "ab":
        assert_equal(run(tmp_path / name).probe(), whole["several"])
    assert len(measured) == 2


@kinds
def test_a_cache_that_cannot_be_written_costs_a_warning(
    kind: Kind, tmp_path: Path, tiny, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match=r"not kept .*set ONEARM_CACHE to a folder.*ONEARM_PROBE_CACHE=off"):
        Run(kind.asked(), tmp_path / "a", model=tiny).probe()
    assert len(measured) == 1 and all((tmp_path / "a" / name).exists() for name in kind.files)


def test_no_room_to_measure_is_not_the_caches_fault(
    tmp_path: Path, tiny, measured: list[Any], monkeypatch
) -> None:
    """It is said as it is, and nothing is measured a second time."""

    def full(network: Network) -> None:
        measured.append(network)
        raise OSError("no space left")

    monkeypatch.setattr(Network, "probe", full)
    with pytest.raises(OSError, match=r"^no space left$"):
        Run(several(), tmp_path / "a", model=tiny).probe()
    assert len(measured) == 1


@kinds
def test_it_can_be_left_out(
    kind: Kind, tmp_path: Path, tiny, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEARM_PROBE_CACHE", "off")
    for name in "ab":
        Run(kind.asked(), tmp_path / name, model=tiny).probe()
    assert len(measured) == 2 and not (tmp_path / "cache").exists()
