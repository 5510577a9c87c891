"""Components → the rows of clusters/<group>: one per document of a cluster of two or more, cut as the documents are.

    id string, cluster string (the smallest id of its component), source string, characters i64,
    text_hash fixed[16] (of the cleaned text), shard i32 (of the source's documents), row i64 (of that shard)

A cluster's rows may lie in many shards: nobody ever holds the whole of it, so a million copies take no more memory than
a million documents.

    shards ──(component, smallest id here)──► by component: its smallest id ──► back to the shards, which write rows
"""

from __future__ import annotations

from collections.abc import Sequence
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
from dataproc.shuffle import partition_batches, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model, Shard

COMPONENTS_PER_PARTITION = 500_000
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

NAMES = pa.schema([("component", pa.int64()), ("id", pa.large_string()), ("shard", pa.int64())])


class Large(Model):
    """One of the largest clusters, with some of its ids and the beginning of one of its documents."""

    cluster: str
    documents: int
    ids: tuple[str, ...]
    excerpt: str


class Written(Model):
    """A shard of clusters; examples: (component, id, cluster) of some documents of the largest components."""

    shards: tuple[Shard, ...]
    examples: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Members:
    shards: tuple[Shard, ...]
    summary: dict[str, Any]


def write_members(group: Group, forest: NDArray[np.int64], *, workers: Workers, draft: Draft) -> Members:
    """forest: over the candidates (links.py)."""
    sizes = _components(group, forest)
    components = np.flatnonzero(sizes > 1)
    partitions = max(1, -(-len(components) // COMPONENTS_PER_PARTITION))
    pairs = list(enumerate(group.pairs))
    label = "clusters"
    smallest = workers.scatter(
        partial(_smallest, group=group, partitions=partitions), pairs, scratch=draft.scratch / "smallest", label=label
    )
    named = workers.scatter(
        partial(_name, smallest=smallest, shards=len(pairs)),
        range(partitions),
        scratch=draft.scratch / "named",
        label=label,
    )
    largest = components[np.lexsort((components, -sizes[components]))][:LARGEST].tolist()
    write = partial(_write, group=group, named=named, largest=largest, draft=draft.path)
    done = workers.map(write, pairs, result=Written, notes=draft.notes / "members", label=label)
    examples = [example for written in done for example in written.examples]
    summary = {
        "clusters": len(components),
        "clustered_documents": int(sizes[components].sum()),
        "largest_cluster": int(sizes[components].max(initial=0)),
        "cluster_sizes": histogram(sizes[components]),
        "largest_clusters": [_large(c, int(sizes[c]), examples, group).model_dump(mode="json") for c in largest],
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
    """Writes `component.npy`; returns the size of each component, at its first document."""
    candidates, firsts = group.candidates(), group.firsts()
    component = np.arange(group.documents, dtype=np.int64)
    component[candidates] = candidates[labels(forest)]
    component = component[firsts]
    sizes = np.bincount(component, minlength=group.documents)
    component[sizes[component] == 1] = -1
    save(group.component_file, component)
    return sizes


def _clustered(pair: ShardPair, group: Group) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of a shard that are in a cluster, and their components."""
    component = mapped(group.component_file)[pair.first : pair.first + pair.rows]
    rows = np.flatnonzero(component >= 0)
    return rows, component[rows]


def _smallest(numbered: tuple[int, ShardPair], file: Path, *, group: Group, partitions: int) -> None:
    """One task: the smallest id of every component in a shard."""
    number, pair = numbered
    rows, component = _clustered(pair, group)
    ids = pl.Series("id", rows_of(pair.signatures, ["id"])["id"].take(pa.array(rows)), pl.String)
    table = pl.DataFrame({"component": component, "id": ids}).group_by("component").agg(pl.col("id").min())
    table = table.sort("component").with_columns(pl.lit(number, pl.Int64).alias("shard"))
    write_partitions(file, table.to_arrow().cast(NAMES), table["component"].to_numpy() % partitions, partitions)


def _name(partition: int, file: Path, *, smallest: tuple[Path, ...], shards: int) -> None:
    """One task: the names of a partition's components, for every shard that has some of them."""
    found = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(list(partition_batches(smallest, partition)), NAMES)))
    named = found.with_columns(pl.col("id").min().over("component").alias("cluster"))
    write_partitions(file, named.to_arrow(), named["shard"].to_numpy(), shards)


def _write(
    numbered: tuple[int, ShardPair], *, group: Group, named: tuple[Path, ...], largest: Sequence[int], draft: Path
) -> Written:
    """One task: the rows of a shard that are in a cluster."""
    number, pair = numbered
    rows, component = _clustered(pair, group)
    if not len(rows):
        return Written(shards=(), examples=())
    names = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(list(partition_batches(named, number)))))
    columns = rows_of(pair.signatures, ["id", "characters", "text_hash"]).take(pa.array(rows))
    table = pl.DataFrame(pl.from_arrow(columns)).with_columns(
        pl.Series("component", component),
        pl.lit(pair.source).alias("source"),
        pl.lit(pair.shard, pl.Int32).alias("shard"),
        pl.Series("row", rows),
    )
    table = table.join(names.select("component", "cluster"), on="component", how="left", maintain_order="left")
    writer = ShardWriter(draft, f"clusters-{number:05d}", CLUSTERS)
    writer.write(table.select(CLUSTERS.names).to_arrow())
    shown = table.filter(pl.col("component").is_in(list(largest))).sort("component", "id")
    shown = shown.group_by("component", maintain_order=True).head(SAMPLED_IDS).select("component", "id", "cluster")
    return Written(shards=writer.close(), examples=tuple(shown.iter_rows()))


def _large(component: int, size: int, examples: Sequence[tuple[int, str, str]], group: Group) -> Large:
    """One of the largest clusters: its first document's text, and its first ids."""
    (pair,) = (pair for pair in group.pairs if pair.first <= component < pair.first + pair.rows)
    text = next(picked(pair.documents, ["text"], np.array([component - pair.first])))["text"][0].as_py()
    ids = sorted(identifier for of, identifier, _ in examples if of == component)[:SAMPLED_IDS]
    (cluster,) = {name for of, _, name in examples if of == component}
    return Large(cluster=cluster, documents=size, ids=tuple(ids), excerpt=text[:EXCERPT_CHARS])
