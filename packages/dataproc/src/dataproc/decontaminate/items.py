"""Evaluation files → items. An item is the texts of a record's fields, in the recipe's order, a line feed between them.

The files may be of any kind that raw files may be of (raw.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dataproc.raw import RawFile, RawRoot, Unreadable, records, require_unchanged
from dataproc.recipe.decontaminate import Evaluation, is_local
from manifest.errors import DataError

_MARKS = "*?["


class Item(NamedTuple):
    """An item of an evaluation set, and where it stands. id: empty where the recipe names no field for it."""

    evaluation: str
    file: str
    line: int
    id: str
    text: str


def files_of(name: str, evaluation: Evaluation, raw: str) -> list[RawFile]:
    """The files of an evaluation set, by path as the recipe has it. Raises DataError if a pattern matches nothing."""
    found: dict[str, RawFile] = {}
    for pattern in evaluation.files:
        before, below = split(pattern) if is_local(pattern) else ("", pattern)
        opened = RawRoot(before or raw)
        matches = opened.match(below)
        if not matches:
            raise DataError(
                f"evaluation set {name!r}: no file matches {below!r} under {opened.uri}; correct its 'files' in the "
                "recipe's decontaminate.against (relative to --raw, or beginning with '/', './' or '../')"
            )
        found |= {before + file.path: file.model_copy(update={"path": before + file.path}) for file in matches}
    return [found[path] for path in sorted(found)]


def split(pattern: str) -> tuple[str, str]:
    """The directory of a glob, up to its first part that is one, and the rest."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts[:-1]) if any(m in part for m in _MARKS)), len(parts) - 1)
    return "/".join(parts[:fixed]) + "/", "/".join(parts[fixed:])


def items_of(name: str, evaluation: Evaluation, files: Sequence[RawFile]) -> Iterator[Item]:
    """The items of a set, in order of file and line.

    Raises DataError for a record that cannot be read, or that lacks a field: every item counts.
    """
    for file in files:
        for line, record in records(file):
            if isinstance(record, Unreadable):
                raise DataError(
                    f"evaluation set {name!r}: {file.uri}:{line}: {record.reason} (it begins {record.excerpt!r}); "
                    "correct the file"
                )
            texts = [text for field in evaluation.fields for text in _texts(name, file, line, record, field)]
            yield Item(name, file.path, line, _id(name, file, line, record, evaluation.id), "\n".join(texts))
        require_unchanged(file)


def _texts(name: str, file: RawFile, line: int, record: Mapping[str, Any], field: str) -> list[str]:
    found = list(_values(record, field))
    wrong = [type(value).__name__ for value in found if not isinstance(value, str | int | float | None)]
    if found and not wrong:
        return [str(value) for value in found if value is not None]
    what = f"is {wrong[0]}; expected text, a number, or a list of them" if wrong else "is missing"
    raise DataError(
        f"evaluation set {name!r}: {file.uri}:{line}: field {field!r} {what} (fields: {', '.join(record)}); correct "
        f"'fields' of {name} in the recipe's decontaminate.against, or the file"
    )


def _id(name: str, file: RawFile, line: int, record: Mapping[str, Any], field: str | None) -> str:
    if field is None:
        return ""
    value = next(_values(record, field), None)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"evaluation set {name!r}: {file.uri}:{line}: the id {field!r} is {value!r}; expected a string or a whole "
        f"number (fields: {', '.join(record)})"
    )


def _values(record: Any, field: str) -> Iterator[Any]:
    """What a field holds, itself or through the mappings and lists that its dots go into; nothing if it is absent."""
    if isinstance(record, list):
        for member in record:
            yield from _values(member, field)
    elif isinstance(record, dict) and field in record:
        found = record[field]
        if isinstance(found, list) and not found:
            yield None  # it is there, and says nothing
        yield from found if isinstance(found, list) else (found,)
    elif isinstance(record, dict) and "." in field:
        first, _, rest = field.partition(".")
        yield from _values(record.get(first), rest)
