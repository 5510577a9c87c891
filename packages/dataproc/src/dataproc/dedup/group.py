"""The documents of a group of sources, numbered in order of id, and the scratch files that tasks share.

    numbers.npy       row (shards end to end) → document number
    signatures.u32    (documents, permutations), mapped
    parent-BBB.npy    what was connected before band B
    offsets.npy, sets.u64   shingle sets by document number (evidence.py)

Every file is written aside and renamed; a task that is run again finds what is there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataproc.dedup.bands import Bands
from dataproc.dedup.components import connect
from dataproc.dedup.pairs import identical
from dataproc.dedup.shingles import ShingleSets, Shingling
from dataproc.dedup.sign import column_of
from dataproc.documents import rows_of
from dataproc.workers import Done


@dataclass(frozen=True)
class ShardPair:
    """A shard of documents with its signatures; its rows have the numbers in `numbers[first:first + rows]`."""

    source: str
    documents: Path
    signatures: Path
    first: int
    rows: int


@dataclass(frozen=True)
class Group:
    """What every task needs to know: where the scratch files are, and how pairs are found and checked."""

    scratch: Path
    documents: int
    shingling: Shingling
    permutations: int
    bands: Bands
    threshold: float
    partitions: int

    def numbers(self, pair: ShardPair) -> NDArray[np.int64]:
        """The document numbers of a shard's rows."""
        numbers: NDArray[np.int64] = np.load(self.scratch / "numbers.npy", mmap_mode="r")
        return numbers[pair.first : pair.first + pair.rows]

    def signatures(self, *, write: bool = False) -> np.memmap[tuple[int, int], np.dtype[np.uint32]]:
        """Signatures by document number."""
        shape = (self.documents, self.permutations)
        return np.memmap(self.scratch / "signatures.u32", np.uint32, "r+" if write else "r", shape=shape)

    def parent(self, band: int) -> NDArray[np.int64]:
        """What was connected before a band."""
        parent: NDArray[np.int64] = np.load(self.scratch / f"parent-{band:03d}.npy", mmap_mode="r")
        return np.asarray(parent)

    def connect(self, band: int, edges_E2: NDArray[np.int64]) -> None:
        """Adds the edges that a band found; what is connected before the next one is saved."""
        save(self.scratch / f"parent-{band + 1:03d}.npy", connect(self.parent(band), edges_E2))

    def sets(self) -> ShingleSets:
        """Shingle sets by document number; empty for documents that share no band."""
        offsets: NDArray[np.int64] = np.load(self.scratch / "offsets.npy", mmap_mode="r")
        hashes = np.memmap(self.scratch / "sets.u64", np.uint64, "r") if offsets[-1] else np.zeros(0, np.uint64)
        return ShingleSets(hashes=hashes, offsets=offsets)


def shard_pairs(sources: Sequence[tuple[str, Sequence[Path], Sequence[Path]]]) -> list[ShardPair]:
    """(name, shards of documents, shards of signatures) of each source → the shards of all, in this order."""
    pairs: list[ShardPair] = []
    first = 0
    for source, documents, signed in sources:
        for documents_shard, signatures_shard in zip(documents, signed, strict=True):
            rows = pq.ParquetFile(signatures_shard).metadata.num_rows
            pairs.append(ShardPair(source, documents_shard, signatures_shard, first, rows))
            first += rows
    return pairs


def number(pairs: Sequence[ShardPair], group: Group) -> None:
    """Numbers all documents in order of id, and makes room for their signatures."""
    if (group.scratch / "numbers.npy").exists():
        return
    chunks = [chunk for pair in pairs for chunk in rows_of(pair.signatures, ["id"])["id"].chunks]
    numbers = np.empty(group.documents, np.int64)
    numbers[pc.sort_indices(pa.chunked_array(chunks, pa.string())).to_numpy()] = np.arange(group.documents)
    allocate(group.scratch / "signatures.u32", 4 * group.documents * group.permutations)
    save(group.scratch / "numbers.npy", numbers)  # last: its presence says that the matrix is there


def fill(pair: ShardPair, *, group: Group) -> Done:
    """One task: a shard's signatures into the matrix."""
    matrix = group.signatures(write=True)
    matrix[group.numbers(pair)] = column_of(pair.signatures, "signature", "<u4", group.permutations)
    matrix.flush()
    return Done()


def link_identical(pairs: Sequence[ShardPair], group: Group) -> int:
    """Links documents of equal cleaned text, before the first band. Returns how many links that took."""
    hashes = np.concatenate([column_of(pair.signatures, "text_hash", "<u8", 2) for pair in pairs])
    numbers = np.concatenate([group.numbers(pair) for pair in pairs])
    edges = identical(hashes.astype(np.uint64), numbers)
    save(group.scratch / "parent-000.npy", connect(np.arange(group.documents, dtype=np.int64), edges))
    return len(edges)


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array so that it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:  # not np.save, whose error for a full disk does not say so
        whole = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
        file.write(whole.data)
    aside.replace(path)


def allocate(path: Path, size_bytes: int) -> None:
    """A file of zeros that has its place on the disk. Without it, a full disk would kill whoever writes to the map."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
