"""Signatures → clusters: the connected components of all verified pairs of a group of sources.

in:  signatures/<source>…, documents/<source>…      out: clusters/<group>: one row per document of a cluster of two or more
     id, cluster (the smallest id of its component), source, characters

    1 table        documents are numbered in order of id; signatures go into one mapped matrix in that order
    2 identical    equal cleaned texts are linked first; only one of each goes on
    3 keys         band keys, scattered by (band, key) into partitions
    4 sets         the shingle sets of the documents that share a key, in one mapped file
    5 rounds       band by band: partitions in parallel, each knowing what earlier bands connected; forests are merged

All data goes through scratch files in the draft; the driver holds a few numbers per document. Every step leaves a note,
so a killed build takes up where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from manifest.record import Model
from numpy.typing import NDArray

from dataproc.dedup.bands import Bands, band_keys
from dataproc.dedup.components import connect, labels
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.pairs import identical, link, suspects
from dataproc.dedup.shingles import ShingleSets, Shingling, clean_all, shingle_hashes, unique_sorted
from dataproc.dedup.sign import column_of
from dataproc.documents import ShardWriter, batches, rows_of
from dataproc.shuffle import partition_batches, write_partitions
from dataproc.stage import Draft, Made
from dataproc.workers import Done, Workers

STAGE = "cluster/1"
BUCKET_CAP = 4096  # comparisons in a bucket grow with its square up to here, and linearly beyond
ROWS_PER_PARTITION = 2_000_000
CLUSTERS = pa.schema(
    [("id", pa.string()), ("cluster", pa.string()), ("source", pa.string()), ("characters", pa.int64())]
)


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

    def numbers(self) -> NDArray[np.int64]:
        """Row (in order of the shards) → document number."""
        return np.load(self.scratch / "numbers.npy", mmap_mode="r")

    def signatures(self, mode: str = "r") -> NDArray[np.uint32]:
        shape = (self.documents, self.permutations)
        return np.memmap(self.scratch / "signatures.u32", np.uint32, mode, shape=shape)

    def parent(self, band: int) -> NDArray[np.int64]:
        """What was connected before a band."""
        return np.load(self.scratch / f"parent-{band:03d}.npy", mmap_mode="r")

    def sets(self) -> ShingleSets:
        offsets = np.load(self.scratch / "offsets.npy", mmap_mode="r")
        hashes = (
            np.memmap(self.scratch / "sets.u64", np.uint64, "r") if offsets[-1] else np.zeros(0, np.uint64)
        )
        return ShingleSets(hashes=hashes, offsets=offsets)


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
    pairs = _pairs(sources)
    rows = pairs[-1].first + pairs[-1].rows if pairs else 0
    group = Group(
        scratch=draft.scratch,
        documents=rows,
        shingling=shingling,
        permutations=permutations,
        bands=bands,
        threshold=threshold,
        partitions=max(1, -(-rows // ROWS_PER_PARTITION)),
    )
    _number(pairs, group)
    _map(workers, _fill, pairs, group, draft, "signatures into one matrix")
    duplicates = _identical(pairs, group)
    files = workers.scatter(
        partial(_scatter_keys, group=group), pairs, scratch=group.scratch / "keys", label="band keys"
    )
    _gather_sets(workers, pairs, group, files, draft)
    counted, parent = _rounds(workers, group, files, draft)
    return _publish(pairs, group, parent, counted, duplicates, draft)


def _pairs(sources: Sequence[tuple[str, Sequence[Path], Sequence[Path]]]) -> list[ShardPair]:
    pairs: list[ShardPair] = []
    first = 0
    for source, documents, signed in sources:
        for documents_shard, signatures_shard in zip(documents, signed, strict=True):
            rows = pq.ParquetFile(signatures_shard).metadata.num_rows
            pairs.append(ShardPair(source, documents_shard, signatures_shard, first, rows))
            first += rows
    return pairs


def _map(
    workers: Workers, task: object, pairs: Sequence[ShardPair], group: Group, draft: Draft, label: str
) -> None:
    name = task.__name__.strip("_")  # type: ignore[attr-defined]
    workers.map(partial(task, group=group), pairs, result=Done, notes=draft.notes / name, label=label)  # type: ignore[operator]


def _number(pairs: Sequence[ShardPair], group: Group) -> None:
    """Numbers all documents in order of id."""
    if (group.scratch / "numbers.npy").exists():
        return
    ids = pa.chunked_array(
        [c for p in pairs for c in rows_of(p.signatures, ["id"])["id"].chunks], pa.string()
    )
    numbers = np.empty(group.documents, np.int64)
    numbers[pc.sort_indices(ids).to_numpy()] = np.arange(group.documents)
    np.memmap(
        group.scratch / "signatures.u32", np.uint32, "w+", shape=(group.documents, group.permutations)
    ).flush()
    _save(group.scratch / "numbers.npy", numbers)  # last: its presence says that the matrix is there


def _fill(pair: ShardPair, *, group: Group) -> Done:
    numbers = group.numbers()[pair.first : pair.first + pair.rows]
    matrix = group.signatures("r+")
    matrix[numbers] = column_of(pair.signatures, "signature", "<u4", group.permutations)
    matrix.flush()
    return Done()


def _identical(pairs: Sequence[ShardPair], group: Group) -> int:
    """Links documents of equal cleaned text; saves what is connected before the first band. Returns how many links."""
    hashes = np.concatenate([column_of(p.signatures, "text_hash", "<u8", 2) for p in pairs])
    edges = identical(hashes.astype(np.uint64), np.asarray(group.numbers()))
    _save(group.scratch / "parent-000.npy", connect(np.arange(group.documents, dtype=np.int64), edges))
    return len(edges)


def _scatter_keys(pair: ShardPair, file: Path, *, group: Group) -> None:
    """The band keys of a shard; partition = band · partitions + key mod partitions.

    Documents without a shingle, and all but one of those with equal text, take no part.
    """
    numbers = np.sort(group.numbers()[pair.first : pair.first + pair.rows])
    signatures = group.signatures()[numbers]
    alone = (group.parent(0)[numbers] == numbers) & is_signed(signatures)
    keys_NB, docs = band_keys(signatures[alone], group.bands), numbers[alone]
    band = np.arange(group.bands.count, dtype=np.uint64)
    partition = band * np.uint64(group.partitions) + keys_NB % np.uint64(group.partitions)
    table = pa.table({"key": keys_NB.ravel(), "doc": np.repeat(docs, group.bands.count)})
    write_partitions(file, table, partition.ravel().astype(np.int64), group.bands.count * group.partitions)


def _keys_and_docs(files: tuple[Path, ...], partition: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    rows = list(partition_batches(files, partition))
    if not rows:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return tuple(np.concatenate([b[name].to_numpy() for b in rows]) for name in ("key", "doc"))  # type: ignore[return-value]


def _gather_sets(
    workers: Workers, pairs: Sequence[ShardPair], group: Group, files: tuple[Path, ...], draft: Draft
) -> None:
    """Shingle sets of all suspects, mapped, in order of document number."""
    suspected = group.scratch / "suspects"
    suspected.mkdir(exist_ok=True)
    workers.map(
        partial(_suspects, group=group, files=files, out=suspected),
        range(group.bands.count * group.partitions),
        result=Done,
        notes=draft.notes / "suspects",
        label="documents that share a band",
    )
    wanted = np.zeros(group.documents, np.bool_)
    for file in sorted(suspected.glob("*.npy")):
        wanted[np.load(file)] = True
    _save(group.scratch / "wanted.npy", wanted)
    _map(workers, _shard_sets, pairs, group, draft, "shingle sets")
    _allocate_sets(pairs, group)
    _map(workers, _place_sets, pairs, group, draft, "shingle sets in order")


def _suspects(partition: int, *, group: Group, files: tuple[Path, ...], out: Path) -> Done:
    _save(out / f"{partition:06d}.npy", suspects(*_keys_and_docs(files, partition)))
    return Done()


def _shard_sets(pair: ShardPair, *, group: Group) -> Done:
    """The shingle sets of a shard's suspects: `<first>.sizes.npy` (one per row) and `<first>.sets`."""
    numbers = group.numbers()[pair.first : pair.first + pair.rows]
    wanted = np.load(group.scratch / "wanted.npy", mmap_mode="r")[numbers]
    sizes = np.zeros(pair.rows, np.int64)
    row = 0
    with (group.scratch / f"{pair.first}.sets").open("wb") as file:
        for batch in batches(pair.documents, ["text"]):
            rows = np.flatnonzero(wanted[row : row + batch.num_rows])
            texts = batch["text"].take(pa.array(rows))
            sets = unique_sorted(shingle_hashes(clean_all(texts), group.shingling))
            sizes[row + rows] = np.diff(sets.offsets)
            file.write(sets.hashes.tobytes())
            row += batch.num_rows
    _save(group.scratch / f"{pair.first}.sizes.npy", sizes)
    return Done()


def _allocate_sets(pairs: Sequence[ShardPair], group: Group) -> None:
    if (group.scratch / "offsets.npy").exists():
        return
    sizes = np.zeros(group.documents, np.int64)
    for pair in pairs:
        numbers = group.numbers()[pair.first : pair.first + pair.rows]
        sizes[numbers] = np.load(group.scratch / f"{pair.first}.sizes.npy")
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if offsets[-1]:
        np.memmap(group.scratch / "sets.u64", np.uint64, "w+", shape=(int(offsets[-1]),)).flush()
    _save(group.scratch / "offsets.npy", offsets)


def _place_sets(pair: ShardPair, *, group: Group) -> Done:
    numbers = group.numbers()[pair.first : pair.first + pair.rows]
    sizes = np.load(group.scratch / f"{pair.first}.sizes.npy")
    file = group.scratch / f"{pair.first}.sets"
    if sizes.sum():
        source = np.memmap(file, np.uint64, "r")
        target = np.memmap(group.scratch / "sets.u64", np.uint64, "r+")
        offsets = np.load(group.scratch / "offsets.npy", mmap_mode="r")
        start = 0
        for row in np.flatnonzero(sizes):
            at, size = int(offsets[numbers[row]]), int(sizes[row])
            target[at : at + size] = source[start : start + size]
            start += size
        target.flush()
    return Done()


def _rounds(
    workers: Workers, group: Group, files: tuple[Path, ...], draft: Draft
) -> tuple[list[Counted], NDArray[np.int64]]:
    counted: list[Counted] = []
    for band in range(group.bands.count):
        counted += workers.map(
            partial(_link, group=group, files=files, band=band),
            range(group.partitions),
            result=Counted,
            notes=draft.notes / f"band-{band:03d}",
            label=f"band {band + 1}/{group.bands.count}",
        )
        edges = [np.load(group.scratch / _edges_name(band, p)) for p in range(group.partitions)]
        _save(
            group.scratch / f"parent-{band + 1:03d}.npy",
            connect(np.asarray(group.parent(band)), np.concatenate(edges)),
        )
    return counted, np.asarray(group.parent(group.bands.count))


def _edges_name(band: int, partition: int) -> str:
    return f"edges-{band:03d}-{partition:05d}.npy"


def _link(partition: int, *, group: Group, files: tuple[Path, ...], band: int) -> Counted:
    keys, docs = _keys_and_docs(files, band * group.partitions + partition)
    links = link(
        keys,
        docs,
        group.signatures(),
        group.sets(),
        np.asarray(group.parent(band)),
        threshold=group.threshold,
        cap=BUCKET_CAP,
    )
    _save(group.scratch / _edges_name(band, partition), links.edges)
    counters = links.counters
    return Counted(
        edges=len(links.edges), largest_bucket=counters.largest_bucket, capped_buckets=counters.capped_buckets
    )


def _publish(
    pairs: Sequence[ShardPair],
    group: Group,
    parent: NDArray[np.int64],
    counted: Sequence[Counted],
    equal: int,
    draft: Draft,
) -> Made:
    root = labels(parent)
    sizes = np.bincount(root, minlength=group.documents)
    table = _members(pairs, group, root, sizes)
    writer = ShardWriter(draft.path, "clusters", CLUSTERS)
    for batch in table.to_batches(max_chunksize=100_000):
        writer.write(batch)
    clusters = sizes[sizes > 1]
    summary = {
        "documents": group.documents,
        "clusters": len(clusters),
        "clustered_documents": int(clusters.sum()),
        "largest_cluster": int(clusters.max(initial=0)),
        "identical_links": equal,
        "verified_links": sum(c.edges for c in counted),
        "largest_bucket": max((c.largest_bucket for c in counted), default=0),
        "capped_buckets": sum(c.capped_buckets for c in counted),
        "s_curve": {
            f"{j / 100:.2f}": round(group.bands.catch_probability(j / 100), 6) for j in range(50, 100, 5)
        },
    }
    return Made(writer.close(), summary)


def _members(
    pairs: Sequence[ShardPair], group: Group, root: NDArray[np.int64], sizes: NDArray[np.int64]
) -> pa.Table:
    """The rows of all documents in clusters of two or more, in order of id."""
    parts: list[pa.Table] = []
    for pair in pairs:
        number = group.numbers()[pair.first : pair.first + pair.rows]
        rows = np.flatnonzero(sizes[root[number]] > 1)
        table = rows_of(pair.signatures, ["id", "characters"]).take(pa.array(rows))
        table = table.append_column("source", pa.array([pair.source] * len(rows), pa.string()))
        table = table.append_column("number", pa.array(number[rows]))
        parts.append(table.append_column("root", pa.array(root[number[rows]])))
    table = pa.concat_tables(parts).sort_by("number")
    numbers, roots = table["number"].to_numpy(), table["root"].to_numpy()
    smallest = pa.array(
        np.searchsorted(numbers, roots)
    )  # the root is in the table: it has the smallest number
    return table.append_column("cluster", table["id"].take(smallest)).select(CLUSTERS.names)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    """Writes an array so that it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        np.save(file, array)
    aside.replace(path)
