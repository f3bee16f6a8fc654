"""The registry of engines: every row is what it says, and reading it loads no JAX."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

import bandit_sim
from bandit_sim.engines.engine import Engine
from bandit_sim.engines.registry import ENGINES, engine_for, engines_of


@pytest.mark.parametrize("name", ENGINES)
def test_a_row_names_an_engine_and_its_arms(name):
    row = ENGINES[name]
    home, _, kind = row.arms.rpartition(".")
    arms = object.__new__(getattr(import_module(home), kind))
    assert name in engines_of(arms)
    module = import_module(row.module)
    if row.own_loop:
        assert callable(module.run)
        with pytest.raises(
            TypeError, match=rf"arms is a {kind}; give .*Arms.*ArmClasses, LazyTree run by `simulate`"
        ):
            engine_for(arms)
    else:
        assert isinstance(module, Engine) and engine_for(arms) is module


def test_what_is_no_arms_has_no_engine():
    assert engines_of([0.5, 0.5]) == ()
    with pytest.raises(TypeError, match=r"arms is a int; give .*Arms"):
        engine_for(3)  # pyright: ignore[reportArgumentType]


def test_a_name_is_never_hidden_by_the_module_that_holds_it():
    named = [name for names in bandit_sim.MODULES.values() for name in names]
    assert sorted(named) == sorted(bandit_sim.__all__) == dir(bandit_sim)
    assert not set(named) & {module.name for module in iter_modules(bandit_sim.__path__)}
    for name in named:
        assert getattr(bandit_sim, name).__name__ == name
    with pytest.raises(AttributeError, match="dir\\(bandit_sim\\)"):
        _ = bandit_sim.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_is_loaded_before_it_is_used():
    code = (
        "import sys, bandit_sim, bandit_sim.engines.registry, bandit_sim.rounds.observe\n"
        "import experiments.simulation.simulation\n"
        "before = 'jax' in sys.modules\n"
        "bandit_sim.simulate\n"
        "print(before, 'jax' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
