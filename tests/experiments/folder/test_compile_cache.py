"""Compiled code is kept where it may be, and its absence costs a warning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.folder.compile_cache import SWITCH, CompileCacheWarning, folder, keep_compiled
from llm_bridge.models.cache import cache_directory


@pytest.fixture
def jax_settings() -> Iterator[None]:
    """What the test sets is put back."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("jax_settings")
def test_compiled_code_lands_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path))
    monkeypatch.delenv(SWITCH, raising=False)
    assert keep_compiled() and folder() == cache_directory() / "compiled"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: x * 3.14159 + 1)(2.0)
    assert any(folder().iterdir())


@pytest.mark.usefixtures("jax_settings")
def test_a_folder_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv(SWITCH, raising=False)
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.warns(
        CompileCacheWarning, match=r"cannot be written .*set ONEARM_CACHE.*or ONEARM_COMPILE_CACHE"
    ):
        assert not keep_compiled()
    assert jax.config.jax_compilation_cache_dir == before  # pyright: ignore[reportAttributeAccessIssue]


def test_it_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEARM_CACHE", str(tmp_path))
    monkeypatch.setenv(SWITCH, "off")
    assert not keep_compiled() and not any(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["ONEARM_CACHE", "XDG_CACHE_HOME", None])
def test_it_is_beside_the_models(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules know the folder, for one of them must not import torch."""
    for name in ("ONEARM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "~/somewhere")
    assert folder() == cache_directory() / "compiled"
