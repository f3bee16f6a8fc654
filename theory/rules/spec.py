"""The base of every specification: frozen, and closed to fields it does not know."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]


class Spec(BaseModel):
    """Frozen pydantic model; an unknown field is an error, defaults are checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
