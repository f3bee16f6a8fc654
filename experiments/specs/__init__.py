"""Specifications: everything that determines a run, as data. Importing them loads neither torch nor JAX."""

from llm_bridge.probe.spec import ProbeSpec

from experiments.specs import RunSpec
from experiments.specs.file_spec import FileSpec, mark_of, write_toml
from experiments.specs.parts import ForecastSpec, HeldOut, ModelSpec, RelineariseSpec

__all__ = [
    "FileSpec",
    "ForecastSpec",
    "HeldOut",
    "ModelSpec",
    "ProbeSpec",
    "RelineariseSpec",
    "RunSpec",
    "mark_of",
    "write_toml",
]
