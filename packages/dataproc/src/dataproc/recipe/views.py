"""Views: how phases read the documents of a source.

`where` and `part` choose documents, and `template` writes them anew: each such slice is a stream of its own. `fim` acts
when a view is read, so views that differ in nothing else share a stream.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from manifest.fields import RecipeModel

Bound = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Part = Literal["even", "odd"] | tuple[Bound, Bound]
"""Half of a source's documents, or those whose id hash, as a share of all hashes, is in [first, last)."""

Value = str | bool | int | float


class Slice(RecipeModel):
    """Some documents of a source. where: a field of `meta` (dots go into nested ones) → the values that it may have."""

    source: str
    where: dict[str, tuple[Value, ...]] = {}
    part: Part | None = None
    template: str | None = None

    @property
    def whole(self) -> bool:
        """Whether it is the source as it is."""
        return not self.where and self.part is None and self.template is None


class ViewRecipe(RecipeModel):
    """A view. fim: the share of documents (in a window) that are rearranged for fill-in-the-middle."""

    of: str
    where: dict[str, tuple[Value, ...]] = {}
    part: Part | None = None
    template: str | None = None
    fim: float | None = Field(None, gt=0, le=1)

    @field_validator("where", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: wanted if isinstance(wanted, list | tuple) else (wanted,) for key, wanted in value.items()}

    @field_validator("where")
    @classmethod
    def _some_value(cls, where: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
        empty = sorted(field for field, wanted in where.items() if not wanted)
        if empty:
            raise ValueError(f"{empty} name no value; nothing would be left")
        return where

    @field_validator("part")
    @classmethod
    def _some_part(cls, part: Part | None) -> Part | None:
        if isinstance(part, tuple) and part[0] >= part[1]:
            raise ValueError(f"the range {list(part)} is empty; expected [first, last) with first < last, as [0, 0.1]")
        return part

    @property
    def slice(self) -> Slice:
        """The documents that it reads."""
        return Slice(source=self.of, where=self.where, part=self.part, template=self.template)
