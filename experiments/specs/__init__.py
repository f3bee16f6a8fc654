"""Specifications: everything that determines a run, as data. Importing them loads neither torch nor JAX."""

from experiments.specs.file_spec import FileSpec, mark_of, write_toml
from experiments.specs.parts import ForecastSpec, HeldOut, ModelSpec, RelineariseSpec
from experiments.specs.run_spec import RunSpec
from llm_bridge.probe.spec import ProbeSpec

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
