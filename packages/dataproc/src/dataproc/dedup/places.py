"""Documents by their place: (source, shard of the source's documents, row of the shard).

Stages that act on some of many documents exchange places, never lists of ids: a task per shard gets the rows that
concern it, however many there are in all.

    wanted by (shard, row, partition) ──exchange──► per shard: reads these rows ──► by partition: values
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataproc.documents import DOCUMENTS, picked, rows_of
from dataproc.shuffle import partition_batches, write_partitions
from dataproc.workers import Workers

PLACES = pa.schema([("place", pa.int64()), ("row", pa.int64()), ("partition", pa.int64())])

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


def fetch(
    wanted: Callable[[int], pl.DataFrame],
    partitions: int,
    sources: Sources,
    columns: Sequence[str],
    *,
    workers: Workers,
    scratch: Path,
    label: str,
) -> tuple[Path, ...]:
    """Brings some columns of some documents to where they are needed.

    wanted: a picklable function from a partition's number to its rows (place, row). Returns the files of a shuffle:
    `partition_batches(files, p)` has the rows (place, row, columns…) that partition p wanted.
    """
    shards = numbered(sources)
    asked = workers.scatter(
        partial(_ask, wanted=wanted, shards=len(shards)), range(partitions), scratch=scratch / "asked", label=label
    )
    answer = partial(_answer, shards=shards, asked=asked, columns=list(columns), partitions=partitions)
    return workers.scatter(answer, range(len(shards)), scratch=scratch / "answered", label=label)


def _ask(partition: int, file: Path, *, wanted: Callable[[int], pl.DataFrame], shards: int) -> None:
    rows = wanted(partition).select("place", "row", pl.lit(partition, pl.Int64).alias("partition"))
    write_partitions(file, rows.to_arrow().cast(PLACES), rows["place"].to_numpy(), shards)


def _answer(
    place: int,
    file: Path,
    *,
    shards: Sequence[Path],
    asked: tuple[Path, ...],
    columns: Sequence[str],
    partitions: int,
) -> None:
    wanted = pa.Table.from_batches(list(partition_batches(asked, place)), schema=PLACES).sort_by("row")
    rows, partition = wanted["row"].to_numpy(), wanted["partition"].to_numpy()
    found = pa.Table.from_batches(picked(shards[place], columns, rows), pa.schema(DOCUMENTS.field(c) for c in columns))
    table = found.add_column(0, "row", pa.array(rows)).add_column(0, "place", pa.array(np.full(len(rows), place)))
    write_partitions(file, table, partition, partitions)


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
