"""The files of an exchange: rows cut by partition, one Arrow IPC file per item, one record batch per partition.

Readers map the file and take their batch, so memory is bounded by the partition and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Scattered = Iterator[pa.RecordBatch]


def write_partitions(path: Path, table: pa.Table, partition: npt.NDArray[np.integer], partitions: int) -> None:
    """Writes the rows of `table` by partition number (one per row), keeping their order within a partition."""
    order = np.argsort(partition, kind="stable")
    ends = np.searchsorted(partition[order], np.arange(partitions + 1))
    rows = table.take(pa.array(order)).combine_chunks()
    aside = path.with_suffix(".tmp")
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for p in range(partitions):
            piece = rows.slice(int(ends[p]), int(ends[p + 1] - ends[p]))
            # A batch for every partition, also an empty one: readers go by number.
            batch = piece.to_batches()[0] if piece.num_rows else pa.RecordBatch.from_pylist([], schema=table.schema)
            writer.write_batch(batch)
    aside.replace(path)


def partition_batches(files: tuple[Path, ...], partition: int) -> Scattered:
    """The rows of a partition, one batch per file, memory-mapped."""
    for file in files:
        with pa.memory_map(str(file)) as source:
            batch = pa.ipc.open_file(source).get_batch(partition)
            if batch.num_rows:
                yield batch
