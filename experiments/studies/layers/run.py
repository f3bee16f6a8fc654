"""The runner: each variant in each world is predicted, and only then run. Killed at any point, it goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.folder import store
from experiments.specs import write_toml
from experiments.studies.layers.ladder import Layer, Variant
from experiments.studies.layers.record import (
    Prediction,
    Result,
    fingerprint,
    hash_of,
    now,
    read_prediction,
    read_result,
    write_end,
    write_prediction,
    write_result,
)
from experiments.studies.layers.worlds import ModelWorld, SimulatorWorld
from theory.refusal import Refusal

Scale = Literal["quick", "full"]
AnyWorld = SimulatorWorld | ModelWorld
EXPECTATIONS = "expectations.json"


class Cell(NamedTuple):
    """One variant in one world: what is run, in which folder; or why it is not."""

    world: str
    variant: Variant
    folder: Path
    spec: Any
    refused: str | None

    @property
    def prediction(self) -> Prediction | None:
        return None if self.spec is None else read_prediction(self.folder, hash_of(self.spec))

    @property
    def result(self) -> Result | None:
        """The result, if it is whole, with its end measured, and the prediction is the one it was run after."""
        found = self.ran
        return None if found is None or (found.rollouts and found.end is None) else found

    @property
    def ran(self) -> Result | None:
        """The result, its end measured or not yet."""
        if self.prediction is None:
            return None
        found = read_result(self.folder, hash_of(self.spec))
        if found is not None and found.prediction != fingerprint(self.folder):
            raise Refusal(
                f"{self.folder}: the prediction was changed after the run it is about; delete the folder and run again"
            )
        return found


def cells(
    layers: Sequence[Layer], worlds: dict[str, AnyWorld], scale: Scale, out: Path, layer: int | None = None
) -> Iterator[Cell]:
    """All that a run of this scale is made of, world by world; what a world refuses is there with its reason."""
    for name, world in worlds.items():
        for variant in (v for row in layers for v in row.variants):
            if (layer is not None and variant.number != layer) or not world.takes_part(variant.models, scale):
                continue
            refused = world.refusal(variant.configuration, scale)
            spec = None if refused else world.spec(variant.configuration, scale)
            folder = out / name / f"{variant.number}-{variant.layer}-{variant.name}"
            yield Cell(name, variant, folder, spec, refused)


def most_wanted_first(todo: Sequence[Cell], wanted: Sequence[str]) -> list[Cell]:
    """World by world, the variants in the order in which they are wanted, then the rest: so that a night cut short has
    answered as many findings as it could."""
    worlds, rank = list(dict.fromkeys(cell.world for cell in todo)), {key: i for i, key in enumerate(wanted)}
    return sorted(todo, key=lambda cell: (worlds.index(cell.world), rank.get(cell.variant.key, len(rank))))


def run_cell(cell: Cell, world: AnyWorld) -> Result:
    """Run a cell, or find its result. Errors: Refusal where no prediction of this very spec was written before."""
    if cell.prediction is None:
        raise Refusal(
            f"{cell.world} {cell.variant.key} has no prediction of spec {hash_of(cell.spec)} in {cell.folder}; "
            "predict it before it is run"
        )
    if (found := cell.ran) is None:
        found = world.run(cell.variant.configuration, cell.spec, cell.folder)
        write_result(cell.folder, found)
    if isinstance(world, ModelWorld) and found.end is None:
        found = replace(found, end=world.end(cell.spec, cell.folder))
        assert found.end is not None
        write_end(cell.folder, found.end)
    return found


def predict(cell: Cell, world: AnyWorld) -> Prediction:
    """The prediction of a cell, made and written unless it is there."""
    if (found := cell.prediction) is not None:
        return found
    cell.folder.mkdir(parents=True, exist_ok=True)
    with store.replacing(cell.folder / "spec.toml") as temporary:
        write_toml(temporary, cell.spec)
    write_prediction(cell.folder, world.predict(cell.variant.configuration, cell.spec, cell.folder))
    made = cell.prediction
    assert made is not None
    return made


def mark_of_table(findings: Path) -> str:
    """12 hex digits that change with any letter of the table of findings."""
    return hashlib.sha256(findings.read_bytes()).hexdigest()[:12]


def expect(out: Path, findings: Path) -> None:
    """Note when which table of findings, with its predictions, was there: before anything else is run.

    A later table is noted beside the earlier ones, so that a prediction changed after a run shows.
    """
    path, mark = out / EXPECTATIONS, mark_of_table(findings)
    known: list[dict[str, str]] = json.loads(path.read_text())["tables"] if path.exists() else []
    if any(row["hash"] == mark for row in known):
        return
    out.mkdir(parents=True, exist_ok=True)
    store.write_json(path, {"tables": [*known, {"hash": mark, "noted": now(), "text": findings.read_text()}]})


def run(
    todo: Sequence[Cell],
    worlds: dict[str, AnyWorld],
    tell: Callable[[int, int, Cell, str], None] = lambda done, total, cell, what: None,
) -> None:
    """Predict and run every cell, one after the other; what is there is left as it is."""
    for i, cell in enumerate(todo):
        world = worlds[cell.world]
        if cell.refused is not None:
            tell(i, len(todo), cell, cell.refused)
            continue
        if cell.result is not None:
            tell(i, len(todo), cell, "there already")
            continue
        tell(i, len(todo), cell, "predict")
        predict(cell, world)
        tell(i, len(todo), cell, "run" if cell.ran is None else "measure success at the end")
        run_cell(cell, world)
