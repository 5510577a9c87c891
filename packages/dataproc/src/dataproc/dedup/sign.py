"""Documents → signatures, once per source; every scope and threshold reads them.

in:  documents/<source>      out: signatures/<source>, two files per shard of documents, rows in the same order:
     signatures-*.parquet    id string, characters i64 (of the text), text_hash fixed[16] (of the cleaned text),
                             shingles i64
     minima-*.npy            (rows, permutations) u32, little-endian: read by mapping, row by row or whole
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataproc.dedup.minhash import sketch
from dataproc.dedup.shingles import Shingling
from dataproc.documents import ShardWriter, batches, rows_of
from manifest.errors import CorruptArtifact
from manifest.record import Model, Shard

STAGE = "sign/3"
SCHEME = "datasketch-affine32"
SIGNATURES = pa.schema(
    [("id", pa.string()), ("characters", pa.int64()), ("text_hash", pa.binary(16)), ("shingles", pa.int64())]
)


class Signed(Model):
    shards: tuple[Shard, ...]
    documents: int


def sign(shard: Path, *, shingling: Shingling, permutations: int, draft: Path) -> Signed:
    """One task: a shard of documents → its shard of signatures."""
    stem = shard.stem.replace("documents", "signatures")
    writer = ShardWriter(draft, stem, SIGNATURES, whole=True)
    rows = pq.ParquetFile(shard).metadata.num_rows
    with MinimaWriter(draft / minima_name(f"{stem}-00000"), rows, permutations) as minima:
        for batch in batches(shard, ["id", "text"]):
            found = sketch(batch["text"], shingling, permutations)
            columns = [
                batch["id"],
                pa.array(found.characters),
                _fixed(found.text_hash, 16),
                pa.array(found.shingles),
            ]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=SIGNATURES))
            minima.write(found.signatures)
    return Signed(shards=(*writer.close(), minima.shard), documents=rows)


def minima_name(signatures_stem: str) -> str:
    """The name of the file of minima that belongs to a shard of signatures."""
    return signatures_stem.replace("signatures", "minima") + ".npy"


class MinimaWriter:
    """Writes a matrix (rows, permutations) u32 as .npy, some rows at a time.

    A context: the file, and the record of it in `shard`, are there at its end.
    """

    def __init__(self, path: Path, rows: int, permutations: int) -> None:
        self.path, self.rows, self.permutations = path, rows, permutations
        self.shard: Shard
        self._aside = path.with_suffix(".tmp")
        header = io.BytesIO()
        shape = {"descr": "<u4", "fortran_order": False, "shape": (rows, permutations)}
        np.lib.format.write_array_header_1_0(header, shape)
        self._sha256 = hashlib.sha256(header.getvalue())
        self._size = header.tell() + 4 * rows * permutations
        self._file: BinaryIO = self._aside.open("wb")
        self._file.write(header.getvalue())

    def write(self, minima_ND: NDArray[np.uint32]) -> None:
        data = np.ascontiguousarray(minima_ND, "<u4").data
        self._sha256.update(data)
        self._file.write(data)

    def __enter__(self) -> MinimaWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None:
            return
        assert self._aside.stat().st_size == self._size, "every row was written"
        self._aside.replace(self.path)
        digest = self._sha256.hexdigest()  # of the file, whose bytes are canonical
        self.shard = Shard(path=self.path.name, rows=self.rows, digest=digest, bytes=self._size, sha256=digest)


def minima_of(path: Path) -> NDArray[np.uint32]:
    """The signatures (rows, permutations) of a shard, mapped. Raises CorruptArtifact."""
    try:
        minima: NDArray[np.uint32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise CorruptArtifact(
            f"{path} cannot be read ({error}): it was changed or damaged after it was written. Delete {path.parent} "
            "and run the same command again"
        ) from error
    return np.asarray(minima)


def _fixed(values_NK: NDArray[np.generic], width: int) -> pa.Array:
    data = np.ascontiguousarray(values_NK)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data.tobytes())])


def column_of(shard: Path, name: str, dtype: str, width: int) -> NDArray[np.generic]:
    """A fixed-width column of a shard of signatures → (rows, width) numbers."""
    column = rows_of(shard, [name])[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    size = np.dtype(dtype).itemsize * width
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    start = column.offset * size
    return data[start : start + len(column) * size].view(dtype).reshape(-1, width)


def ids_of(shard: Path, rows: Sequence[int] | NDArray[np.int64]) -> pa.Array:
    """The ids of some rows of a shard of signatures."""
    return rows_of(shard, ["id"])["id"].take(pa.array(rows)).combine_chunks()
