"""Which evaluation items may not be in what is trained on."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from manifest.fields import RecipeModel

PLAIN_NAME = re.compile(r"[\w.-]+").fullmatch
RESERVED = ("uri", "bytes", "sha256")  # keys that no identity counts
LOCAL = ("/", "./", "../")
"""How a pattern begins that is not relative to --raw."""


class Evaluation(RecipeModel):
    """An evaluation set. files: a glob, or several, relative to --raw as those of sources are; or, beginning with `/`,
    `./` or `../`, a local path; or a URI. fields: what of a record is the item, in this order; dots go into mappings
    and lists. id: the field that names an item; without it, it is known by file and line.
    """

    files: tuple[str, ...] = Field(min_length=1)
    fields: tuple[str, ...] = Field(min_length=1)
    id: str | None = None

    @field_validator("files", "fields", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @field_validator("files")
    @classmethod
    def _below_raw(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in files:
            if not is_local(pattern) and ".." in pattern.split("/"):
                raise ValueError(f"{pattern!r} is not below --raw; begin it with './' or '../' if it is a local path")
        return files

    @field_validator("fields")
    @classmethod
    def _each_once(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fields)) < len(fields):
            raise ValueError(f"a field is named twice: {', '.join(fields)}")
        return fields


class Decontaminate(RecipeModel):
    """A document is contaminated if it has `ngram` words in a row of an item; docs/decontamination.md says what a word
    is. remove: it leaves training, and with it the cluster that it is in. report: it stays, and is reported.
    """

    against: dict[str, Evaluation] = Field(min_length=1)
    ngram: int = Field(13, ge=2, le=64)
    action: Literal["remove", "report"] = "remove"

    @field_validator("against")
    @classmethod
    def _plain_names(cls, against: dict[str, Evaluation]) -> dict[str, Evaluation]:
        for name in against:
            if not PLAIN_NAME(name) or name in RESERVED:
                raise ValueError(
                    f"evaluation set {name!r}: use letters, digits, '_', '.' and '-', and no name of {RESERVED}"
                )
        return against


def is_local(pattern: str) -> bool:
    """Whether a pattern is a path or a URI of its own, and not relative to --raw."""
    return pattern.startswith(LOCAL) or "://" in pattern
