"""Clusters → the ledger: every removed document, its survivor, how alike they are, and why it was removed.

in:  clusters/<group>, documents/<source>…
out: ledger/<group>: one row per removed document, cut as the documents are
     id, source, survivor, survivor_source, cluster, jaccard f64 (exact, to the survivor), rule, shard i32, row i64 (of
     the source's documents)

By transitivity the Jaccard to the survivor may lie under the threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.jaccard import exact
from dataproc.dedup.keep import Key
from dataproc.dedup.places import Sources, fetch, place_column
from dataproc.dedup.ranges import exact_by_parts, is_long
from dataproc.dedup.shingles import Shingling, by_size, byte_lengths, shingle_sets
from dataproc.dedup.survivors import survivors
from dataproc.documents import DOCUMENTS, ShardWriter, picked
from dataproc.shuffle import partition_batches
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.record import Model, Shard

STAGE = "keep/2"
TEXTS = pa.schema([("place", pa.int64()), ("row", pa.int64()), DOCUMENTS.field("text")])
LEDGER = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("survivor", pa.string()),
        ("survivor_source", pa.string()),
        ("cluster", pa.string()),
        ("jaccard", pa.float64()),
        ("rule", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int64()),
    ]
)


class Removed(Model):
    """Removals of a shard: how many of its source for a survivor of a source."""

    shards: tuple[Shard, ...]
    between: tuple[tuple[str, str, int], ...]


def ledger(
    clusters: Sequence[Path],
    sources: Sources,
    *,
    keep: Sequence[Key],
    shingling: Shingling,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage."""
    files = survivors(clusters, sources, keep, workers=workers, draft=draft)
    texts = fetch(
        partial(_wanted, files=files, sources=sources),
        len(files),
        sources,
        ["text"],
        workers=workers,
        scratch=draft.scratch / "texts",
        label="texts of survivors",
    )
    done = workers.map(
        partial(_write, files=files, texts=texts, sources=sources, shingling=shingling, draft=draft.path),
        range(len(files)),
        result=Removed,
        notes=draft.notes / "ledger",
        label="ledger",
    )
    between: Counter[tuple[str, str]] = Counter()
    for removed in done:
        for source, survivor_source, count in removed.between:
            between[source, survivor_source] += count
    by_source = {name: _removals(name, between) for name, _ in sources}
    summary = {"removed": sum(between.values()), "sources": by_source}
    return Made(tuple(shard for removed in done for shard in removed.shards), summary)


def _removals(source: str, between: Counter[tuple[str, str]]) -> dict[str, int]:
    """How many documents of a source were removed for one of its own, and for one of another."""
    total = sum(count for (of, _), count in between.items() if of == source)
    return {"within": between[source, source], "across": total - between[source, source]}


def _removed(file: Path, sources: Sources) -> pl.DataFrame:
    """The removed documents of a shard of clusters, in order of row; `place` is their survivor's."""
    survivor = pl.col("survivor_source").alias("source"), pl.col("survivor_shard").alias("shard")
    members = pl.read_parquet(file).filter(pl.col("rule") != "")
    places = members.select(*survivor).select(place_column(sources))
    return members.with_columns(places).sort("row")


def _wanted(number: int, *, files: Sequence[Path], sources: Sources) -> pl.DataFrame:
    """The survivors whose texts are needed: those of removed documents with another text."""
    removed = _removed(files[number], sources).filter(~pl.col("same"))
    return removed.select("place", pl.col("survivor_row").alias("row")).unique(maintain_order=True)


def _write(
    number: int,
    *,
    files: Sequence[Path],
    texts: tuple[Path, ...],
    sources: Sources,
    shingling: Shingling,
    draft: Path,
) -> Removed:
    """One task: the ledger of a shard of clusters."""
    removed = _removed(files[number], sources)
    if not removed.height:
        return Removed(shards=(), between=())
    documents = dict(sources)[removed["source"][0]][removed["shard"][0]]
    survivors = pa.Table.from_batches(list(partition_batches(texts, number)), TEXTS)
    jaccard = np.ones(removed.height)
    differ = np.flatnonzero(~removed["same"].to_numpy())
    jaccard[differ] = list(_all_exact(documents, removed[differ], survivors, shingling))
    out = removed.with_columns(pl.Series("jaccard", jaccard))
    writer = ShardWriter(draft, f"ledger-{number:05d}", LEDGER)
    writer.write(out.select(LEDGER.names).to_arrow())
    between = out.group_by("source", "survivor_source").len().sort("source", "survivor_source")
    return Removed(shards=writer.close(), between=tuple(between.iter_rows()))


def _all_exact(documents: Path, removed: pl.DataFrame, survivors: pa.Table, shingling: Shingling) -> Iterator[float]:
    """The exact index of each removed document and its survivor, so many at a time that their shingles fit."""
    read = pl.DataFrame(pl.from_arrow(survivors.select(["place", "row"]))).with_row_index("text")
    beside = removed.join(
        read, left_on=["place", "survivor_row"], right_on=["place", "row"], how="left", maintain_order="left"
    )["text"].to_numpy()
    survivor_sizes = byte_lengths(survivors["text"])
    row = 0
    for batch in picked(documents, ["text"], removed["row"].to_numpy()):
        others = beside[row : row + batch.num_rows]
        row += batch.num_rows
        for first, end in by_size(byte_lengths(batch["text"]) + survivor_sizes[others]):
            texts = batch["text"].slice(first, end - first)
            yield from _exact_of(texts, survivors["text"], others[first:end], shingling)


def _exact_of(
    texts: pa.Array, survivors: pa.ChunkedArray, beside: NDArray[np.int64], shingling: Shingling
) -> Iterator[float]:
    """The exact index of each text and its survivor, by row."""
    rows, places = np.unique(beside, return_inverse=True)
    others = survivors.take(pa.array(rows)).combine_chunks()
    if len(texts) == 1 and (is_long(texts) or is_long(others)):
        yield exact_by_parts(texts, others, shingling)
        return
    own, theirs = shingle_sets(texts, shingling), shingle_sets(others, shingling)
    yield from (exact(own.of(text), theirs.of(place)) for text, place in enumerate(places))
