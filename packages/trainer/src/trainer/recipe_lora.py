"""`trainable: {lora: …}`: low-rank matrices beside those of the layers (Hu et al., 2021, "LoRA", arXiv 2106.09685).

h = W x + alpha / rank · B A x          A (rank, inputs), B (outputs, rank); W is frozen, and B begins as zeros
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, field_serializer, field_validator

from manifest.errors import RecipeError
from manifest.record import Model
from trainer.model.parameters import parameter_sizes
from trainer.model.shape import Shape

EVERY = ("attention.*", "feedforward.*")
"""The targets of `all`."""
A, B = ".lora_a", ".lora_b"
"""Ends of the names of the two matrices beside `layers.0.attention.query.weight`."""


class Lora(Model):
    """targets: matrices of the layers, by the end of their name (`query`, `attention.*`) or a pattern over all of it
    (`layers.1?.feedforward.*`); `all` of them by default. dropout: of what A reads.
    """

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0, allow_inf_nan=False)
    targets: tuple[str, ...] = Field(default=EVERY, min_length=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, str):
            return EVERY if value == "all" else (value,)
        return value

    @field_serializer("targets")
    def _as_written(self, value: tuple[str, ...]) -> Any:
        return "all" if value == EVERY else list(value)

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return self.alpha / self.rank

    def is_target(self, module: str) -> bool:
        """Whether a matrix of a layer, such as `layers.0.attention.query`, has two beside it."""
        return any(_matches(module, pattern) for pattern in self.targets)

    def __str__(self) -> str:
        return f"lora of rank {self.rank}"


def _matches(module: str, pattern: str) -> bool:
    return fnmatchcase(module, pattern) or fnmatchcase(module, f"layers.*.{pattern}") or _ends(module, pattern)


def _ends(module: str, pattern: str) -> bool:
    return "." not in pattern and fnmatchcase(module.rpartition(".")[2], pattern)


def matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each matrix of the layers, by its module."""
    return {
        name.removesuffix(".weight"): (size[0], size[-1])
        for name, size in parameter_sizes(shape).items()
        if is_matrix(name)
    }


def is_matrix(name: str) -> bool:
    """Whether a parameter is a matrix of a layer."""
    return name.startswith("layers.") and name.endswith(".weight") and not name.endswith("norm.weight")


def lora_sizes(lora: Lora, shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters that are trained, with their shapes."""
    for module, (outputs, inputs) in matrices(shape).items():
        if lora.is_target(module):
            yield f"{module}{A}", (lora.rank, inputs)
            yield f"{module}{B}", (outputs, lora.rank)


def require_lora(lora: Lora, shape: Shape, place: str) -> None:
    """Raises RecipeError, naming `place`, if a target is no matrix, or the rank is beyond one."""
    found = matrices(shape)
    for pattern in lora.targets:
        if not any(_matches(module, pattern) for module in found):
            known = sorted({module.split(".", 2)[2] for module in found})
            raise RecipeError(
                f"{place}.targets: no matrix of a layer matches {pattern!r}; there are {', '.join(known)}"
            )
    for module, size in found.items():
        if lora.is_target(module) and lora.rank > min(size):
            raise RecipeError(
                f"{place}.rank: found {lora.rank}, and {module} is a matrix of {size[0]} by {size[1]}, whose rank is "
                f"at most {min(size)}; choose that or less, or leave it out of `targets`"
            )
