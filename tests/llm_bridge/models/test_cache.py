"""What is kept on this machine: made once, found damaged in any way, made again with a word said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_bridge.models.cache import build_once
from llm_bridge.models.checksums import MANIFEST, damage
from llm_bridge.models.language_model import load_model
from theory.warning import CacheWarning


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were built, in order; the cache is a folder of the test's own."""
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "cache"))
    return []


def make(built: list[Path]) -> Path:
    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "model.safetensors").write_bytes(b"weights" * 100)
        (folder / "config.json").write_text("{}")
        (folder / "parts").mkdir()
        (folder / "parts" / "00.json").write_text("[1]")

    return build_once("m", build)


def flip(path: Path) -> None:
    """One bit, the size unchanged."""
    data = bytearray(path.read_bytes())
    data[350] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda m: m.write_bytes(m.read_bytes()[:-1]), "model.safetensors has 699 of 700 bytes"),
    "empty": (lambda m: m.write_bytes(b""), "model.safetensors has 0 of 700 bytes"),
    "missing": (lambda m: m.unlink(), "model.safetensors is missing"),
    "a bit": (flip, "model.safetensors has another checksum"),
    "in a folder": (
        lambda m: (m.parent / "parts" / "00.json").write_text("[2]"),
        "parts/00.json has another checksum",
    ),
    "a folder": (lambda m: shutil.rmtree(m.parent / "parts"), "parts/00.json is missing"),
    "manifest": (lambda m: (m.parent / MANIFEST).write_text("{half"), "checksums.json cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_folder_is_made_again_and_said(kind: str, built: list[Path]) -> None:
    folder = make(built)
    assert make(built) == folder and len(built) == 1
    harm, words = DAMAGES[kind]
    harm(folder / "model.safetensors")
    with pytest.warns(CacheWarning, match=rf"m is damaged \({words}\); it is made again"):
        assert make(built) == folder
    assert len(built) == 2 and (folder / "model.safetensors").read_bytes() == b"weights" * 100
    assert make(built) == folder and len(built) == 2


def test_a_removal_that_is_interrupted_leaves_nothing_that_is_read(
    built: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a damaged folder, whose list of checksums is the first to go."""
    folder = make(built)
    (folder / "model.safetensors").unlink()

    def stop(path: Path, **_) -> None:
        for manifest in Path(path).rglob(MANIFEST):
            manifest.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.warns(CacheWarning), pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", stop)
        make(built)
    assert (make(built) / "model.safetensors").exists() and len(built) == 2


def test_a_copy_is_looked_at_once_and_then_known(built: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(built)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert damage(folder) is None
    monkeypatch.setattr("llm_bridge.models.checksums._sha256", None)  # a further look computes no checksum
    assert damage(folder) is None


def test_a_folder_from_before_there_were_checksums_gets_them(built: list[Path]) -> None:
    folder = make(built)
    (folder / MANIFEST).unlink()
    assert damage(folder) is None and (folder / MANIFEST).exists()
    assert {path.name for path in folder.iterdir()} == {MANIFEST, "model.safetensors", "config.json", "parts"}


@pytest.mark.slow
def test_a_model_with_damaged_weights_loads_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny-arithmetic, from a copy of this machine's cache that is damaged: the same weights again."""
    whole = load_model("tiny-arithmetic")
    from llm_bridge.models.tiny import TinyRecipe, tiny_folder

    folder = tmp_path / TinyRecipe().key
    shutil.copytree(tiny_folder(), folder)
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path))
    flip(folder / "model.safetensors")
    with pytest.warns(CacheWarning, match="another checksum"):
        again = load_model("tiny-arithmetic")
    assert again.fingerprint == whole.fingerprint
