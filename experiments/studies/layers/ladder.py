"""The ladder: one TOML file per layer, each the difference to the layer below it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from experiments.studies.layers.configuration import Configuration
from theory.refusal import Refusal
from theory.rules.spec import Spec

FOLDER = Path(__file__).parent
Models = Literal["quick", "full", "never"]


class Row(Spec):
    """A variant as its file has it.

    Arguments:
        name: of the variant, unique within its layer.
        change: difference to what the layer stands on.
        models: the smallest run in which language models take part; the simulator runs every variant always.
    """

    name: str
    change: dict[str, Any] = Field(default={})
    models: Models = "full"


class LayerFile(Spec):
    """A layer as its file has it.

    Arguments:
        name, question: what the layer is called, and what it asks.
        change: difference to the layer below, which every variant here and every layer above has.
        shows: the variants that stand for the layer in the picture, of which a world takes the first that it runs;
            default the layer's first.
        variant: the layer's rows.
    """

    name: str
    question: str
    change: dict[str, Any] = Field(default={})
    shows: tuple[str, ...] = ()
    variant: tuple[Row, ...] = Field(min_length=1)


class Variant(NamedTuple):
    """One thing to run: `layer/name`."""

    layer: str
    number: int
    name: str
    configuration: Configuration
    change: Mapping[str, Any]
    models: Models

    @property
    def key(self) -> str:
        return f"{self.layer}/{self.name}"


class Layer(NamedTuple):
    """A rung: its variants, and the keys of those that its picture shows, the first that a world runs."""

    number: int
    name: str
    question: str
    shows: tuple[str, ...]
    variants: tuple[Variant, ...]


def merged(below: Mapping[str, Any], change: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """`below` with the fields of `change` in place; a table of another kind replaces the old one whole.

    Errors: Refusal for a field that has this value already.
    """
    out = dict(below)
    for field, value in change.items():
        old = below.get(field)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and _alike(value, old):
            inside = {k: v for k, v in value.items() if k != "kind"}
            if not inside:
                raise Refusal(
                    f"{at}{field} is of kind {old.get('kind')!r} in the layer below already; leave it out"
                )
            out[field] = merged(old, inside, f"{at}{field}.")
        elif field in below and old == value:
            raise Refusal(f"{at}{field} = {value!r} is so in the layer below already; leave it out")
        else:
            out[field] = value
    return out


def _alike(change: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Whether a change goes into the table below: it names the same kind, or none."""
    return change.get("kind", below.get("kind")) == below.get("kind")


def read_ladder(folder: Path = FOLDER) -> list[Layer]:
    """The layers of a folder's files `0-name.toml`, `1-name.toml`, ..., from the bottom.

    Errors: Refusal naming the file, the variant, the field and the fix: unknown fields, a change that changes
    nothing, two variants that are one, a layer that is missing.
    """
    layers: list[Layer] = []
    below: dict[str, Any] = {}
    for number, path in enumerate(_files(folder)):
        file = _read(path)
        try:
            base = merged(below, file.change)
            rows = [(row, base if not row.change else merged(base, row.change)) for row in file.variant]
        except Refusal as error:
            raise Refusal(f"{path.name}: {error}") from error
        variants = tuple(_variants(number, file, rows, path))
        names = [row.name for row in file.variant]
        shows = file.shows or names[:1]
        if unknown := [name for name in shows if name not in names]:
            raise Refusal(f"{path.name}: shows = {unknown[0]!r} is no variant; choose {', '.join(names)}")
        shown = tuple(f"{file.name}/{name}" for name in shows)
        layers.append(Layer(number, file.name, file.question, shown, variants))
        below = base
    _all_different(layers)
    return layers


def _files(folder: Path) -> Iterator[Path]:
    found = sorted(folder.glob("[0-9]-*.toml"))
    for number, path in enumerate(found):
        if not path.name.startswith(f"{number}-"):
            raise Refusal(f"{folder} has no file {number}-NAME.toml; number the layers from 0 without a gap")
        yield path
    if not found:
        raise Refusal(f"{folder} holds no layer; write 0-NAME.toml, 1-NAME.toml, ...")


def _read(path: Path) -> LayerFile:
    try:
        return LayerFile.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, Refusal) as error:
        raise Refusal(f"{path.name}: {error}") from error


def _variants(
    number: int, file: LayerFile, rows: Sequence[tuple[Row, dict[str, Any]]], path: Path
) -> Iterator[Variant]:
    for row, fields in rows:
        try:
            made = Configuration.model_validate(fields)
        except Refusal as error:
            raise Refusal(f"{path.name}: variant {row.name!r}: {error}") from error
        yield Variant(file.name, number, row.name, made, {**file.change, **row.change}, row.models)


def _all_different(layers: Sequence[Layer]) -> None:
    """No two variants run the same thing: a comparison names the one that is there."""
    seen: dict[str, str] = {}
    for variant in (v for layer in layers for v in layer.variants):
        data = variant.configuration.model_dump_json()
        if data in seen:
            raise Refusal(
                f"{variant.key} is the same as {seen[data]}: its change changes nothing; leave it out"
            )
        seen[data] = variant.key
    keys = [v.key for layer in layers for v in layer.variants]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise Refusal(f"{twice[0]} is there twice; give each variant a name of its own")
