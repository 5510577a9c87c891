"""Signatures → clusters: the connected components of all verified pairs of a group of sources.

in:  signatures/<source>…, documents/<source>…
out: clusters/<group>: one row per document of a cluster of two or more
     id, cluster (the smallest id of its component), source, characters

    1 number       documents in order of id; signatures into one mapped matrix in that order
    2 identical    equal cleaned texts are linked first; only one of each goes on
    3 keys         band keys, scattered by (band, key) into partitions
    4 sets         the shingle sets of the documents that share a key
    5 rounds       band by band: partitions in parallel, each knowing what earlier bands connected

All data goes through scratch files in the draft; the driver holds a few numbers per document. Every task leaves a note,
so a killed build takes up where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.bands import Bands
from dataproc.dedup.components import labels
from dataproc.dedup.evidence import gather_sets, keys_and_docs, scatter_keys
from dataproc.dedup.group import Group, ShardPair, fill, link_identical, number, save, shard_pairs
from dataproc.dedup.pairs import link
from dataproc.dedup.shingles import Shingling
from dataproc.documents import ShardWriter, rows_of
from dataproc.stage import Draft, Made
from dataproc.workers import Done, Workers
from manifest.record import Model

STAGE = "cluster/1"
BUCKET_CAP = 4096  # comparisons in a bucket grow with its square up to here, and linearly beyond
ROWS_PER_PARTITION = 2_000_000
CLUSTERS = pa.schema(
    [("id", pa.string()), ("cluster", pa.string()), ("source", pa.string()), ("characters", pa.int64())]
)


class Counted(Model):
    """What linking one partition of one band did."""

    edges: int
    largest_bucket: int
    capped_buckets: int


def cluster(
    sources: Sequence[tuple[str, Sequence[Path], Sequence[Path]]],
    *,
    shingling: Shingling,
    permutations: int,
    bands: Bands,
    threshold: float,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage. sources: (name, shards of documents, shards of signatures), in recipe order."""
    pairs = shard_pairs(sources)
    rows = sum(pair.rows for pair in pairs)
    if rows == 0:
        return Made((), _summary(0, np.zeros(0, np.int64), [], 0, bands))
    partitions = -(-rows // ROWS_PER_PARTITION)
    group = Group(draft.scratch, rows, shingling, permutations, bands, threshold, partitions)
    number(pairs, group)
    workers.map(partial(fill, group=group), pairs, result=Done, notes=draft.notes / "fill", label="signatures in order")
    equal = link_identical(pairs, group)
    files = workers.scatter(
        partial(scatter_keys, group=group), pairs, scratch=group.scratch / "keys", label="band keys"
    )
    gather_sets(pairs, group, files, workers=workers, draft=draft)
    counted = _rounds(group, files, workers, draft)
    return _made(pairs, group, counted, equal, draft)


def _rounds(group: Group, files: tuple[Path, ...], workers: Workers, draft: Draft) -> list[Counted]:
    counted: list[Counted] = []
    for band in range(group.bands.count):
        counted += workers.map(
            partial(_link, group=group, files=files, band=band),
            range(group.partitions),
            result=Counted,
            notes=draft.notes / f"band-{band:03d}",
            label=f"band {band + 1} of {group.bands.count}",
        )
        edges = [np.load(group.scratch / _edges_name(band, p)) for p in range(group.partitions)]
        group.connect(band, np.concatenate(edges))
    return counted


def _edges_name(band: int, partition: int) -> str:
    return f"edges-{band:03d}-{partition:05d}.npy"


def _link(partition: int, *, group: Group, files: tuple[Path, ...], band: int) -> Counted:
    """One task: the edges of a partition of a band."""
    keys, docs = keys_and_docs(files, band * group.partitions + partition)
    links = link(
        keys,
        docs,
        group.signatures(),
        group.sets(),
        group.parent(band),
        threshold=group.threshold,
        cap=BUCKET_CAP,
    )
    save(group.scratch / _edges_name(band, partition), links.edges)
    return Counted(
        edges=len(links.edges),
        largest_bucket=links.counters.largest_bucket,
        capped_buckets=links.counters.capped_buckets,
    )


def _made(pairs: Sequence[ShardPair], group: Group, counted: Sequence[Counted], equal: int, draft: Draft) -> Made:
    root = labels(group.parent(group.bands.count))
    sizes = np.bincount(root, minlength=group.documents)
    writer = ShardWriter(draft.path, "clusters", CLUSTERS)
    for batch in _members(pairs, group, root, sizes).to_batches(max_chunksize=100_000):
        writer.write(batch)
    return Made(writer.close(), _summary(group.documents, sizes[sizes > 1], counted, equal, group.bands))


def _summary(
    documents: int, clusters: NDArray[np.int64], counted: Sequence[Counted], equal: int, bands: Bands
) -> dict[str, object]:
    return {
        "documents": documents,
        "clusters": len(clusters),
        "clustered_documents": int(clusters.sum()),
        "largest_cluster": int(clusters.max(initial=0)),
        "identical_links": equal,
        "verified_links": sum(c.edges for c in counted),
        "largest_bucket": max((c.largest_bucket for c in counted), default=0),
        "capped_buckets": sum(c.capped_buckets for c in counted),
        "s_curve": {f"{j / 100:.2f}": round(bands.catch_probability(j / 100), 6) for j in range(50, 100, 5)},
    }


def _members(pairs: Sequence[ShardPair], group: Group, root: NDArray[np.int64], sizes: NDArray[np.int64]) -> pa.Table:
    """The rows of all documents in clusters of two or more, in order of id."""
    parts: list[pa.Table] = []
    for pair in pairs:
        numbers = group.numbers(pair)
        rows = np.flatnonzero(sizes[root[numbers]] > 1)
        table = rows_of(pair.signatures, ["id", "characters"]).take(pa.array(rows))
        table = table.append_column("source", pa.array([pair.source] * len(rows), pa.string()))
        table = table.append_column("number", pa.array(numbers[rows]))
        parts.append(table.append_column("root", pa.array(root[numbers[rows]])))
    table = pa.concat_tables(parts).sort_by("number")
    ascending, roots = table["number"].to_numpy(), table["root"].to_numpy()
    smallest = pa.array(np.searchsorted(ascending, roots))  # the root is in the table: it has the smallest number
    return table.append_column("cluster", table["id"].take(smallest)).select(CLUSTERS.names)
