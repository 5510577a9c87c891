"""What recipes of every package share: counts such as `200k`, and errors that name the field and what is near
it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from manifest.errors import FieldProblem, RecipeError

_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
LONGEST_COUNT = 40
_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmbgt]?)\s*", re.IGNORECASE)


def parse_count(value: object) -> object:
    """`200k`, `4M`, `345B` or `1.392T` → an int; anything but a string is returned as it is.

    Raises ValueError for a string that is no such number, or not a whole one.
    """
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value)
    if match is None or len(value) > LONGEST_COUNT:
        raise ValueError(f"{value!r} is not a count; write a whole number, or one such as 200k, 4M, 345B")
    whole, _, fraction = match[1].partition(".")
    scaled = int(whole + fraction) * _SUFFIX[match[2].lower()]
    count, rest = divmod(scaled, 10 ** len(fraction))
    if rest:
        raise ValueError(f"{value!r} is not a whole number")
    return count


Count = Annotated[int, BeforeValidator(parse_count), Field(lt=2**63)]
"""An int that may be written 200k, 4M, 345B."""


def flag_count(flag: str, text: str, *, least: int = 1) -> int:
    """The number of a command's flag, also as 200k. Raises RecipeError if it is none, or less than `least`."""
    try:
        count = parse_count(text)
    except ValueError as error:
        raise RecipeError(f"{flag}: {error}") from error
    assert isinstance(count, int)
    if count < least:
        raise RecipeError(f"{flag} {text}: expected at least {least}")
    return count


class RecipeModel(BaseModel):
    """A part of a recipe: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], fields: object, where: str) -> M:
    """A recipe's fields → its model. Raises RecipeError naming each wrong field, what was found and what is
    expected."""
    if not isinstance(fields, dict):
        raise RecipeError(f"{where}: expected a mapping of fields, found {type(fields).__name__}")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = list(_explain(error, model))
        lines = "\n".join(f"{where}: {line}" for _, line in found)
        raise RecipeError(lines, [problem for problem, _ in found]) from None


def _explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[FieldProblem, str]]:
    """Each problem, and the line that a command says of it."""
    for problem in error.errors():
        place = [str(part) for part in problem["loc"]]
        field = ".".join(place) or "the recipe"
        if problem["type"] == "extra_forbidden":
            near = nearest(place[-1], _keys_beside(model, place))
            message, line = f"unknown key{near}", f"unknown key {field!r}{near}"
        elif problem["type"] == "missing":
            message, line = "is missing", f"{field!r} is missing"
        else:
            found = "" if isinstance(problem["input"], dict) or place == [] else f" (found {problem['input']!r})"
            message = problem["msg"].removeprefix("Value error, ") + found
            line = f"{field!r}: {message}"
        yield FieldProblem(problem["loc"], message), line


def nearest(name: str, known: list[str]) -> str:
    """What to say after an unknown name: the nearest known ones, or all of them."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "; known are " + ", ".join(sorted(known)) if known else ""


def _keys_beside(model: type[BaseModel], place: list[str]) -> list[str]:
    """The fields of the part of `model` in which the last name of `place` stands."""
    for name in place[:-1]:
        field = model.model_fields.get(name)
        inner = None if field is None else _model_in(field.annotation)
        model = inner or model  # a key of a mapping, or a member of a union: stay
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
