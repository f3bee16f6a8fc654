"""The findings: what a claim says of two variants, and what every world showed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, RootModel, ValidationError, model_validator

from experiments.studies.layers.judge import Claim, Effect, Verdict, effect, holm, p_values, together, verdict
from experiments.studies.layers.measures import MEASURES, ends_early, forecast_of
from experiments.studies.layers.record import Result
from experiments.studies.layers.run import Cell
from theory.laws import LAWS
from theory.refusal import Refusal
from theory.rules.spec import Spec

FILE = Path(__file__).parent / "findings.toml"


class Compare(Spec):
    """One measure of two variants, seed by seed.

    Arguments:
        upper, lower: keys of variants; without `lower` the measure of `upper` itself is judged.
        than: two further keys; then it is (upper - lower) - (than[0] - than[1]).
        measure: a name of `measures.MEASURES`.
        claims: what the source says of it.
        predicts: what theory says, written before the runs.
        margin: the size that matters, > 0.
    """

    upper: str
    lower: str | None = None
    than: tuple[str, str] | None = None
    measure: str
    claims: Claim
    predicts: Claim
    margin: Annotated[float, Field(gt=0)] = 0.05

    @model_validator(mode="after")
    def _measure_is_known(self) -> Compare:
        if self.measure not in MEASURES:
            raise Refusal(f"measure {self.measure!r} is unknown; choose {', '.join(MEASURES)}")
        return self

    @property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """Variants with their signs."""
        found = [(self.upper, 1), (self.lower, -1)]
        if self.than is not None:
            found += [(self.than[0], -1), (self.than[1], 1)]
        return tuple((key, sign) for key, sign in found if key is not None)

    @property
    def words(self) -> str:
        of = f"{self.upper} - {self.lower}" if self.lower else self.upper
        return f"{self.measure}: {of}" + (f" - ({self.than[0]} - {self.than[1]})" if self.than else "")


class Finding(Spec):
    """A claim of a paper, and the comparisons that bear it out or do not."""

    id: str
    source: str
    claim: str
    mechanism: str
    laws: tuple[str, ...]
    regime: str
    compare: Annotated[tuple[Compare, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _laws_are_known(self) -> Finding:
        if unknown := [law for law in self.laws if law not in LAWS]:
            raise Refusal(f"laws: {unknown[0]!r} is no law; `onearm law --list` has their names")
        return self


class Findings(RootModel[dict[Literal["finding"], tuple[Finding, ...]]]):
    """The table's file."""


def read_findings(path: Path = FILE, variants: Iterable[str] | None = None) -> tuple[Finding, ...]:
    """Errors: Refusal naming the file and the field, two findings of one id, or a variant that no layer has."""
    try:
        found = Findings.model_validate(tomllib.loads(path.read_text())).root["finding"]
    except (tomllib.TOMLDecodeError, ValidationError, KeyError) as error:
        raise Refusal(f"{path.name}: {error}") from error
    ids = [f.id for f in found]
    if twice := [i for i in ids if ids.count(i) > 1]:
        raise Refusal(f"{path.name}: finding {twice[0]} is there twice; give each an id of its own")
    known = None if variants is None else set(variants)
    for finding in found:
        for key in (key for compare in finding.compare for key, _ in compare.keys):
            if known is not None and key not in known:
                raise Refusal(f"{path.name}: finding {finding.id}: {key!r} is no variant of any layer")
    return found


@dataclass(frozen=True)
class Seen:
    """A comparison in one world: the effect, what was forecast of it, and whether it bears out claim and prediction."""

    world: str
    compare: Compare
    effect: Effect
    forecast: float | None
    ends_early: bool
    predicted_first: bool
    claim: Verdict
    prediction: Verdict
    p: float
    power: float


@dataclass(frozen=True)
class Row:
    """A finding with all that was seen of it, by comparison and world."""

    finding: Finding
    seen: list[Seen] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def by_world(self, of: Literal["claim", "prediction"] = "claim") -> dict[str, Verdict]:
        """What the comparisons that a world could run agree on."""
        worlds = list(dict.fromkeys(s.world for s in self.seen))
        return {w: together([getattr(s, of) for s in self.seen if s.world == w]) for w in worlds}

    @property
    def overall(self) -> str:
        if not self.seen:
            return "not run"
        found = together([s.claim for s in self.seen])
        return f"depends on: {self.finding.regime}" if found == "depends" else found


def judge(findings: Sequence[Finding], cells: Iterable[Cell]) -> list[Row]:
    """Every finding in every world that ran what it compares; p values are corrected over the whole table (Holm)."""
    worlds: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        worlds.setdefault(cell.world, {})[cell.variant.key] = cell
    drafts: list[tuple[int, str, Compare, Effect, Sequence[tuple[Cell, int]]]] = []
    rows = [Row(finding) for finding in findings]
    for i, finding in enumerate(findings):
        for world, there in worlds.items():
            for compare in finding.compare:
                reason = _missing(compare, there)
                if reason is not None:
                    rows[i].refused.setdefault(f"{world}: {compare.words}", reason)
                    continue
                used = [(there[key], sign) for key, sign in compare.keys]
                seen = difference([(cell.result, sign) for cell, sign in used], compare.measure)  # pyright: ignore[reportArgumentType]
                if seen is None:
                    rows[i].refused.setdefault(
                        f"{world}: {compare.words}", f"{compare.measure} is not measured here"
                    )
                    continue
                drafts.append((i, world, compare, seen, used))
    raw = [p_values(d[3], of, d[2].margin) for d in drafts for of in (d[2].claims, d[2].predicts)]
    flat = holm([p for pair in raw for p in pair])
    for n, (i, world, compare, seen, used) in enumerate(drafts):
        claim, against, prediction, other = flat[4 * n : 4 * n + 4]
        rows[i].seen.append(
            Seen(
                world, compare, seen, _forecast(used, compare.measure), _early(used, compare.measure), _first(used),
                verdict(claim, against), verdict(prediction, other), min(claim, against), seen.power(compare.margin),
            )
        )  # fmt: skip
    return rows


def difference(parts: Sequence[tuple[Result, int]], measure: str) -> Effect | None:
    """The signed sum of a measure over variants, paired where they share seeds: a seed's draws are the same in all."""
    values = [(MEASURES[measure](result), sign) for result, sign in parts]
    found = [(v, sign) for v, sign in values if v is not None]
    return effect(found) if len(found) == len(values) else None


def _missing(compare: Compare, there: Mapping[str, Cell]) -> str | None:
    for key, _ in compare.keys:
        if key not in there:
            return f"{key} is not run at this scale"
        if (reason := there[key].refused) is not None:
            return f"{key}: {reason}"
        if there[key].result is None:
            return f"{key} has not run yet"
    return None


def _forecast(used: Sequence[tuple[Cell, int]], measure: str) -> float | None:
    parts = [(cell.prediction and forecast_of(cell.prediction, measure), sign) for cell, sign in used]
    if any(value is None for value, _ in parts):
        return None
    return float(np.sum([sign * value for value, sign in parts if value is not None]))


def _early(used: Sequence[tuple[Cell, int]], measure: str) -> bool:
    return any(
        cell.prediction is not None
        and cell.result is not None
        and ends_early(cell.prediction, cell.result, measure)
        for cell, _ in used
    )


def _first(used: Sequence[tuple[Cell, int]]) -> bool:
    """Whether every prediction is older than the run it is about."""
    return all(
        cell.prediction is not None and cell.result is not None and cell.prediction.made < cell.result.started
        for cell, _ in used
    )
