"""A YAML file → a checked record, or one RecipeError that says for every problem what was found and what to do.

A line per problem: `FILE: KEY: found …; expected …`. An unknown key names the known ones that look like it.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from manifest.errors import RecipeError
from manifest.record import Model
from pydantic import ValidationError
from pydantic_core import ErrorDetails

Record = TypeVar("Record", bound=Model)
Location = Sequence[int | str]


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; the second would win in silence."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice; keep one", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of a YAML file. Raises RecipeError if there is no such file or no such mapping."""
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such file; give the path of a YAML recipe")
    try:
        # A SafeLoader with one more check: it builds plain values only.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: found {type(content).__name__} at the top; expected keys and values")
    return content


def checked(model: type[Record], content: object, where: str, *, key: str = "") -> Record:
    """`content` as a `model`. Raises RecipeError with a line per problem; `key` is where in the file the content stands."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_line(model, problem, where, key) for problem in error.errors()]
        raise RecipeError("\n".join(lines)) from error


def _line(model: type[Model], problem: ErrorDetails, where: str, key: str) -> str:
    location = [part for part in problem["loc"] if part != "[key]"]
    path = ".".join(str(part) for part in ([key] if key else []) + location)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {path!r}; {_near(str(location[-1]), _keys_at(model, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: the key {path!r} is missing; add it (docs/training.md describes every key)"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if isinstance(problem["input"], dict) and problem["type"] == "value_error":
        return f"{where}: {path}: {message}" if path else f"{where}: {message}"
    return f"{where}: {path}: found {problem['input']!r}; {message}"


def _near(found: str, known: list[str]) -> str:
    near = difflib.get_close_matches(found, known, n=2, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    return f"known here: {', '.join(known)}"


def _keys_at(model: type[Model], location: Location) -> list[str]:
    """The keys that the record at a location may have."""
    current: Any = model
    for part in location:
        if typing.get_origin(current) is dict:
            current = typing.get_args(current)[1]
            continue
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        current = _record_in(fields[str(part)].annotation)
    return sorted(field.alias or name for name, field in current.model_fields.items())


def _record_in(annotation: Any) -> Any:
    """`X` of `X | None`; anything else as it is."""
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    return options[0] if len(options) == 1 and typing.get_origin(annotation) is not dict else annotation
