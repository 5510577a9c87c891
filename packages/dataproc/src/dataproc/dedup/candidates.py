"""Signatures → buckets: who shares a band key with whom.

keys        one row (key, doc) per first document of a text and band, scattered by (band, key) into partitions
buckets     per band and partition: the documents that share a key (buckets.py)
candidates  every document of a bucket; all others are alone
"""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.buckets import Buckets, buckets
from dataproc.dedup.group import Group, ShardPair, mapped, save
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.sign import minima_of
from dataproc.shuffle import partition_batches, partition_of, write_batches
from dataproc.stage import Draft
from dataproc.workers import Done, Workers

KEYS = pa.schema([("key", pa.uint64()), ("doc", pa.int64())])


def find_candidates(group: Group, *, workers: Workers, draft: Draft) -> None:
    """Writes the buckets of all bands and partitions, and `candidates.npy`."""
    files = workers.scatter(
        partial(_scatter, group=group), group.pairs, scratch=draft.scratch / "keys", label="band keys"
    )
    partitions = range(group.matching.bands.count * group.partitions)
    task = partial(_gather, group=group, files=files)
    workers.map(task, partitions, result=Done, notes=draft.notes / "buckets", label="documents that share a band")
    wanted = np.zeros(group.documents, np.bool_)
    for number in partitions:
        wanted[buckets_of(group, number).members] = True
    save(group.scratch / "candidates.npy", np.flatnonzero(wanted))
    for file in files:
        file.unlink(missing_ok=True)


def buckets_of(group: Group, number: int) -> Buckets:
    """The buckets of partition `number` = band · partitions + partition, mapped."""
    members, bounds = _files(group, number)
    return Buckets(mapped(members), mapped(bounds))


def _scatter(pair: ShardPair, file: Path, *, group: Group) -> None:
    """One task: the band keys of a shard."""
    signatures_ND = minima_of(pair.minima)
    takes_part = group.firsts()[pair.first : pair.first + pair.rows] == pair.numbers
    if group.matching.verified:
        takes_part &= is_signed(signatures_ND)
    keys_NB = band_keys(signatures_ND[takes_part], group.matching.bands)
    docs = pair.numbers[takes_part]
    write_batches(file, KEYS, (piece for keys in keys_NB.T for piece in _cut(keys, docs, group.partitions)))


def _cut(keys: NDArray[np.uint64], docs: NDArray[np.int64], partitions: int) -> list[pa.RecordBatch]:
    """The rows of a band by partition."""
    if partitions == 1:
        return [pa.RecordBatch.from_arrays([pa.array(keys), pa.array(docs)], schema=KEYS)]
    partition = partition_of(keys, partitions)
    order = np.argsort(partition, kind="stable")
    whole = pa.RecordBatch.from_arrays([pa.array(keys[order]), pa.array(docs[order])], schema=KEYS)
    ends = np.searchsorted(partition[order], np.arange(partitions + 1))
    return [whole.slice(first, last - first) for first, last in itertools.pairwise(ends)]


def _gather(number: int, *, group: Group, files: tuple[Path, ...]) -> Done:
    """One task: the buckets of a partition of a band."""
    rows = list(partition_batches(files, number))
    keys = [np.zeros(0, np.uint64), *(batch["key"].to_numpy() for batch in rows)]
    docs = [np.zeros(0, np.int64), *(batch["doc"].to_numpy() for batch in rows)]
    found = buckets(np.concatenate(keys), np.concatenate(docs))
    for file, array in zip(_files(group, number), found, strict=True):
        save(file, array)
    return Done()


def _files(group: Group, number: int) -> tuple[Path, Path]:
    band, partition = divmod(number, group.partitions)
    stem = f"buckets-{band:03d}-{partition:05d}"
    return group.scratch / f"{stem}.members.npy", group.scratch / f"{stem}.bounds.npy"
