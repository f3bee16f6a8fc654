"""What signals in standard deviations share: which variance, and where eps enters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from theory.refusal import Refusal
from theory.rules.batch import Member, PerRollout
from theory.rules.signals.base import SignalSpec
from theory.rules.signals.moments import EpsPlace, rooted, spread


class Scaled(SignalSpec):
    """A signal divided by a spread: sqrt(var) + eps, sqrt(var + eps) or sqrt(max(var, eps)).

    Arguments:
        ddof: 0 (population variance) or 1 (sample variance).
        eps: >= 0, in units of reward ("std+eps") or of squared reward (the other two).
        eps_place: where eps enters.
    Errors: eps = 0 with a place other than "std+eps", since without eps there is no place.
    """

    ddof: Literal[0, 1] = 1
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    eps_place: EpsPlace = "std+eps"

    @model_validator(mode="after")
    def _eps_has_a_place_only_if_there_is_one(self) -> Scaled:
        if self.eps == 0 and self.eps_place != "std+eps":
            raise Refusal(
                f'{self.name} with eps = 0 is the same for eps_place "{self.eps_place}" and "std+eps"; '
                f'write eps_place "std+eps", or give eps > 0'
            )
        return self

    def scale(self, centre: PerRollout, member: Member, weight: PerRollout | None = None) -> PerRollout:
        """(R,) the spread of the centred values over the members of each rollout."""
        return spread(centre, member, self.ddof, self.eps, self.eps_place, weight)

    def root(self, variance: PerRollout) -> PerRollout:
        """(R,) the spread of a variance."""
        return rooted(variance, self.eps, self.eps_place)
