"""A recipe's architecture and size against the base's: left out, they are the base's; given, they must be."""

from __future__ import annotations

from manifest.errors import RecipeError
from trainer.adapt.base import Base, fields_of
from trainer.model.shape import Architecture
from trainer.sizes import Size

OWN = ("init_std", "interpolation")
"""What may differ: it decides how fresh rows begin, and how positions are read, and no weight depends on it."""


def architecture_of(given: Architecture | None, base: Base, where: str) -> Architecture:
    """The architecture that a run has. Raises RecipeError naming what differs."""
    has = base.shape.architecture
    if given is None:
        return has
    mine, theirs = ({k: v for k, v in a.model_dump().items() if k not in OWN} for a in (given, has))
    differing = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    if differing:
        said = "; ".join(f"{key} is {mine.get(key)!r}, the base's {theirs.get(key)!r}" for key in differing)
        raise RecipeError(
            f"{where}: architecture: {said}. Leave `architecture` out, or start from another model than {base.uri}"
        )
    return given


def size_of(name: str | None, given: Size | None, base: Base, where: str) -> Size:
    """The size that a run has. Raises RecipeError naming what differs."""
    has = fields_of(base.shape)
    if given is None:
        return Size(**has)
    mine = given.model_dump(include=set(has)) | {
        "kv_heads": given.kv_heads or given.heads,
        "head_dim": given.head_dim or given.width // given.heads,
    }
    differing = [key for key in has if mine[key] != has[key]]
    if differing:
        said = ", ".join(f"{key} {mine[key]} (the base has {has[key]})" for key in differing)
        raise RecipeError(
            f"{where}: size {name!r} has {said}; leave `size` out, name the base's, or start from another model than "
            f"{base.uri}"
        )
    return given
