"""A raw file → rows: the texts in one Arrow array, and each record's id and metadata; what is unreadable is set apart.

JSON lines and Parquet are read in bulk where nothing about a record is odd. The others are taken one by one as
`raw.records` reads them, which also says what is wrong with them. Both ways give the same rows.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dataproc import jsonl, raw
from dataproc.kernels.flags import ODD_LINE
from dataproc.raw import RawFile, Unreadable
from dataproc.recipe.sources import Source
from dataproc.turns import Role
from manifest.identity import canonical_json

ROW_BYTES = 100
"""What a row takes beside its text and metadata."""
_PLAIN = frozenset({str, int, bool, type(None)})
_LEAST_FLOAT, _MOST_FLOAT = 1e-4, 1e15
"""From here to there neither Python nor orjson writes a float with an exponent, which they write differently."""


@dataclass(frozen=True)
class Rows:
    """Some records in their order: the texts as they were read, the ids (empty where the content is to give one), the
    metadata as canonical JSON; and those that cannot become documents.

    roles: of a source with answers, who speaks in the turns of each record. `texts` then has one row per turn.
    unanswered: how many of the bad ones lack nothing but an answer.
    """

    texts: pa.LargeStringArray
    ids: list[str]
    metas: list[bytes]
    bad: list[Unreadable]
    roles: Sequence[tuple[Role, ...]] = ()
    unanswered: int = 0

    @property
    def bytes(self) -> int:
        """About what they take in memory."""
        others = sum(map(len, self.metas)) + sum(ROW_BYTES + len(bad.excerpt) for bad in self.bad)
        return int(self.texts.nbytes) + ROW_BYTES * len(self.ids) + others


class RecordError(Exception):
    """A record cannot become a document. The message says why."""


def rows(file: RawFile, name: str, source: Source, size: int) -> Iterator[Rows]:
    """The records of a file of a source, some `size` bytes at a time. Raises DataError as `raw.records` does."""
    if raw.is_plain_text(file.path):
        yield _Gathered(file, name, source.text, source.id).one_by_one(raw.records(file))
    elif raw.is_parquet(file.path):
        yield from _of_parquet(file, name, source)
    else:
        yield from _of_lines(file, name, source, size)


@dataclass
class _Gathered:
    """Rows in the making, but for the texts that are read in bulk. `text` and `id` are fields of the records."""

    file: RawFile
    name: str
    text: str
    id: str | None
    ids: list[str] = field(default_factory=list)
    metas: list[bytes] = field(default_factory=list)
    bad: list[Unreadable] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> bool:
        """Takes a record, with its text or without, unless it cannot become a document."""
        try:
            self._add(record)
        except RecordError:
            return False
        return True

    def add_whole(self, line: int, record: dict[str, Any] | Unreadable) -> str | None:
        """Takes a record and returns its text; None if it cannot become a document, which is noted."""
        if isinstance(record, Unreadable):
            self.bad.append(record)
            return None
        try:
            text = record_text(record, self.text)
            self._add(record)
        except RecordError as error:
            excerpt = reprlib.repr(record)
            self.bad.append(Unreadable(file=self.file.path, line=line, reason=str(error), excerpt=excerpt))
            return None
        return text

    def one_by_one(self, found: Iterable[tuple[int, dict[str, Any] | Unreadable]]) -> Rows:
        texts = [text for line, record in found if (text := self.add_whole(line, record)) is not None]
        return self.rows(pa.array(texts, pa.large_string()))

    def rows(self, texts: pa.LargeStringArray) -> Rows:
        assert len(texts) == len(self.ids)
        return Rows(texts, self.ids, self.metas, self.bad)

    def _add(self, record: dict[str, Any]) -> None:
        identifier = "" if self.id is None else f"{self.name}/{record_id(record, self.id)}"
        self.metas.append(record_meta(record, self.text, self.id))
        self.ids.append(identifier)


# ---- lines


def _of_lines(file: RawFile, name: str, source: Source, size: int) -> Iterator[Rows]:
    number = 0
    for block in jsonl.blocks(raw.chunks(file), size + size // 4):  # some of it is no text
        start = 0
        while start < len(block):
            lines = jsonl.lines(block, start, source.text, 2 * size)
            yield _of_block(block, lines, number, _Gathered(file, name, source.text, source.id))
            number += len(lines.at)
            start = lines.end
    if number == 0:
        raise raw.no_record(file)


def _of_block(block: bytes, lines: jsonl.Lines, before: int, gathered: _Gathered) -> Rows:
    """The rows of some lines, with `before` others before them."""
    text_is_id = gathered.id == gathered.text
    kept: list[int] = []
    apart: dict[int, str] = {}
    for row, (start, text_start, text_end, end) in enumerate(lines.at):
        if text_start != ODD_LINE and not text_is_id:
            record = jsonl.rest(block, start, text_start, text_end, end, gathered.text)
            if record is not None and gathered.add(record):
                kept.append(row)
                continue
        whole = raw.line_record(gathered.file, before + row + 1, block[start:end])
        text = None if whole is None else gathered.add_whole(before + row + 1, whole)
        if text is not None:
            kept.append(row)
            apart[row] = text
    texts = lines.texts
    if apart:
        mask = pa.array([row in apart for row in range(len(texts))])
        texts = pc.replace_with_mask(texts, mask, pa.array(apart.values(), pa.large_string()))
    return gathered.rows(_taken(texts, kept))


def _taken(texts: pa.LargeStringArray, kept: list[int]) -> pa.LargeStringArray:
    return texts if len(kept) == len(texts) else texts.take(pa.array(kept, pa.int64()))


# ---- Parquet


def _of_parquet(file: RawFile, name: str, source: Source) -> Iterator[Rows]:
    before = 0
    for batch in raw.parquet_batches(file):
        yield _of_batch(batch, before, _Gathered(file, name, source.text, source.id))
        before += batch.num_rows


def _of_batch(batch: pa.RecordBatch, before: int, gathered: _Gathered) -> Rows:
    """The rows of a batch of Parquet, with `before` others before it."""
    texts = _whole_texts(batch, gathered.text)
    others = None if texts is None or gathered.id == gathered.text else _others(batch, gathered.text)
    if others is None:
        return gathered.one_by_one(raw.batch_records(gathered.file, batch, before))
    kept: list[int] = []
    for row, record in enumerate(others):
        if gathered.add(record):
            kept.append(row)
        else:
            for line, whole in raw.batch_records(gathered.file, batch.slice(row, 1), before + row):
                gathered.add_whole(line, whole)
    return gathered.rows(_taken(texts, kept))


def _whole_texts(batch: pa.RecordBatch, name: str) -> pa.LargeStringArray | None:
    """The column of a name if it is one of strings, each of them there and in UTF-8."""
    if batch.schema.names.count(name) != 1:
        return None
    column = batch.column(name)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) or column.null_count:
        return None
    return column.cast(pa.large_string()) if jsonl.are_utf8(column) else None


def _others(batch: pa.RecordBatch, name: str) -> list[dict[str, Any]] | None:
    """The records without the field of a name; None if one of them cannot be read."""
    if batch.num_columns == 1:
        return [{} for _ in range(batch.num_rows)]
    try:
        return list(batch.drop_columns([name]).to_pylist())
    except (UnicodeDecodeError, pa.ArrowException):
        return None


# ---- fields


def record_text(record: Mapping[str, Any], name: str) -> str:
    """The string in a field. Raises RecordError if there is none."""
    text = record.get(name)
    if not isinstance(text, str):
        found = f"is {type(text).__name__}" if name in record else f"is missing (fields: {', '.join(record)})"
        raise RecordError(f"field {name!r} {found}; expected a string")
    return text


def record_id(record: Mapping[str, Any], name: str) -> str | int:
    """The id in a field. Raises RecordError if there is none."""
    value = record.get(name)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise RecordError(f"field {name!r} is {value!r}; expected an id (a string or a whole number)")
    return value


def record_meta(record: dict[str, Any], text: str, identifier: str | None) -> bytes:
    """The other fields of a record; a field `meta` that is alone is taken as it is. Raises RecordError."""
    other = record.copy()
    other.pop(text, None)
    if identifier is not None:
        other.pop(identifier, None)
    if len(other) == 1 and isinstance(meta := other.get("meta"), dict):
        other = meta
    try:
        return meta_json(other)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"it has no stable form: {error}") from error


def meta_json(value: dict[str, Any]) -> bytes:
    """`canonical_json(value)`, by orjson where that writes the same bytes. Raises as it does."""
    if not _is_written_alike(value):
        return canonical_json(value)
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return canonical_json(value)  # a number over 64 bits, deep nesting, a key that is no string: it decides


def _is_written_alike(value: Any) -> bool:
    """Whether orjson writes the items of a dict or list as canonical JSON has them."""
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is dict or kind is list:
            if not _is_written_alike(item):
                return False
        elif kind is float:
            if not (item == 0 or _LEAST_FLOAT <= abs(item) < _MOST_FLOAT):
                return False
        elif kind not in _PLAIN:
            return False
    return True
