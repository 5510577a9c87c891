"""When checkpoints are published, as a train recipe says it: for the run, and for a phase of it. See saves.py."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from manifest import fields
from manifest.record import Model

Count = Annotated[fields.Count, Field(gt=0)]


class SavePace(Model):
    """every_tokens, every_steps, count (in all, in equal parts): at most one of them."""

    every_tokens: Count | None = None
    every_steps: Count | None = None
    count: Count | None = None

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        given = [name for name in ("every_tokens", "every_steps", "count") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"found {' and '.join(given)}; give one of them, or none")
        return self

    @property
    def is_paced(self) -> bool:
        """Whether it says when checkpoints come."""
        return any(pace is not None for pace in (self.every_tokens, self.every_steps, self.count))


class PhaseSave(SavePace):
    """The pace of one phase, counted from its first step."""

    @model_validator(mode="after")
    def _says_a_pace(self) -> Self:
        if not self.is_paced:
            raise ValueError("found no pace; give every_tokens, every_steps or count, or leave save out")
        return self


class SaveRecipe(SavePace):
    """When checkpoints are published, besides step 0, the end of each phase and the end.

    A pace, or none, which is a tenth of the run, at most 1B tokens. keep_full: how many keep the optimiser's state, so
    that training can go on from them. publish: what becomes of older ones: `all` keeps their weights, `recent` removes
    them.
    """

    keep_full: int = Field(default=2, ge=1)
    publish: Literal["all", "recent"] = "all"
