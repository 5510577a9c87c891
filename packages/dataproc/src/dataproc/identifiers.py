"""Ids are unique within a source.

Where the recipe names an id field, an id that comes twice is an error. Where ids are made from content, equal documents
have equal ids: the second copy becomes `<id>.2`, the third `<id>.3`, in order of the raw files.

    shards ──(128-bit hash of the id)──► by hash: which rows are copies ──► back to the shards, which are written anew
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataproc.dedup.cleaning import rows_of
from dataproc.dedup.identical import gather_identical, scatter_hashes
from dataproc.dedup.shingles import text_hashes
from dataproc.documents import QUICK, ShardWriter, batches, documents_schema, rows_at
from dataproc.documents import rows_of as columns_of
from dataproc.recipe.sources import Source
from dataproc.shuffle import Scattered, partition_batches, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.errors import DataError
from manifest.record import Model, Shard

BYTES_PER_ID = 160  # what a partition takes for each of its ids, while they are sorted
EXAMPLES = 3


class Repeats(Model):
    """What a partition found: ids that come twice or more, and the second places of some of them."""

    ids: int
    examples: tuple[int, ...]


class Renamed(Model):
    """A shard that was written anew."""

    shards: tuple[Shard, ...]


def content_ids(name: str, texts: pa.LargeStringArray) -> pa.StringArray:
    """`content_id` of each text of a source, without making strings of the texts."""
    rows = rows_of(texts)
    data, ends = rows.data.data, rows.offsets.tolist()
    hashes = (hashlib.blake2b(data[a:b], digest_size=16).hexdigest() for a, b in itertools.pairwise(ends))
    return pa.array([f"{name}/{content}" for content in hashes], pa.string())


def unique_ids(
    name: str, source: Source, shards: Sequence[Shard], *, workers: Workers, draft: Draft
) -> tuple[Shard, ...]:
    """The shards of a source with ids made unique. Raises DataError for a repeated id of an id field."""
    documents = [shard for shard in shards if shard.path.startswith("documents")]
    files = [draft.path / shard.path for shard in documents]
    bounds = [0, *itertools.accumulate(shard.rows for shard in documents)]
    scratch, label = draft.scratch / "ids", f"ids of {name}"
    copies = scratch / "copies"
    copies.mkdir(parents=True, exist_ok=True)
    partitions = workers.partitions(bounds[-1], BYTES_PER_ID)
    found = workers.exchange(
        partial(_scatter, partitions=partitions),
        list(zip(bounds, files, strict=False)),
        partial(_gather, bounds=bounds, copies=copies),
        partitions=partitions,
        result=Repeats,
        scratch=scratch,
        label=label,
    )
    if not any(repeats.ids for repeats in found):
        return tuple(shards)
    if source.id is not None:
        raise _repeated(name, source.id, found, files, bounds)
    renamed = workers.map(
        partial(_rename, copies=tuple(_copies_file(copies, p) for p in range(partitions)), draft=draft.path),
        list(enumerate(files)),
        result=Renamed,
        notes=draft.notes / "ids",
        label=label,
    )
    instead = {shard.path: made.shards for shard, made in zip(documents, renamed, strict=True) if made.shards}
    return tuple(s for shard in shards for s in instead.get(shard.path, (shard,)))


def _repeated(
    name: str, field: str, found: Sequence[Repeats], files: Sequence[Path], bounds: Sequence[int]
) -> DataError:
    places = np.array(sorted(place for repeats in found for place in repeats.examples)[:EXAMPLES])
    shards = _shards_at(bounds, places)
    rows = [np.array([place - bounds[shard]]) for place, shard in zip(places, shards, strict=True)]
    ids = [rows_at(files[shard], row, ["id"])["id"][0].as_py() for shard, row in zip(shards, rows, strict=True)]
    examples = ", ".join(repr(i.removeprefix(f"{name}/")) for i in ids)
    return DataError(
        f"source {name!r}: {sum(repeats.ids for repeats in found):,} ids occur more than once, such as {examples}; "
        f"field {field!r} must name each document once. Correct the files, or leave 'id' out of the recipe: then ids "
        "are made from the content"
    )


def _scatter(placed: tuple[int, Path], file: Path, *, partitions: int) -> None:
    """One task: the ids of a shard, by hash."""
    first, path = placed
    ids = columns_of(path, ["id"])["id"].cast(pa.large_string()).combine_chunks()
    scatter_hashes(file, text_hashes(ids), np.arange(first, first + len(ids)), partitions)


def _gather(partition: int, rows: Scattered, *, bounds: Sequence[int], copies: Path) -> Repeats:
    """The copies of a partition, by shard, with their numbers: 2 for the second of its id, and so on."""
    firsts, places = gather_identical(rows).T
    starts = np.flatnonzero(np.diff(firsts, prepend=-1))
    number = 2 + np.arange(len(firsts)) - np.repeat(starts, np.diff(starts, append=len(firsts)))
    shard = _shards_at(bounds, places)
    table = pa.table({"row": places - np.asarray(bounds)[shard], "number": number})
    write_partitions(_copies_file(copies, partition), table, shard, len(bounds) - 1)
    return Repeats(ids=len(starts), examples=tuple(np.sort(places[starts])[:EXAMPLES].tolist()))


def _shards_at(bounds: Sequence[int], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The shards in which places of the source lie; shard s has those from bounds[s] to before bounds[s + 1]."""
    return np.searchsorted(bounds, places, side="right") - 1


def _copies_file(copies: Path, partition: int) -> Path:
    return copies / f"{partition:06d}.arrow"


def _rename(numbered: tuple[int, Path], *, copies: tuple[Path, ...], draft: Path) -> Renamed:
    """One task: a shard with the copies' ids, as `documents-…-ids-…`; nothing if it has no copy."""
    number, path = numbered
    found = list(partition_batches(copies, number))
    if not found:
        return Renamed(shards=())
    rows = np.concatenate([batch["row"].to_numpy() for batch in found])
    numbers = np.concatenate([batch["number"].to_numpy() for batch in found])
    order = np.argsort(rows)
    writer = ShardWriter(draft, f"{path.stem}-ids", documents_schema(path), codec=QUICK)
    for batch in _with_ids(path, rows[order], numbers[order]):
        writer.write(batch)
    return Renamed(shards=writer.close())


def _with_ids(path: Path, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, with `.number` after the ids of some of them."""
    first = 0
    for batch in batches(path):
        low, high = np.searchsorted(rows, [first, first + batch.num_rows])
        suffix = np.full(batch.num_rows, "", object)
        suffix[rows[low:high] - first] = [f".{number}" for number in numbers[low:high].tolist()]
        ids = pc.binary_join_element_wise(batch["id"], pa.array(suffix, pa.string()), "")
        yield batch.set_column(0, "id", ids)
        first += batch.num_rows
