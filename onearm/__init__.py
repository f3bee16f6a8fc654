"""The front door: what a user needs, under one name. Nothing is implemented here, and nothing loaded before it is used.

A theorist's `onearm.simulate` never loads torch, an experimenter's `onearm.probe` never loads JAX, and the rules and
laws need neither: `pip install onearm` is the core alone, `onearm[sim]` the simulator, `onearm[llm]` everything that
probing, forecasting and training a language model takes.

Errors: Refusal with the pip command where a name needs an extra that is not installed; ImportError where another
package hides one of ours.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onearm import shadow

if TYPE_CHECKING:
    from bandit_sim import (
        ArmClasses,
        Arms,
        Contexts,
        LazyTree,
        ParticleArms,
        TokenTree,
        TreeArms,
        displacement,
        expected_step,
        forest,
        replay,
        simulate,
        simulate_grid,
        synthetic_forest,
    )
    from experiments.run.run import Run
    from experiments.specs import ForecastSpec, HeldOut, ModelSpec, ProbeSpec, RelineariseSpec, RunSpec
    from experiments.verbs import explain, forecast, overlay, probe, screen
    from llm_bridge.models.language_model import load_model
    from llm_bridge.network.specs import AdapterSpec, FullSpec
    from llm_bridge.queries.query import Query
    from llm_bridge.queries.sources import parse_source
    from theory import rules
    from theory.curves import Curves
    from theory.laws import LAWS, Law, law
    from theory.pay import Clean, Format, NegativeOnly, Noisy, Overlong, PlusMinus, Shaped
    from theory.refusal import Refusal
    from theory.rules.dialects import preset
    from theory.rules.rule import Rule
    from theory.rules.trl import from_trl
    from theory.trees.synthetic_tree import synthetic_tree
    from theory.warning import CacheWarning, ForecastWarning, QueryWarning

    __version__: str

shadow.check()

MODULES = {
    # the theorist
    "bandit_sim": (
        "ArmClasses", "Arms", "Contexts", "LazyTree", "ParticleArms", "TokenTree", "TreeArms", "displacement",
        "expected_step", "forest", "replay", "simulate", "simulate_grid", "synthetic_forest",
    ),
    "theory.pay": ("Clean", "Format", "NegativeOnly", "Noisy", "Overlong", "PlusMinus", "Shaped"),
    "theory": ("rules",),
    "theory.curves": ("Curves",),
    "theory.laws": ("LAWS", "Law", "law"),
    "theory.rules.dialects": ("preset",),
    "theory.rules.rule": ("Rule",),
    "theory.rules.trl": ("from_trl",),
    "theory.trees.synthetic_tree": ("synthetic_tree",),
    # the experimenter
    "experiments.run.run": ("Run",),
    "experiments.specs": ("ForecastSpec", "HeldOut", "ModelSpec", "ProbeSpec", "RelineariseSpec", "RunSpec"),
    "experiments.verbs": ("explain", "forecast", "overlay", "probe", "screen"),
    "llm_bridge.models.language_model": ("load_model",),
    "llm_bridge.network.specs": ("AdapterSpec", "FullSpec"),
    "llm_bridge.queries.query": ("Query",),
    "llm_bridge.queries.sources": ("parse_source",),
    # both
    "theory.refusal": ("Refusal",),
    "theory.warning": ("CacheWarning", "ForecastWarning", "QueryWarning"),
}  # fmt: skip
"""Where each name is implemented: module -> names. The imports above say the same to type checkers and editors."""


__all__ = [
    "LAWS",
    "AdapterSpec",
    "ArmClasses",
    "Arms",
    "CacheWarning",
    "Clean",
    "Contexts",
    "Curves",
    "ForecastSpec",
    "ForecastWarning",
    "Format",
    "FullSpec",
    "HeldOut",
    "Law",
    "LazyTree",
    "ModelSpec",
    "NegativeOnly",
    "Noisy",
    "Overlong",
    "ParticleArms",
    "PlusMinus",
    "ProbeSpec",
    "Query",
    "QueryWarning",
    "Refusal",
    "RelineariseSpec",
    "Rule",
    "Run",
    "RunSpec",
    "Shaped",
    "TokenTree",
    "TreeArms",
    "__version__",
    "displacement",
    "expected_step",
    "explain",
    "forecast",
    "forest",
    "from_trl",
    "law",
    "load_model",
    "overlay",
    "parse_source",
    "preset",
    "probe",
    "replay",
    "rules",
    "screen",
    "simulate",
    "simulate_grid",
    "synthetic_forest",
    "synthetic_tree",
]

_MODULE_OF = {name: module for module, names in MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The name, imported from where it is implemented, and kept; see MODULES."""
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULE_OF:
        value = _opened(name)
    else:
        raise AttributeError(f"module 'onearm' has no attribute {name!r}; dir(onearm) lists what it has")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _opened(name: str) -> Any:
    from theory.extras import refusing

    home = _MODULE_OF[name]
    with refusing(wanted="llm" if home.startswith(("experiments", "llm_bridge")) else None):
        module = import_module(home)
        # `bandit_sim` imports what has the name only now; `theory.rules` is a module that its parent has as an
        # attribute only once it is imported.
        return getattr(module, name) if hasattr(module, name) else import_module(f"{home}.{name}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onearm")
    except PackageNotFoundError:
        return "0+unknown"  # a folder of sources that was never installed
