"""Rows in Parquet: how shards of an artifact are written, read and digested.

A document is one row: id, text, source, meta (canonical JSON of the record's other fields). Where a source has answers,
there is one column more, which says what of the text they are (turns.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifest.errors import CorruptArtifact
from manifest.identity import digest_of
from manifest.record import Shard

DOCUMENTS = pa.schema(
    [("id", pa.string()), ("text", pa.large_string()), ("source", pa.string()), ("meta", pa.string())]
)
ANSWERED = DOCUMENTS.append(pa.field("loss_from", pa.int64()))
DIALOGUES = DOCUMENTS.append(pa.field("turns", pa.string()))
BATCH_ROWS = 2048
SHARD_BYTES = 256_000_000
SHARD_ROWS = 200_000  # whoever works on the rows of a shard, without their texts, holds so many


COMPACT: dict[str, Any] = {"compression": "zstd", "compression_level": 1}
"""Level 3 takes half as long again to write, for a tenth less."""
QUICK: dict[str, Any] = {"compression": "lz4"}
"""For texts, which a build reads several times: half the time to read, a third to two fifths larger."""


class RowDigest:
    """The digest of a table by its rows: the same however the rows were batched, compressed or encoded.

    Per column, lengths and bytes are hashed apart, so that no two tables of one schema share a stream.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._hashers = [(hashlib.sha256(), hashlib.sha256()) for _ in schema]

    def update(self, table: pa.Table | pa.RecordBatch) -> None:
        self.rows += table.num_rows
        for column, (lengths, values) in zip(table.columns, self._hashers, strict=True):
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                _hash_array(chunk, lengths, values)

    def hexdigest(self) -> str:
        columns = [
            [field.name, str(field.type), lengths.hexdigest(), values.hexdigest()]
            for field, (lengths, values) in zip(self.schema, self._hashers, strict=True)
        ]
        return digest_of([self.rows, columns])


def _hash_array(array: pa.Array, lengths: Any, values: Any) -> None:
    assert array.null_count == 0, "shards have no nulls"
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())
        offsets, data = array.buffers()[1:]
        ends = memoryview(offsets).cast("q")[array.offset : array.offset + len(array) + 1] if len(array) else []
        lengths.update(pc.binary_length(array).to_numpy().astype("<u8").tobytes())
        if len(array) and data is not None:
            values.update(memoryview(data)[ends[0] : ends[-1]])
        return
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        data = array.buffers()[1]
        if len(array):
            values.update(memoryview(data)[array.offset * width : (array.offset + len(array)) * width])
        return
    values.update(array.to_numpy(zero_copy_only=False).tobytes())


class ShardWriter:
    """Writes rows into shards `<stem>-00000.parquet`, …, each closed when it holds SHARD_BYTES of Arrow memory or
    SHARD_ROWS rows, give or take a batch; or all into one (`whole`).

    A shard appears under its name when it is whole. Its pages have checksums, which reading checks.
    codec: QUICK or COMPACT.
    """

    def __init__(
        self, directory: Path, stem: str, schema: pa.Schema, *, whole: bool = False, codec: Mapping[str, Any] = COMPACT
    ) -> None:
        self.directory, self.stem, self.schema, self.whole, self.codec = directory, stem, schema, whole, codec
        self.shards: list[Shard] = []
        self._writer: pq.ParquetWriter | None = None
        self._bytes = 0

    def write(self, batch: pa.RecordBatch | pa.Table) -> None:
        if batch.num_rows == 0:
            return
        if self._writer is None:
            self._open()
        assert self._writer is not None
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        table = table.cast(self.schema)
        self._writer.write_table(table, row_group_size=BATCH_ROWS)
        self._digest.update(table)
        self._bytes += table.nbytes
        if not self.whole and (self._bytes >= SHARD_BYTES or self._digest.rows >= SHARD_ROWS):
            self.close()

    def close(self) -> tuple[Shard, ...]:
        """Closes the open shard, if any, and returns all of them."""
        if self._writer is not None:
            self._writer.close()
            self._aside.replace(self._path)
            self.shards.append(
                Shard(
                    path=self._path.name,
                    rows=self._digest.rows,
                    digest=self._digest.hexdigest(),
                    bytes=self._path.stat().st_size,
                    sha256=file_sha256(self._path),
                )
            )
            self._writer = None
        return tuple(self.shards)

    def _open(self) -> None:
        self._path = self.directory / f"{self.stem}-{len(self.shards):05d}.parquet"
        self._aside = self._path.with_suffix(".tmp")
        self._writer = pq.ParquetWriter(
            self._aside,
            self.schema,
            **self.codec,
            use_dictionary=False,
            write_statistics=False,  # they copy the longest document three times: 600 MB and 2 s for one of 200 MB
            write_page_checksum=True,
        )
        self._digest = RowDigest(self.schema)
        self._bytes = 0


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_shard(path: Path, rows: int) -> Shard:
    """A shard that is no table: the file's own bytes are its canonical content, so its digest is its SHA-256."""
    sha256 = file_sha256(path)
    return Shard(path=path.name, rows=rows, digest=sha256, bytes=path.stat().st_size, sha256=sha256)


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, a few thousand at a time, and no more than one write's. Raises CorruptArtifact."""
    wanted = None if columns is None else list(columns)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def picked(path: Path, columns: Sequence[str] | None, rows: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Some rows of a shard, ascending, in batches; row groups that hold none are not read. Raises CorruptArtifact.

    A row may be asked for more than once.
    """
    wanted = None if columns is None else list(columns)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            first = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if len(_between(rows, first, first + size)):
                    at = first
                    for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=wanted):
                        of_batch = _between(rows, at, at + batch.num_rows) - at
                        at += batch.num_rows
                        are_all = np.array_equal(of_batch, np.arange(batch.num_rows))
                        yield batch if are_all else batch.take(pa.array(of_batch))
                first += size
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def documents_schema(path: Path) -> pa.Schema:
    """The columns of a shard of documents. Raises CorruptArtifact."""
    try:
        names = set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return next((more for more in (ANSWERED, DIALOGUES) if names == set(more.names)), DOCUMENTS)


def _between(rows: npt.NDArray[np.int64], first: int, end: int) -> npt.NDArray[np.int64]:
    """Those of ascending rows from `first` to before `end`."""
    low, high = np.searchsorted(rows, [first, end])
    return rows[low:high]


def rows_of(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard as one table (for shards of ids, signatures and the like, not of text). Raises CorruptArtifact."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def rows_at(path: Path, rows: npt.NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
    """Some rows of a shard, ascending, as one table. Raises CorruptArtifact."""
    found = list(picked(path, columns, rows))
    return pa.Table.from_batches(found) if found else rows_of(path, columns).slice(0, 0)


def frame_of(paths: Sequence[Path], schema: pl.Schema) -> pl.DataFrame:
    """Some columns of several shards, end to end. Raises CorruptArtifact."""
    tables = (pl.DataFrame(pl.from_arrow(rows_of(path, list(schema)))) for path in paths)
    return pl.concat([pl.DataFrame(schema=schema), *tables])


def _damaged(path: Path, error: Exception) -> CorruptArtifact:
    reason = " ".join(str(error).split())
    return CorruptArtifact(
        f"{path} cannot be read ({reason}): it was changed or damaged after it was written. Delete {path.parent} and "
        "run the same command again"
    )
