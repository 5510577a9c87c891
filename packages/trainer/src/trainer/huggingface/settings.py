"""A config.json, read key by key, and errors that say what of it this decoder cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifest.errors import InputError

CONFIG = "config.json"


@dataclass(frozen=True)
class Settings:
    """What a config.json says. `file` is what errors name."""

    values: Mapping[str, Any]
    file: Path

    def integer(self, key: str, default: int | None = None) -> int:
        """A number of things; a default takes the place of a key that is not there or null. Raises InputError."""
        found = self._found(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise InputError(f"{self.file}: {key} is {found!r}; expected a whole number above 0")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        found = self._found(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise InputError(f"{self.file}: {key} is {found!r}; expected a number")
        return float(found)

    def flag(self, key: str, default: bool) -> bool:
        found = self._found(key, default)
        if not isinstance(found, bool):
            raise InputError(f"{self.file}: {key} is {found!r}; expected true or false")
        return found

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._found(key, default))

    def require(self, key: str, *allowed: object, default: object = None) -> None:
        """Raises InputError unless a setting has one of the values that the decoder has."""
        found = self.values.get(key, default)
        if found not in allowed:
            expected = " or ".join(repr(value) for value in allowed)
            raise InputError(f"{self.file}: {key} is {found!r}; Winnow's decoder has only {expected}")

    def _found(self, key: str, default: object) -> Any:
        found = self.values.get(key)
        if found is None and default is None:
            raise InputError(f"{self.file} has no {key}; it cannot be the whole configuration of this kind of model")
        return default if found is None else found


def read_settings(directory: Path) -> Settings:
    """The config.json of a directory. Raises InputError if there is none, or no JSON object in it."""
    file = directory / CONFIG
    if not file.is_file():
        raise InputError(f"{directory} has no {CONFIG}; give a directory that `save_pretrained` or Winnow has written")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}); restore it") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds a {type(values).__name__}; expected an object")
    return Settings(values, file)


def rope(settings: Settings, share: float = 1.0) -> dict[str, Any]:
    """`rotary_base` and `rotary_share` of an architecture, as transformers 5 or 4 write them.

    share: the part of a head that is rotated where the file does not say. Raises InputError for positions that are
    scaled.
    """
    values = settings.values
    written = values.get("rope_parameters") or values.get("rope_scaling") or {}
    kind = written.get("rope_type", written.get("type", "default"))
    if kind != "default":
        raise InputError(
            f"{settings.file}: positions are scaled (rope_type {kind!r}); Winnow's decoder has only plain RoPE"
        )
    found = {**values, **written}
    base = found.get("rope_theta", values.get("rotary_emb_base", 10000.0))
    part = found.get("partial_rotary_factor", values.get("rotary_pct", share))
    return {"position": "rope", "rotary_base": float(base), "rotary_share": float(part)}
