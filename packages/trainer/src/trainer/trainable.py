"""Which parameters a phase trains; the others are frozen, bit for bit.

    all                     every parameter
    embeddings              the input embedding and the output head, whole
    {new_rows: ID}          of these only the rows from token ID on; `new_rows` alone: from the first that was added to
                            the tokenizer of the mixture
    {pattern: GLOB}         parameters by name, such as `layers.*.attention.*`; one pattern or several
    {lora: {rank: 8, …}}    low-rank matrices beside those of the layers (recipe_lora.py)

Consecutive phases that train the same are one *leg*: they share an optimiser. Where it changes the optimiser begins
anew, so such a phase says `optimizer: reset`. No torch here, so that recipes are checked at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_serializer, model_validator

from manifest.checkpoint import Timeline
from manifest.errors import RecipeError
from manifest.record import Model
from trainer.model.parameters import TABLES, Sizes, parameter_sizes
from trainer.model.shape import Shape
from trainer.recipe_lora import Lora, lora_sizes, require_lora

NAMES = ("all", "embeddings", "new_rows")
ROWS = ".new_rows"
"""The end of the name of a parameter that is the trained rows of a frozen table: `embedding.new_rows`."""


class Trainable(Model):
    """What a phase trains: one of these. A name alone is written without a key; `new_rows` without an id is resolved
    when the run is made.
    """

    named: Literal["all", "embeddings", "new_rows"] | None = None
    new_rows: int | None = Field(default=None, ge=1)
    pattern: tuple[str, ...] | None = Field(default=None, min_length=1)
    lora: Lora | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        if isinstance(value, str):
            if value not in NAMES:
                raise ValueError(f"expected {', '.join(NAMES)}, {{new_rows: ID}}, {{pattern: GLOB}} or {{lora: …}}")
            return {"named": value}
        return value

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of {', '.join(NAMES)}, new_rows: ID, pattern: GLOB, lora: …; found {given or 'none'}"
            )
        return self

    @model_serializer
    def _as_written(self) -> Any:
        if self.named is not None:
            return self.named
        if self.new_rows is not None:
            return {"new_rows": self.new_rows}
        if self.lora is not None:
            return {"lora": self.lora.model_dump()}
        assert self.pattern is not None
        return {"pattern": self.pattern[0] if len(self.pattern) == 1 else list(self.pattern)}

    @property
    def first_row(self) -> int | None:
        """The first token whose row is trained, where only rows of the tables are. Resolved."""
        assert self.named != "new_rows", "resolved when the run is made"
        return self.new_rows

    def __str__(self) -> str:
        if self.named is not None:
            return self.named
        if self.lora is not None:
            return str(self.lora)
        return f"new_rows from {self.new_rows} on" if self.pattern is None else f"pattern {', '.join(self.pattern)}"


ALL = Trainable(named="all")


@dataclass(frozen=True)
class Leg:
    """The steps [first, stop) of consecutive phases that train the same, with one optimiser."""

    trainable: Trainable
    first: int
    stop: int


def legs(trainables: Mapping[str, Trainable], timeline: Timeline) -> tuple[Leg, ...]:
    """The legs of a run, in order. trainables: by phase, in order."""
    found: list[Leg] = []
    for phase, steps in timeline.phase_steps().items():
        if found and found[-1].trainable == trainables[phase]:
            found[-1] = Leg(trainables[phase], found[-1].first, steps.stop)
        else:
            found.append(Leg(trainables[phase], steps.start, steps.stop))
    return tuple(found)


def leg_at(all_legs: Sequence[Leg], step: int) -> Leg:
    """The leg that step `step` is of; the last one for what comes after it."""
    return next((leg for leg in all_legs if step < leg.stop), all_legs[-1])


def trained(trainable: Trainable, shape: Shape) -> dict[str, tuple[int, ...]]:
    """The parameters that are trained, with their shapes. Rows of a table are a parameter of their own."""
    if trainable.lora is not None:
        return dict(lora_sizes(trainable.lora, shape))
    sizes = parameter_sizes(shape)
    first = trainable.first_row
    if first is not None:
        rows = {name: size for name, size in sizes.items() if name in TABLES}
        return {rows_name(name): (size[0] - first, *size[1:]) for name, size in rows.items()}
    return {name: size for name, size in sizes.items() if _is_trained(trainable, name)}


def rows_name(table: str) -> str:
    """embedding.weight → embedding.new_rows."""
    return table.removesuffix(".weight") + ROWS


def _is_trained(trainable: Trainable, name: str) -> bool:
    if trainable.named is not None:
        return trainable.named == "all" or name in TABLES
    assert trainable.pattern is not None
    return any(fnmatchcase(name, pattern) for pattern in trainable.pattern)


def require_trainable(trainables: Mapping[str, Trainable], shape: Shape, where: str) -> None:
    """Raises RecipeError, naming `where` (the recipe's file), if a phase trains what the decoder does not have."""
    sizes = parameter_sizes(shape)
    for phase, trainable in trainables.items():
        place = f"{where}: phases.{phase}.trainable"
        if trainable.first_row is not None and trainable.first_row >= shape.vocab_size:
            raise RecipeError(
                f"{place}: found new_rows from {trainable.first_row} on, and the vocabulary has {shape.vocab_size} "
                "tokens; give the first of those that were added, or `embeddings` for the whole matrices"
            )
        if trainable.lora is not None:
            require_lora(trainable.lora, shape, f"{place}.lora")
        for pattern in trainable.pattern or ():
            if not any(fnmatchcase(name, pattern) for name in sizes):
                raise RecipeError(f"{place}: no parameter matches {pattern!r}{_near(pattern, sizes)}")


def _near(pattern: str, sizes: Sizes) -> str:
    near = difflib.get_close_matches(pattern, list(sizes), n=2, cutoff=0.4)
    return f"; there are {' and '.join(near or list(sizes)[:2])}, among {len(sizes)}"
