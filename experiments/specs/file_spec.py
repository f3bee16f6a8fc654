"""A spec that a folder is named by: written as TOML, read back, compared field by field, and hashed."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from theory.refusal import Refusal
from theory.rules.spec import Spec

F = TypeVar("F", bound="FileSpec")


class FileSpec(Spec):
    """A spec that a run folder is named by: spec.toml."""

    def write(self, path: Path) -> None:
        write_toml(path, self)

    @classmethod
    def read(cls: type[F], path: Path) -> F:
        """Errors: Refusal naming the file and the field."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, Refusal) as error:
            raise Refusal(f"{path}: {error}") from error

    def differences(self, other: FileSpec) -> list[str]:
        """Fields in which two specs differ, as 'field: old -> new'."""
        mine, theirs = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key}: {mine.get(key)} -> {theirs.get(key)}"
            for key in sorted(mine | theirs)
            if mine.get(key) != theirs.get(key)
        ]


def mark_of(data: Any) -> str:
    """12 hex digits of the SHA-256 of JSON-able data; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def write_toml(path: Path, spec: Spec) -> None:
    """A spec as TOML, which has no null: fields that are None are left out."""
    path.write_text(tomli_w.dumps(_without_none(spec.model_dump(mode="json"))))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {f"{prefix}{key}": item}
    return flat
