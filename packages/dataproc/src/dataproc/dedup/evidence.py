"""What decides about pairs of a group: who shares a band key with whom, and the shingle sets of those who do.

band keys        one row (key, doc) per document and band, scattered by (band, key mod partitions)
suspects         the documents that share a key with another
shingle sets     of the suspects only, in one mapped file in order of document number
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.bands import band_keys
from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.group import Group, ShardPair, allocate, save
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.pairs import suspects
from dataproc.dedup.shingles import shingle_hashes, unique_sorted
from dataproc.documents import batches
from dataproc.shuffle import partition_batches, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Done, Workers


def scatter_keys(pair: ShardPair, file: Path, *, group: Group) -> None:
    """One task: the band keys of a shard. Partition = band · partitions + key mod partitions.

    Documents without a shingle, and all but one of those with equal text, take no part.
    """
    numbers = np.sort(group.numbers(pair))
    signatures = group.signatures()[numbers]
    takes_part = (group.parent(0)[numbers] == numbers) & is_signed(signatures)
    keys_NB, docs = band_keys(signatures[takes_part], group.bands), numbers[takes_part]
    band = np.arange(group.bands.count, dtype=np.uint64)
    partition_NB = band * np.uint64(group.partitions) + keys_NB % np.uint64(group.partitions)
    table = pa.table({"key": keys_NB.ravel(), "doc": np.repeat(docs, group.bands.count)})
    write_partitions(file, table, partition_NB.ravel().astype(np.int64), group.bands.count * group.partitions)


def keys_and_docs(files: tuple[Path, ...], partition: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """All rows of a partition."""
    rows = list(partition_batches(files, partition))
    keys = [batch["key"].to_numpy() for batch in rows]
    docs = [batch["doc"].to_numpy() for batch in rows]
    return np.concatenate([np.zeros(0, np.uint64), *keys]), np.concatenate([np.zeros(0, np.int64), *docs])


def gather_sets(
    pairs: Sequence[ShardPair], group: Group, files: tuple[Path, ...], *, workers: Workers, draft: Draft
) -> None:
    """The shingle sets of all suspects."""
    found = group.scratch / "suspects"
    found.mkdir(exist_ok=True)
    partitions = range(group.bands.count * group.partitions)
    task = partial(_suspects, files=files, out=found)
    workers.map(task, partitions, result=Done, notes=draft.notes / "suspects", label="documents that share a band")
    wanted = np.zeros(group.documents, np.bool_)
    for file in sorted(found.glob("*.npy")):
        wanted[np.load(file)] = True
    save(group.scratch / "wanted.npy", wanted)
    read = partial(_read_sets, group=group)
    workers.map(read, pairs, result=Done, notes=draft.notes / "sets", label="shingle sets")
    _allocate(pairs, group)
    place = partial(_place_sets, group=group)
    workers.map(place, pairs, result=Done, notes=draft.notes / "placed", label="shingle sets in order")


def _suspects(partition: int, *, files: tuple[Path, ...], out: Path) -> Done:
    save(out / f"{partition:06d}.npy", suspects(*keys_and_docs(files, partition)))
    return Done()


def _read_sets(pair: ShardPair, *, group: Group) -> Done:
    """The sets of a shard's suspects, in its own order: `<first>.sets`, and `<first>.sizes.npy` (one per row)."""
    wanted = np.load(group.scratch / "wanted.npy", mmap_mode="r")[group.numbers(pair)]
    sizes = np.zeros(pair.rows, np.int64)
    row = 0
    with (group.scratch / f"{pair.first}.sets").open("wb") as file:
        for batch in batches(pair.documents, ["text"]):
            rows = np.flatnonzero(wanted[row : row + batch.num_rows])
            sets = unique_sorted(shingle_hashes(clean_all(batch["text"].take(pa.array(rows))), group.shingling))
            sizes[row + rows] = np.diff(sets.offsets)
            file.write(sets.hashes.tobytes())
            row += batch.num_rows
    save(group.scratch / f"{pair.first}.sizes.npy", sizes)
    return Done()


def _allocate(pairs: Sequence[ShardPair], group: Group) -> None:
    """Where each document's set lies in the mapped file."""
    if (group.scratch / "offsets.npy").exists():
        return
    sizes = np.zeros(group.documents, np.int64)
    for pair in pairs:
        sizes[group.numbers(pair)] = np.load(group.scratch / f"{pair.first}.sizes.npy")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    if offsets[-1]:
        allocate(group.scratch / "sets.u64", 8 * int(offsets[-1]))
    save(group.scratch / "offsets.npy", offsets)  # last: its presence says that the file is there


def _place_sets(pair: ShardPair, *, group: Group) -> Done:
    """A shard's sets from its own file to their places."""
    sizes = np.load(group.scratch / f"{pair.first}.sizes.npy")
    if not sizes.any():
        return Done()
    source = np.memmap(group.scratch / f"{pair.first}.sets", np.uint64, "r")
    target = np.memmap(group.scratch / "sets.u64", np.uint64, "r+")
    starts = np.load(group.scratch / "offsets.npy", mmap_mode="r")[group.numbers(pair)]
    read = 0
    for row in np.flatnonzero(sizes):
        at, size = int(starts[row]), int(sizes[row])
        target[at : at + size] = source[read : read + size]
        read += size
    target.flush()
    return Done()
