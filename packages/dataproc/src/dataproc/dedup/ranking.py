"""Clusters → their members in keep order, one file per shard of clusters.

out: `ranked-PPPPP.parquet`: the columns of clusters/<group>, survivor, survivor_source, rule (keep.py)

Where the order has a key by metadata, the field's values are fetched from the documents first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataproc.dedup.keep import Key, fields_of, numbers_in, ranked
from dataproc.dedup.places import Sources, fetch, place_column
from dataproc.documents import rows_of
from dataproc.shuffle import partition_batches
from dataproc.stage import Draft
from dataproc.workers import Done, Workers

Choose = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Order:
    """How members of clusters are ranked: the keys, and the sources that `source_order` speaks of."""

    keep: tuple[Key, ...]
    sources: tuple[str, ...]


def rank(
    clusters: Sequence[Path],
    sources: Sources,
    keep: Sequence[Key],
    *,
    choose: Choose | None = None,
    workers: Workers,
    draft: Draft,
) -> list[Path]:
    """The files. choose: keeps only some whole clusters of a table of clusters; a picklable function."""
    order = Order(tuple(keep), tuple(name for name, _ in sources))
    values: tuple[Path, ...] = ()
    if fields_of(keep):
        wanted = partial(_places, clusters=clusters, sources=sources, choose=choose)
        values = fetch(
            wanted,
            len(clusters),
            sources,
            ["meta"],
            workers=workers,
            scratch=draft.scratch / "fields",
            label="fields of clustered documents",
        )
    files = [draft.scratch / f"ranked-{partition:05d}.parquet" for partition in range(len(clusters))]
    task = partial(_rank, clusters=clusters, sources=sources, order=order, choose=choose, values=values, files=files)
    workers.map(task, range(len(clusters)), result=Done, notes=draft.notes / "ranked", label="survivors")
    return files


def _places(partition: int, *, clusters: Sequence[Path], sources: Sources, choose: Choose | None) -> pl.DataFrame:
    return _members(clusters[partition], choose).select(place_column(sources), "row")


def _members(shard: Path, choose: Choose | None) -> pl.DataFrame:
    table = pl.DataFrame(pl.from_arrow(rows_of(shard)))
    return table if choose is None else choose(table)


def _rank(
    partition: int,
    *,
    clusters: Sequence[Path],
    sources: Sources,
    order: Order,
    choose: Choose | None,
    values: tuple[Path, ...],
    files: Sequence[Path],
) -> Done:
    """One task: a shard of clusters."""
    table = _members(clusters[partition], choose)
    if values:
        found = pa.Table.from_batches(list(partition_batches(values, partition)))
        places = pl.DataFrame(pl.from_arrow(found.select(["place", "row"])))
        meta = found["meta"].to_pylist()
        columns = [numbers_in(meta, field).alias(f"field {field}") for field in fields_of(order.keep)]
        table = table.with_columns(place_column(sources))
        table = table.join(places.with_columns(columns), on=["place", "row"], how="left").drop("place")
    aside = files[partition].with_suffix(".tmp")
    pq.write_table(ranked(table, order.keep, order.sources).to_arrow(), aside)
    aside.replace(files[partition])
    return Done()
