"""A stream of bytes → its content, as its name says: .gz, .zst, or as it is. A chunk at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from manifest.errors import DataError

CHUNK_BYTES = 1 << 20
COMPRESSED_CHUNK_BYTES = 1 << 16  # gzip gives up to a thousand times as much
ZSTD_WINDOW_BYTES = 1 << 31  # what `zstd --long=31` writes needs it


def decompressed(stream: Any, name: str) -> Iterator[bytes]:
    """Raises DataError if the stream is cut off, or not of the format that its name says."""
    if name.endswith(".gz"):
        yield from _frames(stream, name, _gzip_member, zlib.error)
    elif name.endswith(".zst"):
        yield from _frames(stream, name, _zstd_frame, zstandard.ZstdError)
    else:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _gzip_member() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()


def _frames(stream: Any, name: str, frame: Callable[[], Any], error_kind: type[Exception]) -> Iterator[bytes]:
    """The content of all frames, end to end."""
    current = None
    while chunk := stream.read(COMPRESSED_CHUNK_BYTES):
        while chunk:
            current = current or frame()
            try:
                yield current.decompress(chunk)
            except error_kind as error:
                raise DataError(f"{name} is damaged or not what its name says ({error}); write it again") from error
            chunk = current.unused_data if current.eof else b""
            current = None if current.eof else current
    if current is not None:
        raise DataError(f"{name} is cut off: its compressed data ends before its end mark; copy or write it again")
