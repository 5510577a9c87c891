"""Raw files: which ones a source has, what is in them, and the records they hold.

Formats by name: .jsonl .ndjson .json (one object per line) and .parquet; anything else is plain text, one document per
file. Each but .parquet may be compressed as .gz or .zst. Files are read as streams, from a local path or any file
system that pyarrow opens by URI (s3://…).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import zstandard

from dataproc.recipe import Source
from manifest.errors import DataError, InputError
from manifest.record import Model

CHUNK_BYTES = 1 << 20
LINES = (".jsonl", ".ndjson", ".json")


class RawFile(Model):
    """A raw file. `path` is relative to --raw."""

    path: str
    uri: str
    bytes: int
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
        self.uri = uri.rstrip("/")
        try:
            if "://" in uri:
                self.filesystem, self.base = pafs.FileSystem.from_uri(self.uri)
            else:
                self.filesystem, self.base = pafs.LocalFileSystem(), str(Path(uri).absolute())
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"--raw {uri}: cannot be opened ({error}); give a directory or s3://bucket/prefix"
            ) from error

    def files(self, name: str, source: Source) -> list[RawFile]:
        """The files of a source, sorted by path. Raises DataError if a pattern matches nothing or a file is empty."""
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
        fixed = list(PurePosixPath(pattern).parts[:-1])
        while any(mark in "/".join(fixed) for mark in "*?["):
            fixed.pop()
        top = "/".join([self.base, *fixed])
        listing = self.filesystem.get_file_info(pafs.FileSelector(top, recursive=True, allow_not_found=True))
        return [
            RawFile(path=path, uri=f"{self.uri}/{path}", bytes=info.size)
            for info in listing
            if info.type == pafs.FileType.File
            and fnmatch.fnmatchcase(path := info.path[len(self.base) + 1 :], pattern)
            and not info.base_name.startswith(".")
        ]


def open_bytes(uri: str) -> Any:
    """A raw file as a stream of bytes. Raises DataError if it cannot be opened."""
    try:
        if "://" not in uri:
            return pa.OSFile(uri, "rb")
        filesystem, path = pafs.FileSystem.from_uri(uri)
        return filesystem.open_input_file(path)
    except OSError as error:
        raise DataError(f"{uri} cannot be read ({error}); check that it exists and is readable") from error


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


def records(file: RawFile) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """The records of a file with their line (from 1): an object, or why it cannot be read.

    A plain text file is one record {"text": …, "id": its path}. Raises DataError for a file that is empty, cut off or
    of another format than its name says.
    """
    if file.bytes == 0 and not is_plain_text(file.path):
        raise DataError(f"{file.uri} is empty (0 bytes); remove it, or write it again")
    if file.path.endswith(".parquet"):
        yield from _parquet_records(file)
    elif is_plain_text(file.path):
        yield 1, _text_record(file)
    else:
        yield from _line_records(file)


def _parquet_records(file: RawFile) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 0
    try:
        with pq.ParquetFile(open_bytes(file.uri)) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    line += 1
                    yield line, record
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file.uri} is not a whole Parquet file ({error}); write it again") from error


def _text_record(file: RawFile) -> dict[str, Any] | Unreadable:
    data = b"".join(_chunks(file))
    try:
        return {"text": data.decode("utf-8"), "id": file.path}
    except UnicodeDecodeError as error:
        return Unreadable(file=file.path, line=1, reason=f"invalid UTF-8 at byte {error.start}", excerpt=_excerpt(data))


def _line_records(file: RawFile) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    number = 0
    for number, line in enumerate(_lines(_chunks(file)), 1):
        if line.strip():
            yield number, _parse(file, number, line)
    if number == 0:
        raise DataError(f"{file.uri} holds no record; remove it, or write it again")


def _parse(file: RawFile, number: int, line: bytes) -> dict[str, Any] | Unreadable:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        reason = _why_not_json(line, error)
    else:
        if isinstance(record, dict):
            return record
        reason = f"expected a JSON object, found {type(record).__name__}"
    return Unreadable(file=file.path, line=number, reason=reason, excerpt=_excerpt(line))


def _why_not_json(line: bytes, error: Exception) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        return f"invalid UTF-8 at byte {bad.start}"
    try:
        json.loads(line)
    except ValueError:
        return f"not JSON: {error}"
    return "a string holds a lone surrogate, which is not Unicode text"


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


def _chunks(file: RawFile) -> Iterator[bytes]:
    with open_bytes(file.uri) as stream:
        if file.path.endswith(".gz"):
            yield from _decompressed(stream, file, _gzip_member, (zlib.error,))
        elif file.path.endswith(".zst"):
            yield from _decompressed(stream, file, _zstd_frame, (zstandard.ZstdError,))
        else:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk


def _gzip_member() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


def _decompressed(stream: Any, file: RawFile, frame: Any, errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    """The content of all frames, end to end. Raises DataError if the last is cut off, or one is not of the format."""
    current = None
    while chunk := stream.read(CHUNK_BYTES):
        while chunk:
            current = current or frame()
            try:
                yield current.decompress(chunk)
            except errors as error:
                raise DataError(f"{file.uri} is damaged or not what its name says ({error}); write it again") from error
            chunk = current.unused_data if current.eof else b""
            current = None if current.eof else current
    if current is not None:
        raise DataError(f"{file.uri} is cut off: its compressed data ends before its end mark; copy or write it again")
