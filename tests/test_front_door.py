"""`import onearm`: every name opens, lazily; a missing extra and a package that hides ours are said in one line."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import onearm
from theory.extras import EXTRAS, missing, refusing, require
from theory.refusal import Refusal

ROOT = Path(__file__).parents[1]
OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Loaded by those we ask for, and imported by name here and there.
BROUGHT = {"jaxlib", "huggingface_hub"}

# The machine as it is where extras are not installed: their modules are found by nobody.
WITHOUT = """
import sys
from theory.extras import EXTRAS
hidden = {name for names in EXTRAS.values() for name in names}

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def fresh(code: str, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A fresh process in a folder, which Python searches first, as it does for a user's own scripts."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    call = [sys.executable, *(words or ("-c", code))]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_table_the_types_and_the_list_of_names_agree():
    typed: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(Path(onearm.__file__).read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    typed.setdefault(line.module, set()).update(alias.name for alias in line.names)
    assert typed == {module: set(names) for module, names in onearm.MODULES.items()}
    named = [name for names in onearm.MODULES.values() for name in names]
    assert sorted([*named, "__version__"]) == sorted(onearm.__all__) == dir(onearm)


def test_every_name_opens():
    for name in onearm.__all__:
        assert getattr(onearm, name) is not None, name
    with pytest.raises(AttributeError, match="dir\\(onearm\\)"):
        _ = onearm.nothing  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("modules", "foreign"),
    [
        ((), ("numpy", "pydantic", "theory", "jax", "torch")),
        (("theory", "bandit_sim"), ("torch", "transformers")),
        (("experiments", "llm_bridge"), ("jax", "optax")),
    ],
    ids=["import onearm", "theorist", "experimenter"],
)
def test_a_name_loads_only_its_own_side(modules, foreign, tmp_path):
    code = f"""
import sys, onearm
for module, names in onearm.MODULES.items():
    if module.partition(".")[0] in {modules}:
        for name in names:
            getattr(onearm, name)
print([name for name in {foreign} if name in sys.modules])
"""
    ran = fresh(code, tmp_path)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr


def test_every_requirement_of_an_extra_is_known_by_its_import_name():
    for extra, modules in EXTRAS.items():
        asked = {line.replace("-", "_") for line in OPTIONAL[extra] if not line.startswith("onearm[")}
        assert asked == set(modules) - BROUGHT, extra


def test_an_extra_that_is_missing_is_refused_and_a_bug_is_not(monkeypatch):
    assert "pip install 'onearm[sim]'" in str(missing(ModuleNotFoundError(name="jax.numpy")))
    assert "pip install 'onearm[llm]'" in str(missing(ModuleNotFoundError(name="jax"), wanted="llm"))
    assert missing(ModuleNotFoundError(name="theory.no_such_module")) is None
    assert missing(ImportError("cannot import name 'x' from 'jax'", name="jax")) is None
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), refusing():
        import theory.no_such_module  # pyright: ignore[reportMissingImports]  # noqa: F401
    require("llm")
    monkeypatch.setitem(EXTRAS, "sim", ("no_such_module", *EXTRAS["sim"]))
    with pytest.raises(Refusal, match=r"needs no_such_module, not installed; pip install 'onearm\[llm\]'"):
        require("llm")


def test_the_core_alone_has_rules_laws_and_a_command_line(tmp_path):
    code = f"""{WITHOUT}
import numpy as np, onearm
print(onearm.law("birth-chain")(p0=0.05, rounds=4)["mean"][0].round(6))
rule = onearm.preset("rloo", eta=0.1, rollouts=2)
log = np.log([[0.5], [0.2]])
batch = onearm.rules.Batch(log, log, log, np.array([1.0, 0.0]), np.zeros(2, int), np.ones((2, 1), bool))
print(rule.weights(batch)[0].ravel().tolist())
for name in ("simulate", "Run", "load_model"):
    try:
        getattr(onearm, name)
    except onearm.Refusal as refusal:
        print(refusal)
"""
    ran = fresh(code, tmp_path)
    said = ran.stdout.splitlines()
    assert said[:3] == [
        "0.05", "[0.5, -0.5]",
        "jax is not installed; pip install 'onearm[sim]'",
    ], ran.stdout + ran.stderr  # fmt: skip
    assert len(said) == 5, ran.stdout + ran.stderr
    for line in said[3:]:  # which of the missing ones is met first is no promise
        module, _, rest = line.partition(" ")
        assert module in (*EXTRAS["sim"], *EXTRAS["llm"]), line
        assert rest == "is not installed; pip install 'onearm[llm]'"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "study"),
        (["law", "kappa"], 0, "endless"),
        (["doctor"], 0, "memory"),
        (["overlay"], 2, "pip install 'onearm[llm]'"),
        (["simulate"], 2, "pip install 'onearm[sim]'"),
        (["study", "gallery"], 2, "pip install 'onearm[sim]'"),
    ],
)
def test_the_command_line_of_the_core_alone(words, code, said, tmp_path):
    ran = fresh(
        f"{WITHOUT}\nsys.argv = ['onearm', *{words}]\nfrom onearm.__main__ import main\nmain()", tmp_path
    )
    assert ran.returncode == code and said in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    if code:
        assert "Traceback" not in ran.stderr
        assert next(line for line in ran.stderr.splitlines() if said in line).startswith("error: ")


@pytest.mark.parametrize("theirs", ["experiments/__init__.py", "theory.py", "figures/__init__.py"])
def test_a_package_that_hides_ours_is_named(theirs, tmp_path):
    path = tmp_path / theirs
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('their code was run')")
    name = theirs.partition("/")[0]
    ran = fresh("import onearm", tmp_path)
    assert ran.returncode == 1
    said = ran.stderr.splitlines()[-1]
    assert said.startswith("ImportError: ")
    assert str(tmp_path / name) in said and str(ROOT / name.removesuffix(".py")) in said and "rename" in said
    script = "import sys; sys.argv = ['/somewhere/bin/onearm']; from onearm.__main__ import main; main()"
    for command in (("-m", "onearm", "law", "kappa"), ("-c", script)):
        ran = fresh("", tmp_path, *command)
        (line,) = ran.stderr.splitlines()
        assert ran.returncode == 2 and line == said.replace("ImportError", "error")


EDITABLE = f"""
import sys
from importlib.machinery import PathFinder
class Editable:
    # As `pip install -e` has it: asked last, after every folder of sys.path.
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{str(ROOT)!r}]) if path is None else None
sys.path.remove({str(ROOT)!r})
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in finder.__module__] + [Editable]
"""


@pytest.mark.parametrize("installed", ["", EDITABLE], ids=["installed", "for editing"])
def test_a_folder_without_a_package_hides_nothing(installed, tmp_path):
    (tmp_path / "figures").mkdir()
    ran = fresh(f"{installed}\nimport onearm, figures; print(onearm.__version__, figures.__file__)", tmp_path)
    assert ran.stdout.split() == [onearm.__version__, str(ROOT / "figures" / "__init__.py")], ran.stderr


def test_a_verb_takes_a_run_or_a_spec_and_a_folder(tmp_path):
    spec = onearm.RunSpec(
        queries=onearm.Query(prompt="3+4=", answer="7", verifier="integer"),
        model=onearm.ModelSpec(name="tiny-arithmetic"),
        rule=onearm.preset("minimalist", eta=0.005),
        probe=onearm.ProbeSpec(rollouts=64),
        max_tokens=3,
    )
    with pytest.raises(Refusal, match="out is missing"):
        onearm.forecast(spec)
    run = onearm.Run(spec, tmp_path / "run")
    with pytest.raises(Refusal, match="has its folder"):
        onearm.probe(run, tmp_path)
    (found,), (again,) = onearm.probe(run).probes, onearm.probe(spec, str(tmp_path / "run")).probes
    assert found.p0 == again.p0
    with pytest.raises(Refusal, match="holds no finished run"):
        onearm.explain(run)
