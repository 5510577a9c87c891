"""Cleaned texts on disk, each compressed for itself, so that any of them can be read alone.

    frames        one Zstandard frame per text
    offsets       (texts + 1,) u64 at the end of the file: where each frame begins

Shingle sets would take eight bytes per character; a text takes half of one, and its set is made again in microseconds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import zstandard
from numpy.typing import NDArray

from dataproc.dedup.index.tables import map_bytes
from dataproc.documents import file_sha256
from manifest.errors import CorruptArtifact
from manifest.record import Shard


class TextWriter:
    """Writes texts to a file, which is there, with its record in `shard`, at the end of the context.

    The file's digest is over the hashes of its texts, for another compressor makes other bytes of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shard: Shard
        self._aside = path.with_suffix(".tmp")
        self._compressor = zstandard.ZstdCompressor(write_checksum=True)
        self._digest = hashlib.sha256()
        self._ends = [0]
        self._file: BinaryIO = self._aside.open("wb")

    def write(self, cleaned: pa.LargeStringArray, hashes_N2: NDArray[np.uint64]) -> None:
        """Cleaned texts and their hashes (shingles.text_hashes)."""
        for text in cleaned.to_pylist():
            frame = self._compressor.compress(text.encode())
            self._file.write(frame)
            self._ends.append(self._ends[-1] + len(frame))
        self._digest.update(np.ascontiguousarray(hashes_N2, "<u8").data)

    def __enter__(self) -> TextWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            self._file.write(np.array(self._ends, "<u8").data)
        self._file.close()
        if kind is not None:
            return
        self._aside.replace(self.path)
        self.shard = Shard(
            path=self.path.name,
            rows=len(self._ends) - 1,
            digest=self._digest.hexdigest(),
            bytes=self.path.stat().st_size,
            sha256=file_sha256(self.path),
        )


def read_texts(path: Path, texts: int, rows: NDArray[np.int64]) -> list[str]:
    """Some of the texts of a file that holds so many. Raises CorruptArtifact."""
    data = map_bytes(path)
    offsets = data[len(data) - 8 * (texts + 1) :].view("<u8") if len(data) >= 8 * (texts + 1) else np.zeros(0)
    decompressor = zstandard.ZstdDecompressor()
    try:
        frames = (data[int(offsets[row]) : int(offsets[row + 1])] for row in rows)
        return [decompressor.decompress(frame.data).decode() for frame in frames]
    except (zstandard.ZstdError, UnicodeDecodeError, IndexError) as error:
        raise CorruptArtifact(f"{path} cannot be read ({error}): it is part of an index; restore it") from error
