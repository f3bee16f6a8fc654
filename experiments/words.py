"""Numbers as a reader sees them, in tables of the command line and of pages."""

from __future__ import annotations

from typing import Any


def text_of(value: Any) -> str:
    """Four digits of a number, a list without brackets, a dash for what is not there."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(text_of(v) for v in value)
    return "-" if value is None else str(value)
