"""Documents → signatures, once per source; every scope and threshold reads them.

in:  documents/<source>      out: signatures/<source>, one shard per shard of documents, rows in the same order:
     id string, characters i64 (of the text), text_hash fixed[16] (of the cleaned text), shingles i64,
     signature fixed[4 · permutations] (u32, little-endian)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.minhash import signatures
from dataproc.dedup.shingles import Shingling, shingle_hashes, text_hashes
from dataproc.documents import ShardWriter, batches, rows_of
from manifest.record import Model, Shard

STAGE = "sign/1"
SCHEME = "datasketch-affine32"


class Signed(Model):
    shards: tuple[Shard, ...]
    documents: int


def schema(permutations: int) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("characters", pa.int64()),
            ("text_hash", pa.binary(16)),
            ("shingles", pa.int64()),
            ("signature", pa.binary(4 * permutations)),
        ]
    )


def sign(shard: Path, *, shingling: Shingling, permutations: int, draft: Path) -> Signed:
    """One task: a shard of documents → its shard of signatures."""
    stem = shard.stem.replace("documents", "signatures")
    writer = ShardWriter(draft, stem, schema(permutations), shard_bytes=sys.maxsize)  # one for one, whatever its size
    rows = 0
    for batch in batches(shard, ["id", "text"]):
        cleaned = clean_all(batch["text"])
        shingles = shingle_hashes(cleaned, shingling)
        columns = [
            batch["id"],
            pc.utf8_length(batch["text"]).cast(pa.int64()),
            _fixed(text_hashes(cleaned), 16),
            pa.array(np.diff(shingles.offsets)),
            _fixed(signatures(shingles, permutations=permutations), 4 * permutations),
        ]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=schema(permutations)))
        rows += batch.num_rows
    return Signed(shards=writer.close(), documents=rows)


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
