"""Components → the rows of clusters/<group>: one per document of a cluster of two or more, in order of (cluster, id).

    id string, cluster string (the smallest id of its component), source string, characters i64,
    text_hash fixed[16] (of the cleaned text), shard i32 (of the source's documents), row i64 (of that shard)

A cluster lies whole in one shard of clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.components import labels
from dataproc.dedup.group import Group, ShardPair, mapped, save
from dataproc.documents import ShardWriter, picked, rows_of
from dataproc.shuffle import Scattered, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model, Shard

ROWS_PER_SHARD = 50_000
LARGEST = 10
SAMPLED_IDS = 5
EXCERPT_CHARS = 200
CLUSTERS = pa.schema(
    [
        ("id", pa.string()),
        ("cluster", pa.string()),
        ("source", pa.string()),
        ("characters", pa.int64()),
        ("text_hash", pa.binary(16)),
        ("shard", pa.int32()),
        ("row", pa.int64()),
    ]
)


class Large(Model):
    """One of the largest clusters, with the first of its ids and the beginning of its first document."""

    cluster: str
    documents: int
    ids: tuple[str, ...]
    excerpt: str


class Top(Model):
    """One of the largest clusters of a shard; `at`: source, shard and row of its first document."""

    cluster: str
    documents: int
    ids: tuple[str, ...]
    at: tuple[str, int, int]


class Written(Model):
    shards: tuple[Shard, ...]
    largest: tuple[Top, ...]


@dataclass(frozen=True)
class Members:
    shards: tuple[Shard, ...]
    summary: dict[str, Any]


def write_members(group: Group, forest: NDArray[np.int64], *, workers: Workers, draft: Draft) -> Members:
    """forest: over the candidates (links.py)."""
    sizes = _components(group, forest)
    clustered = int(sizes.sum())
    partitions = max(1, -(-clustered // ROWS_PER_SHARD))
    done = workers.exchange(
        partial(_scatter, group=group, partitions=partitions),
        group.pairs,
        partial(_gather, draft=draft.path),
        partitions=partitions,
        result=Written,
        scratch=draft.scratch / "members",
        label="clusters",
    )
    largest = sorted((top for written in done for top in written.largest), key=_by_size)[:LARGEST]
    summary = {
        "clusters": len(sizes),
        "clustered_documents": clustered,
        "largest_cluster": int(sizes.max(initial=0)),
        "cluster_sizes": histogram(sizes),
        "largest_clusters": [_with_excerpt(top, group).model_dump(mode="json") for top in largest],
    }
    return Members(tuple(shard for written in done for shard in written.shards), summary)


def histogram(sizes: NDArray[np.int64]) -> dict[str, int]:
    """How many clusters have 2, 3–4, 5–8, … documents."""
    found: dict[str, int] = {}
    low, high = 2, 2
    while low <= sizes.max(initial=0):
        found[f"{low}-{high}" if low < high else f"{low}"] = int(((sizes >= low) & (sizes <= high)).sum())
        low, high = high + 1, 2 * high
    return found


def _components(group: Group, forest: NDArray[np.int64]) -> NDArray[np.int64]:
    """Writes `component.npy`; returns the sizes of all components of two or more."""
    candidates, firsts = group.candidates(), group.firsts()
    component = np.arange(group.documents, dtype=np.int64)
    component[candidates] = candidates[labels(forest)]
    component = component[firsts]
    sizes = np.bincount(component, minlength=group.documents)
    component[sizes[component] == 1] = -1
    save(group.component_file, component)
    return sizes[sizes > 1]


def _scatter(pair: ShardPair, file: Path, *, group: Group, partitions: int) -> None:
    """One task: the rows of a shard that are in a cluster."""
    component = mapped(group.component_file)[pair.first : pair.first + pair.rows]
    rows = np.flatnonzero(component >= 0)
    table = rows_of(pair.signatures, ["id", "characters", "text_hash"]).take(pa.array(rows))
    table = table.append_column("source", pa.array([pair.source] * len(rows), pa.string()))
    table = table.append_column("shard", pa.array(np.full(len(rows), pair.shard, np.int32)))
    table = table.append_column("row", pa.array(rows))
    table = table.append_column("component", pa.array(component[rows]))
    write_partitions(file, table, component[rows] % partitions, partitions)


def _gather(partition: int, rows: Scattered, *, draft: Path) -> Written:
    """One task: the clusters of a partition."""
    found = list(rows)
    if not found:
        return Written(shards=(), largest=())
    smallest = pl.col("id").min().over("component").alias("cluster")
    table = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(found))).with_columns(smallest).sort("cluster", "id")
    writer = ShardWriter(draft, f"clusters-{partition:05d}", CLUSTERS)
    writer.write(table.select(CLUSTERS.names).to_arrow())
    counted = table.group_by("cluster").agg(
        pl.len().alias("documents"),
        pl.col("id").head(SAMPLED_IDS).alias("ids"),
        pl.col("source", "shard", "row").first(),
    )
    top = counted.sort("documents", "cluster", descending=[True, False]).head(LARGEST)
    largest = (
        Top(cluster=cluster, documents=documents, ids=tuple(ids), at=at)
        for cluster, documents, ids, *at in top.iter_rows()
    )
    return Written(shards=writer.close(), largest=tuple(largest))


def _with_excerpt(top: Top, group: Group) -> Large:
    source, shard, row = top.at
    (pair,) = (pair for pair in group.pairs if (pair.source, pair.shard) == (source, shard))
    text = next(picked(pair.documents, ["text"], np.array([row])))["text"][0].as_py()
    return Large(cluster=top.cluster, documents=top.documents, ids=top.ids, excerpt=text[:EXCERPT_CHARS])


def _by_size(top: Top) -> tuple[int, str]:
    return -top.documents, top.cluster
