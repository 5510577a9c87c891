"""The documents of a group of sources, numbered, and the scratch files that its tasks share.

A document's number is the place of its row: shards in order (sources as in the recipe), rows in order. So the rows of a
shard are a range of numbers, whatever a task makes of them is a range of a file, and nobody sorts ids.

    firsts.npy        (N,) i64: the first document of the same cleaned text             identical.py
    buckets-BBB-PPPPP members and bounds of the buckets of two or more                  candidates.py
    candidates.npy    (C,) i64, ascending: the documents that share a key with another, and those of the audit
    candidates.…      signature and shingle set of each                                 evidence.py
    apart.…           the same of the documents that a ledger asks for
    audit-*.npy       a sample of documents, and who may be like them                   audit.py
    components-*.npy  (C,) i64: what was connected before a round                       links.py
    component.npy     (N,) i64: the first document of its cluster, or -1 if alone        members.py

Every file is written aside and renamed, or written in place to the same effect; a task that is run again finds what is
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from dataproc.dedup.bands import Bands
from dataproc.dedup.shingles import Shingling
from dataproc.dedup.sign import minima_name
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model
from manifest.store import write_atomic

BYTES_PER_KEY = 300
"""What a row (key, document) takes at most while its partition is sorted and linked."""
PAIRS = "shards.json"
CANDIDATES = "candidates"


class ShardPair(Model):
    """A shard of documents (the source's `shard`-th) with its signatures, and the number of its first row."""

    source: str
    shard: int
    documents: Path
    signatures: Path
    minima: Path
    first: int
    rows: int

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The document numbers of its rows."""
        return np.arange(self.first, self.first + self.rows)


_PAIRS = TypeAdapter(tuple[ShardPair, ...])


@dataclass(frozen=True)
class Matching:
    """When two documents are near-duplicates: if they share a band key and, where `verified`, have J ≥ threshold.

    Without verification a shared key is enough, and documents without a shingle are all alike, as in the original
    SlimPajama; with it these take no part.
    """

    shingling: Shingling
    permutations: int
    bands: Bands
    threshold: float
    verified: bool


@dataclass(frozen=True)
class Group:
    """What every task needs to know. partitions: into so many parts the keys of a band are cut."""

    scratch: Path
    documents: int
    matching: Matching
    partitions: int

    @property
    def pairs(self) -> tuple[ShardPair, ...]:
        """The shards. They are in a file, because there may be too many to send along with every task."""
        return _read_pairs(self.scratch)

    @property
    def firsts_file(self) -> Path:
        return self.scratch / "firsts.npy"

    @property
    def component_file(self) -> Path:
        return self.scratch / "component.npy"

    def firsts(self) -> NDArray[np.int64]:
        """Document → the first document of the same text, mapped."""
        return mapped(self.firsts_file)

    def file(self, listing: str, name: str) -> Path:
        """A file that belongs to a list of documents."""
        return self.scratch / f"{listing}.{name}"

    def listed(self, listing: str) -> NDArray[np.int64]:
        """A list of documents, ascending, mapped."""
        return mapped(self.scratch / f"{listing}.npy")

    def candidates(self) -> NDArray[np.int64]:
        """The documents that may have near-duplicates, ascending, mapped."""
        return self.listed(CANDIDATES)


def shard_pairs(sources: Sequence[tuple[str, Sequence[Path], Sequence[Path]]]) -> tuple[ShardPair, ...]:
    """(name, shards of documents, shards of signatures) of each source → the shards of all, in this order."""
    pairs: list[ShardPair] = []
    first = 0
    for source, documents, signed in sources:
        for shard, (documents_shard, signed_shard) in enumerate(zip(documents, signed, strict=True)):
            minima = signed_shard.with_name(minima_name(signed_shard.stem))
            rows = pq.ParquetFile(signed_shard).metadata.num_rows
            files = {"documents": documents_shard, "signatures": signed_shard, "minima": minima}
            pairs.append(ShardPair(source=source, shard=shard, **files, first=first, rows=rows))
            first += rows
    return tuple(pairs)


def make_group(pairs: Sequence[ShardPair], matching: Matching, *, workers: Workers, draft: Draft) -> Group:
    """The group of these shards, with what its tasks read of it in the draft's scratch."""
    write_atomic(draft.scratch / PAIRS, _PAIRS.dump_json(tuple(pairs)))
    rows = sum(pair.rows for pair in pairs)
    return Group(draft.scratch, rows, matching, workers.partitions(rows, BYTES_PER_KEY))


@lru_cache(maxsize=4)
def _read_pairs(scratch: Path) -> tuple[ShardPair, ...]:
    return _PAIRS.validate_json((scratch / PAIRS).read_bytes())


def mapped(path: Path) -> NDArray[np.int64]:
    """An array that `save` wrote."""
    array: NDArray[np.int64] = np.load(path, mmap_mode="r")
    return np.asarray(array)


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array so that it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:  # not np.save, whose error for a full disk does not say so
        whole = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
        file.write(whole.data)
    aside.replace(path)
