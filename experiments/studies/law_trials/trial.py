"""A law's trial: what it is held against, by one function, and how well the two agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.laws import LAWS
from theory.laws.arguments import Floats, whole
from theory.refusal import Refusal

ERRORS = 4.5
"""Standard errors within which a law and the mean over seeds agree: false alarm 7e-6 a point."""


class Sample(NamedTuple):
    """How many seeds a trial runs, and the number every draw follows from."""

    seeds: int
    seed: int = 0


class Seen(NamedTuple):
    """What a trial shows of one series of its law.

    Arguments (N points):
        at: (N,) places along the law's abscissa.
        mean: (N,) mean over seeds, or the exact value.
        error: (N,) its standard error; 0 for an exact value.
        band: (2, N) 5% and 95% over seeds, or None.
        sense: "=" the law predicts it, "<=" the law is an upper bound of it, ">=" a lower one.
    """

    at: NDArray[np.intp]
    mean: Floats
    error: Floats
    band: Floats | None = None
    sense: Literal["=", "<=", ">="] = "="


@dataclass(frozen=True)
class Trial:
    """How a law is held to account; one row per law.

    Arguments:
        law: its name.
        against: what it is held against, in one line.
        run: (x, sample, parameters of the law ...) -> the law's series name -> what was seen of it; x is the
            law's abscissa. A parameter of the law that `run` does not take is fixed by `where`.
        within: what the law may miss beside `ERRORS` standard errors, as stated before it was run: 0 for an exact
            law, the order of its neglected terms for another.
        relative: misses are shares of the law's value, not differences.
        seeds: seeds by default; 0 for an exact calculation, which has none.
        where: parameters in which the trial departs from the law's defaults, so that the law is valid and seen.
    """

    law: str
    against: str
    run: Callable[..., Mapping[str, Seen]]
    within: float = 0.0
    relative: bool = False
    seeds: int = 1000
    where: Mapping[str, Any] = field(default_factory=dict)

    @property
    def free(self) -> set[str]:
        """The law's parameters that the trial takes."""
        return set(inspect.signature(self.run).parameters) - {"x", "sample"}

    def __call__(self, seeds: int | None = None, seed: int = 0, **given: Any) -> Held:
        """Run it. Errors: Refusal for a parameter that the trial fixes, or seeds of a trial without any."""
        if seeds is not None and not self.seeds:
            raise Refusal(f"law {self.law} is held against {self.against}, without seeds; leave seeds out")
        fixed = sorted(set(given) - self.free)
        row = LAWS[self.law]
        if fixed and fixed[0] in row.parameters:
            raise Refusal(
                f"the simulation of law {self.law} fixes {fixed[0]}; leave it out, or draw the law without simulation"
            )
        parameters = {**self.where, **given}
        series = row(**parameters)
        x, sample = next(iter(series.values())), Sample(whole("seeds", seeds or self.seeds, 0), seed)
        passed = {**row.parameters, **parameters}
        seen = self.run(x, sample, **{name: passed[name] for name in self.free})
        return Held(self, {**row.parameters, **parameters}, sample.seeds, series, dict(seen))


@dataclass(frozen=True)
class Held:
    """A law's curve, what its trial showed, and their agreement."""

    trial: Trial
    parameters: dict[str, Any]
    seeds: int
    series: dict[str, Floats]
    seen: dict[str, Seen]

    @property
    def miss(self) -> float:
        """Largest |law - seen| of the series that the law predicts, absolute or relative as the trial says; else 0."""
        return max((float(miss.max()) for _, miss, _ in self._misses()), default=0.0)

    @property
    def errors(self) -> float:
        """Largest |law - seen| in standard errors of the mean over seeds; 0 where nothing is random."""
        certain = 1e-7  # below it all seeds agree, as at round 0
        random = [m[e > certain] / e[e > certain] for _, m, e in self._misses()]
        return float(max((z.max() for z in random if z.size), default=0.0))

    @property
    def used(self) -> float:
        """Largest share of a bound that is used up: above 1 it is violated; 0 without a bound."""
        shares = [0.0]
        for name, s in self.seen.items():
            law = self.series[name][s.at]
            if s.sense != "=":
                shares.append(float(np.max(s.mean / law if s.sense == "<=" else law / s.mean)))
        return max(shares)

    @property
    def points(self) -> int:
        return sum(len(s.at) for s in self.seen.values())

    @property
    def holds(self) -> bool:
        """Whether every point is within `ERRORS` standard errors and what the law may miss, and every bound is kept."""
        near = all(
            np.all(miss <= ERRORS * error + self.trial.within + 1e-9) for _, miss, error in self._misses()
        )
        return bool(near and self.used <= 1)

    def __str__(self) -> str:
        parts = []
        if any(s.sense == "=" for s in self.seen.values()):
            miss = f"{100 * self.miss:.2g}%" if self.trial.relative else f"{self.miss:.2g}"
            parts.append(f"off by {miss} at most" + (f", {self.errors:.1f} se" if self.errors else ""))
        if self.used:
            parts.append(f"{100 * self.used:.2g}% of the bound used")
        return "; ".join(parts) + ("" if self.holds else " (more than stated)")

    def numbers(self) -> dict[str, Any]:
        """Everything as plain numbers, for JSON."""
        return {
            **self.summary(),
            "points": {
                name: {
                    "at": next(iter(self.series.values()))[s.at].tolist(),
                    "law": self.series[name][s.at].tolist(),
                    "seen": s.mean.tolist(),
                    "error": s.error.tolist(),
                    "sense": s.sense,
                }
                for name, s in self.seen.items()
            },
        }

    def summary(self) -> dict[str, Any]:
        """Their agreement alone."""
        return {
            "law": self.trial.law,
            "against": self.trial.against,
            "parameters": self.parameters,
            "seeds": self.seeds,
            "agreement": str(self),
            "miss": self.miss,
            "relative": self.trial.relative,
            "within": self.trial.within,
            "standard_errors": self.errors,
            "bound_used": self.used,
            "holds": self.holds,
        }

    def _misses(self) -> list[tuple[str, Floats, Floats]]:
        found = []
        for name, s in self.seen.items():
            if s.sense == "=":
                law = self.series[name][s.at]
                scale = np.abs(law) if self.trial.relative else np.ones_like(law)
                found.append((name, np.abs(law - s.mean) / scale, s.error / scale))
        return found
