"""The keys of a keep order, as the recipe states them; `keep` orders by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator

from manifest.fields import RecipeModel

PLAIN = ("source_order", "longest", "id")


class ByField(RecipeModel):
    """A key over a number in the documents' metadata, such as a quality score: one of the two."""

    highest: str | None = None
    lowest: str | None = None

    @property
    def field(self) -> str:
        return self.highest or self.lowest or ""

    @property
    def name(self) -> str:
        """The rule as the ledger has it."""
        return f"highest {self.field}" if self.highest is not None else f"lowest {self.field}"


def _as_key(value: object) -> object:
    """A key as the recipe has it. Raises ValueError."""
    if isinstance(value, ByField) or value in PLAIN:
        return value
    if isinstance(value, dict) and len(value) == 1 and set(value) <= {"highest", "lowest"}:
        ((direction, name),) = value.items()
        if isinstance(name, str) and name:
            return ByField(**{direction: name})
    raise ValueError(f"a key is {', '.join(PLAIN)}, {{highest: FIELD}} or {{lowest: FIELD}}")


Key = Annotated[str | ByField, BeforeValidator(_as_key)]
"""A key of a keep order."""


def fields_of(keep: Sequence[Key]) -> list[str]:
    """The metadata fields that an order needs."""
    return [key.field for key in keep if isinstance(key, ByField)]
