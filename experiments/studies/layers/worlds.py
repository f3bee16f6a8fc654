"""Where variants are run: the simulator, and language models by name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel, ValidationError

from experiments.studies.layers.models import ModelWorld
from experiments.studies.layers.simulator import SimulatorWorld
from theory.refusal import Refusal

World = Annotated[SimulatorWorld | ModelWorld, Field(discriminator="kind")]
FILE = Path(__file__).parent / "worlds.toml"


class Worlds(RootModel[dict[str, World]]):
    """Worlds by name, in the order in which they run."""


def read_worlds(path: Path = FILE) -> dict[str, SimulatorWorld | ModelWorld]:
    """Errors: Refusal naming the file and the field."""
    try:
        return Worlds.model_validate(tomllib.loads(path.read_text())).root
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise Refusal(f"{path}: {error}") from error
