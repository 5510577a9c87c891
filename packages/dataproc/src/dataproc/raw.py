"""Raw files: which ones a source has, what is in them, and the records they hold.

Formats by name: .jsonl .ndjson .json (one object per line) and .parquet; anything else is plain text, one document per
file. Each but .parquet may be compressed as .gz or .zst. Files are read as streams, from a local path or any file
system that pyarrow opens by URI (s3://…).
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dataproc.decompress import CHUNK_BYTES, decompressed
from dataproc.recipe.sources import Source
from manifest.errors import DataError, InputError
from manifest.record import Model

PARQUET_ROWS = 256
GROUP_BYTES = 16_000_000  # raw bytes per task, where a source is many small files
LINES = (".jsonl", ".ndjson", ".json")


class RawFile(Model):
    """A raw file as it was when the build listed it. `path` is relative to --raw."""

    path: str
    uri: str
    bytes: int
    changed_ns: int
    sha256: str = ""


class Unreadable(Model):
    """A record that cannot become a document, and why. `excerpt` is its beginning."""

    file: str
    line: int
    reason: str
    excerpt: str


class RawRoot:
    """The --raw directory or URI. Raises InputError if it cannot be opened."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") if "://" in uri else str(Path(uri).absolute())
        try:
            self.filesystem, self.base = _filesystem(self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"--raw {uri}: cannot be opened ({error}); give a directory or s3://bucket/prefix"
            ) from error

    def files(self, name: str, source: Source) -> list[RawFile]:
        """The files of a source, sorted by path. Raises DataError if a pattern matches nothing."""
        found: dict[str, RawFile] = {}
        for pattern in source.files:
            matches = self._match(pattern)
            if not matches:
                raise DataError(
                    f"source {name!r}: no file matches {pattern!r} under {self.uri}; correct 'files' in the recipe, "
                    "or --raw"
                )
            found |= {file.path: file for file in matches}
        return [found[path] for path in sorted(found)]

    def _match(self, pattern: str) -> list[RawFile]:
        parts = pattern.split("/")
        fixed = next((i for i, part in enumerate(parts) if any(mark in part for mark in "*?[")), len(parts) - 1)
        top = "/".join([self.base, *parts[:fixed]])
        try:
            listing = self.filesystem.get_file_info(pafs.FileSelector(top, recursive=True, allow_not_found=True))
        except OSError as error:
            raise InputError(f"--raw {self.uri}: {top} cannot be listed ({error}); give a directory") from error
        try:
            return self._matching(listing, parts)
        except UnicodeDecodeError as error:
            raise InputError(
                f"--raw {self.uri}: a file there has a name that is no UTF-8 ({error.object!r}); rename it"
            ) from error

    def _matching(self, listing: Sequence[Any], parts: Sequence[str]) -> list[RawFile]:
        return [
            RawFile(path=path, uri=f"{self.uri}/{path}", bytes=info.size, changed_ns=info.mtime_ns or 0)
            for info in listing
            if info.type == pafs.FileType.File and _matches((path := info.path[len(self.base) + 1 :]).split("/"), parts)
        ]


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob matches a path, both in parts. `**` stands for any directories; a hidden name needs a dot."""
    if not path or not pattern:
        return not path and not pattern
    if pattern[0] == "**":
        below = not path[0].startswith(".") and _matches(path[1:], pattern)
        return below or _matches(path, pattern[1:] or ["*"])
    hidden = path[0].startswith(".") and not pattern[0].startswith(".")
    return not hidden and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def tasks(files: Sequence[RawFile]) -> list[tuple[RawFile, ...]]:
    """Files in order, small ones together: one task each."""
    groups: list[list[RawFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.bytes > GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.bytes
    return [tuple(group) for group in groups]


def _filesystem(uri: str) -> tuple[Any, str]:
    """What holds a URI or an absolute path, and the path there."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    filesystem, path = pafs.FileSystem.from_uri(uri)
    return filesystem, path


def open_bytes(uri: str) -> Any:
    """A raw file as a stream of bytes. Raises DataError if it cannot be opened."""
    try:
        filesystem, path = _filesystem(uri)
        return filesystem.open_input_file(path)
    except OSError as error:
        raise DataError(f"{uri} cannot be read ({error}); check that it exists and is readable") from error


def require_unchanged(file: RawFile) -> None:
    """Raises DataError if a file is not what it was when the build listed it."""
    filesystem, path = _filesystem(file.uri)
    info = filesystem.get_file_info(path)
    if (info.size, info.mtime_ns or 0) != (file.bytes, file.changed_ns):
        raise DataError(f"{file.uri} was changed while it was read; run the same command again when it is complete")


def sha256_of(file: RawFile) -> RawFile:
    """The file with the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with open_bytes(file.uri) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return file.model_copy(update={"sha256": digest.hexdigest()})


def is_plain_text(path: str) -> bool:
    """Whether a file is one document."""
    stem = path.removesuffix(".gz").removesuffix(".zst")
    return not stem.endswith((*LINES, ".parquet"))


def is_parquet(path: str) -> bool:
    return path.endswith(".parquet")


def records(file: RawFile) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """The records of a file with their line (from 1): an object, or why it cannot be read.

    A plain text file is one record {"text": …, "id": its path}. Raises DataError for a file that is empty, cut off or
    of another format than its name says.
    """
    if is_parquet(file.path):
        yield from _parquet_records(file)
    elif is_plain_text(file.path):
        yield 1, _text_record(file)
    else:
        yield from _line_records(file)


def _parquet_records(file: RawFile) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    before = 0
    for batch in parquet_batches(file):
        yield from batch_records(file, batch, before)
        before += batch.num_rows


def parquet_batches(file: RawFile) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file. Raises DataError for one that is empty, cut off or something else."""
    _require_bytes(file)
    with _whole_parquet(file), pq.ParquetFile(open_bytes(file.uri)) as parquet:
        yield from map(_with_plain_types, parquet.iter_batches(batch_size=PARQUET_ROWS))


@contextmanager
def _whole_parquet(file: RawFile) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.uri} is not a whole Parquet file ({error}); write it again") from error


def batch_records(
    file: RawFile, batch: pa.RecordBatch, before: int
) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """The records of some rows of a Parquet file, with `before` others before them. Raises DataError."""
    with _whole_parquet(file):
        found = _python_rows(batch)
    for line, record in enumerate(found, before + 1):
        yield line, _not_utf8(file, line, record) if isinstance(record, UnicodeDecodeError) else record


def _with_plain_types(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times and decimals as strings; the other types have a form in JSON, or are reported row by row."""
    foreign = [pa.types.is_temporal(kind) or pa.types.is_decimal(kind) for kind in batch.schema.types]
    columns = [c.cast(pa.string()) if cast else c for c, cast in zip(batch.columns, foreign, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _python_rows(batch: pa.RecordBatch) -> list[Any]:
    """A dict per row, or the UnicodeDecodeError of a row that holds a string that is no UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [error]
        return [row for i in range(batch.num_rows) for row in _python_rows(batch.slice(i, 1))]


def _text_record(file: RawFile) -> dict[str, Any] | Unreadable:
    data = b"".join(chunks(file))
    try:
        return {"text": data.decode("utf-8-sig"), "id": file.path}
    except UnicodeDecodeError as error:
        return _not_utf8(file, 1, error)


def _line_records(file: RawFile) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    number = 0
    for number, line in enumerate(_lines(chunks(file)), 1):
        record = line_record(file, number, line)
        if record is not None:
            yield number, record
    if number == 0:
        raise no_record(file)


def line_record(file: RawFile, number: int, line: bytes) -> dict[str, Any] | Unreadable | None:
    """The record of a line; None if it is blank."""
    content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    return _parse(file, number, content) if content.strip() else None


def no_record(file: RawFile) -> DataError:
    return DataError(f"{file.uri} holds no record; remove it, or write it again")


def _parse(file: RawFile, number: int, line: bytes) -> dict[str, Any] | Unreadable:
    try:
        line.decode("utf-8")
        record = orjson.loads(line)
    except UnicodeDecodeError as error:
        return _not_utf8(file, number, error)
    except orjson.JSONDecodeError as error:
        hint = " (a lone surrogate is no Unicode text)" if "surrogate" in error.msg else ""
        return Unreadable(file=file.path, line=number, reason=f"not JSON: {error}{hint}", excerpt=_excerpt(line))
    if isinstance(record, dict):
        return record
    reason = f"expected a JSON object, found {type(record).__name__}"
    return Unreadable(file=file.path, line=number, reason=reason, excerpt=_excerpt(line))


def _not_utf8(file: RawFile, number: int, error: UnicodeDecodeError) -> Unreadable:
    reason = f"invalid UTF-8 at byte {error.start}"
    return Unreadable(file=file.path, line=number, reason=reason, excerpt=_excerpt(error.object))


def _excerpt(data: bytes) -> str:
    return data[:200].decode("utf-8", errors="backslashreplace")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            yield b"".join(rest)
            yield from others[:-1]
            rest = [others[-1]]
    if any(rest):
        yield b"".join(rest)


def chunks(file: RawFile) -> Iterator[bytes]:
    """The content of a file, decompressed. Raises DataError for one that is empty, cut off or damaged."""
    if not is_plain_text(file.path):
        _require_bytes(file)
    with open_bytes(file.uri) as stream:
        yield from decompressed(stream, file.uri)


def _require_bytes(file: RawFile) -> None:
    if file.bytes == 0:
        raise DataError(f"{file.uri} is empty (0 bytes); remove it, or write it again")
