"""Documents of equal cleaned text, found by 128-bit hashes before anything else is compared.

    text hashes of all shards ──exchange by hash──► edges (first document of a text, each other)
                              ──driver──► `firsts.npy` (N,) i64: the first document of the same text

Only firsts go on to the bands, so a million copies of a document cost a million hashes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.buckets import may_repeat
from dataproc.dedup.group import Group, ShardPair, save
from dataproc.dedup.sign import column_of
from dataproc.shuffle import Scattered, partition_of, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model


class Linked(Model):
    """What a partition found: documents that are not the first of their text."""

    repeats: int


def link_identical(group: Group, *, workers: Workers, draft: Draft) -> int:
    """Writes `firsts.npy`. Returns how many documents are not the first of their text."""
    done = workers.exchange(
        partial(_scatter, group=group),
        group.pairs,
        partial(_gather, group=group),
        partitions=group.partitions,
        result=Linked,
        scratch=draft.scratch / "texts",
        label="equal texts",
    )
    firsts = np.arange(group.documents, dtype=np.int64)
    for partition in range(group.partitions):
        edges = np.load(_edges_file(group, partition))
        firsts[edges[:, 1]] = edges[:, 0]
    save(group.firsts_file, firsts)
    return sum(linked.repeats for linked in done)


def identical(hashes_N2: NDArray[np.uint64], docs: NDArray[np.int64]) -> NDArray[np.int64]:
    """128-bit hashes of cleaned texts → edges (E, 2), from the smallest document of a text to each other."""
    perhaps = may_repeat(np.ascontiguousarray(hashes_N2[:, 0]))
    hashes_N2, docs = hashes_N2[perhaps], docs[perhaps]
    order = np.lexsort((docs, hashes_N2[:, 1], hashes_N2[:, 0]))
    ordered, docs = hashes_N2[order], docs[order]
    repeats = np.zeros(len(docs), np.bool_)
    repeats[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    firsts = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(docs))))
    return np.stack([docs[firsts[repeats]], docs[repeats]], axis=1)


def scatter_hashes(file: Path, hashes_N2: NDArray[np.uint64], docs: NDArray[np.int64], partitions: int) -> None:
    """Writes 128-bit hashes with their documents, by hash."""
    low, high = (np.ascontiguousarray(column) for column in hashes_N2.T)
    table = pa.table({"low": low, "high": high, "doc": docs})
    write_partitions(file, table, partition_of(low, partitions), partitions)


def gather_identical(rows: Scattered) -> NDArray[np.int64]:
    """What `scatter_hashes` wrote of a partition → edges (E, 2), as `identical` has them."""
    found = list(rows)
    low, high, docs = (
        np.concatenate([np.zeros(0, kind), *(batch[name].to_numpy() for batch in found)])
        for name, kind in (("low", np.uint64), ("high", np.uint64), ("doc", np.int64))
    )
    return identical(np.stack([low, high], axis=1), docs)


def _scatter(pair: ShardPair, file: Path, *, group: Group) -> None:
    """The text hashes of a shard, by hash."""
    hashes_N2 = column_of(pair.signatures, "text_hash", "<u8", 2).astype(np.uint64)
    scatter_hashes(file, hashes_N2, pair.numbers, group.partitions)


def _gather(partition: int, rows: Scattered, *, group: Group) -> Linked:
    """The edges of a partition."""
    edges = gather_identical(rows)
    save(_edges_file(group, partition), edges)
    return Linked(repeats=len(edges))


def _edges_file(group: Group, partition: int) -> Path:
    return group.scratch / f"equal-{partition:05d}.npy"
