"""Documents by their place: (source, shard of the source's documents, row of the shard).

Stages that act on some of many documents exchange places, never lists of ids: a task per shard gets the rows that
concern it, however many there are in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataproc.documents import rows_of
from dataproc.shuffle import partition_batches, write_partitions
from dataproc.workers import Workers

Sources = Sequence[tuple[str, Sequence[Path]]]
"""(name, shards of documents), in recipe order."""


def numbered(sources: Sources) -> list[Path]:
    """The shards of all sources, end to end."""
    return [shard for _, shards in sources for shard in shards]


def place_column(sources: Sources) -> pl.Expr:
    """The number of a document's shard among those of all sources, from its columns `source` and `shard`."""
    first: dict[str, int] = {}
    total = 0
    for name, shards in sources:
        first[name] = total
        total += len(shards)
    return (pl.col("source").replace_strict(first, return_dtype=pl.Int64) + pl.col("shard")).alias("place")


def rows_by_shard(
    lists: Sequence[Path], sources: Sources, *, workers: Workers, scratch: Path, label: str
) -> tuple[Path, ...]:
    """Lists of documents (shards with source, shard, row) → files of a shuffle: partition_batches(files, place) has the
    rows (place, row) of that shard. Documents of other sources than these are left out.
    """
    task = partial(_by_shard, sources=sources)
    return workers.scatter(task, list(lists), scratch=scratch, label=label)


def listed_rows(files: tuple[Path, ...], place: int) -> NDArray[np.int64]:
    """The rows of a shard that `rows_by_shard` found, ascending, each once."""
    found = [batch["row"].to_numpy() for batch in partition_batches(files, place)]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def _by_shard(listing: Path, file: Path, *, sources: Sources) -> None:
    rows = rows_of(listing, ["source", "shard", "row"])
    source = pc.index_in(rows["source"], pa.array([name for name, _ in sources])).fill_null(-1).to_numpy()
    ours = np.flatnonzero(source >= 0)
    firsts = np.cumsum([0, *(len(shards) for _, shards in sources)])
    place = firsts[source[ours]] + rows["shard"].to_numpy()[ours]
    write_partitions(file, pa.table({"place": place, "row": rows["row"].to_numpy()[ours]}), place, int(firsts[-1]))
