"""The files of an exchange: rows cut by partition, one Arrow IPC file per item, one record batch per partition.

Readers map the file and take their batch, so memory is bounded by the partition and nothing is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Scattered = Iterator[pa.RecordBatch]


def partition_of(keys: npt.NDArray[np.uint64], partitions: int) -> npt.NDArray[np.int64]:
    """The partition of each key, by its low bits. Keys are uniform 64-bit hashes."""
    return ((keys & np.uint64(0xFFFFFFFF)) * np.uint64(partitions) >> np.uint64(32)).astype(np.int64)


def write_partitions(path: Path, table: pa.Table, partition: npt.NDArray[np.integer], partitions: int) -> None:
    """Writes the rows of `table` by partition number (one per row), keeping their order within a partition."""
    order = np.argsort(partition, kind="stable")
    ends = np.searchsorted(partition[order], np.arange(partitions + 1))
    rows = table.combine_chunks()  # of several chunks, `take` would make one again and again
    empty = pa.RecordBatch.from_pylist([], schema=table.schema)

    def piece(first: int, end: int) -> pa.RecordBatch:
        if first == end:
            return empty
        (batch,) = (rows if end - first == len(rows) else rows.take(pa.array(order[first:end]))).to_batches()
        return batch

    write_batches(path, table.schema, itertools.starmap(piece, itertools.pairwise(ends)))


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes one batch per partition, also an empty one: readers go by number."""
    aside = path.with_suffix(".tmp")
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    aside.replace(path)


def partition_batches(files: tuple[Path, ...], partition: int) -> Scattered:
    """The rows of a partition, one batch per file, memory-mapped."""
    for file in files:
        with pa.memory_map(str(file)) as source:
            batch = pa.ipc.open_file(source).get_batch(partition)
            if batch.num_rows:
                yield batch
