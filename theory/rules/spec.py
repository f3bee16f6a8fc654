"""The base of every specification: frozen, and closed to fields it does not know."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from theory.refusal import Refusal

S = TypeVar("S", bound="Spec")
Count = Annotated[int, Field(ge=1)]


class Spec(BaseModel):
    """Frozen pydantic model; an unknown field is an error, defaults are checked like given values.

    Errors: Refusal naming each field that is wrong, what it was given, and what it takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise Refusal(said(error)) from None

    @classmethod
    def model_validate(cls: type[S], obj: Any, **options: Any) -> S:
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise Refusal(said(error)) from None


def said(error: ValidationError) -> str:
    """What is wrong, field by field, in one line."""
    parts = []
    for item in error.errors():
        if item["type"] == "default_factory_not_called":
            continue  # what a field would be follows from one that is itself named here
        field = ".".join(str(x) for x in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        # A validator's own words name the value, and what is missing has none.
        if item["type"] not in ("value_error", "missing"):
            text += f", not {_short(item['input'])}"
        parts.append(f"{field}: {text}" if field else text)
    return "; ".join(parts)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
