"""A law as a row of the table: what it says, where from, how it is checked, and a curve to print or draw."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from theory.laws.arguments import Floats
from theory.refusal import Refusal

Series = Mapping[str, ArrayLike]
# exact: at any size of its arguments; mean field: as eta -> 0; asymptotic: leading order of a stated limit.
Status = Literal["exact", "mean field", "asymptotic"]


@dataclass(frozen=True)
class Law:
    """One law.

    Arguments:
        name: how the command line calls it.
        source: paper and equation, or "derived".
        predicts: what it predicts, in one line.
        curve: keyword arguments, each with a default -> named (N,) series, the abscissa first.
        check: what the law is held against.
        status: how far it reaches.
    """

    name: str
    source: str
    predicts: str
    curve: Callable[..., Series]
    check: str
    status: Status

    @property
    def parameters(self) -> dict[str, Any]:
        """Name -> default of every parameter of the curve."""
        return {name: value.default for name, value in inspect.signature(self.curve).parameters.items()}

    def __call__(self, **parameters: Any) -> dict[str, Floats]:
        """The curve at the defaults, but for `parameters`. Errors: Refusal for a name it does not have."""
        unknown = set(parameters) - set(self.parameters)
        if unknown:
            raise Refusal(
                f"law {self.name} has no parameter {min(unknown)!r}; it has {', '.join(self.parameters)}"
            )
        series = self.curve(**parameters)
        return {name: np.atleast_1d(np.asarray(values, dtype=np.float64)) for name, values in series.items()}
