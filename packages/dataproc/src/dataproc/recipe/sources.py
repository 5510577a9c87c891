"""Where text comes from, and what happens to a record before it is a document."""

from __future__ import annotations

from pathlib import PurePosixPath

from pydantic import Field, field_validator

from manifest.fields import RecipeModel

UNREADABLE_SHARE = 0.01


class Clean(RecipeModel):
    """What happens to a record before it is a document. min_chars counts the characters of `clean(text)`."""

    ftfy: bool = True
    min_chars: int = Field(200, ge=0)
    filters: tuple[str, ...] = ()
    max_unreadable: float = Field(UNREADABLE_SHARE, ge=0, le=1)

    @field_validator("filters")
    @classmethod
    def _no_filters_yet(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        if filters:
            raise ValueError("this version has no quality filters; leave the list empty")
        return filters


class Source(RecipeModel):
    """One source. `files` is a glob (or several) relative to --raw, in which `*` stays within a directory and `**`
    goes into those below. Any `clean` key may be overridden here.
    """

    files: tuple[str, ...] = Field(min_length=1)
    text: str = "text"
    id: str | None = None
    ftfy: bool | None = None
    min_chars: int | None = Field(None, ge=0)
    max_unreadable: float | None = Field(None, ge=0, le=1)

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("files")
    @classmethod
    def _below_raw(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in files:
            if pattern.startswith("/") or ".." in pattern.split("/") or "://" in pattern:
                raise ValueError(f"{pattern!r} is not below --raw; write it relative to --raw, without '..'")
        return tuple(str(PurePosixPath(pattern)) for pattern in files)

    def cleaning(self, default: Clean) -> Clean:
        """The clean keys of this source over the recipe's."""
        own = {"ftfy": self.ftfy, "min_chars": self.min_chars, "max_unreadable": self.max_unreadable}
        return default.model_copy(update={key: value for key, value in own.items() if value is not None})
