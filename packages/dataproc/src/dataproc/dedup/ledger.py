"""Clusters → the ledger: every removed document, its survivor, how alike they are, and why it was removed.

in:  clusters/<group>, documents/<source>…
out: ledger/<group>: one row per removed document, in order of (cluster, rank)
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
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.jaccard import exact
from dataproc.dedup.keep import Key
from dataproc.dedup.places import Sources, fetch, place_column
from dataproc.dedup.ranking import rank
from dataproc.dedup.shingles import Shingling, shingle_hashes, unique_sorted
from dataproc.documents import DOCUMENTS, ShardWriter
from dataproc.shuffle import partition_batches
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.record import Model, Shard

STAGE = "keep/2"
BATCH_BYTES = 8_000_000  # of text; its shingles take up to 16 times as much for a while
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
    """Removals of a partition: how many of a source for a survivor of a source."""

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
    files = rank(clusters, sources, keep, workers=workers, draft=draft)
    texts = fetch(
        partial(_wanted, files=files, sources=sources),
        len(files),
        sources,
        ["text"],
        workers=workers,
        scratch=draft.scratch / "texts",
        label="texts of clustered documents",
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


def _members(file: Path, sources: Sources) -> pl.DataFrame:
    """Ranked members; `same`: the cleaned text is the survivor's."""
    survivor_hash = pl.col("text_hash").first().over("cluster")
    return pl.read_parquet(file).with_columns(
        place_column(sources), (pl.col("text_hash") == survivor_hash).alias("same")
    )


def _wanted(partition: int, *, files: Sequence[Path], sources: Sources) -> pl.DataFrame:
    """Whose texts must be compared: removed documents with another text than their survivor's, and these survivors."""
    members = _members(files[partition], sources)
    return members.filter(~pl.col("same").all().over("cluster")).filter(~pl.col("same") | (pl.col("rule") == ""))


def _write(
    partition: int,
    *,
    files: Sequence[Path],
    texts: tuple[Path, ...],
    sources: Sources,
    shingling: Shingling,
    draft: Path,
) -> Removed:
    """One task: the ledger of a shard of clusters."""
    members = _members(files[partition], sources)
    out = members.with_columns(_jaccard(members, texts, partition, shingling)).filter(pl.col("rule") != "")
    writer = ShardWriter(draft, f"ledger-{partition:05d}", LEDGER)
    writer.write(out.select(LEDGER.names).to_arrow())
    between = out.group_by("source", "survivor_source").len().sort("source", "survivor_source")
    return Removed(shards=writer.close(), between=tuple(between.iter_rows()))


def _jaccard(members: pl.DataFrame, texts: tuple[Path, ...], partition: int, shingling: Shingling) -> pl.Series:
    """The exact index of each member and its survivor; 1 where their cleaned texts are the same."""
    found = pa.Table.from_batches(list(partition_batches(texts, partition)), TEXTS)
    read = pl.DataFrame(pl.from_arrow(found.select(["place", "row"]))).with_row_index("text")
    placed = members.join(read, on=["place", "row"], how="left", maintain_order="left")
    pairs = placed.select("same", "text", pl.col("text").first().over("cluster").alias("survivor"))
    differ = np.flatnonzero(~pairs["same"].to_numpy())
    pairs_E2 = pairs[differ].select("text", "survivor").to_numpy().astype(np.int64)
    values: NDArray[np.float64] = np.ones(members.height)
    values[differ] = list(_all_exact(found["text"], pairs_E2, shingling))
    return pl.Series("jaccard", values)


def _all_exact(texts: pa.ChunkedArray, pairs_E2: NDArray[np.int64], shingling: Shingling) -> Iterator[float]:
    """The exact index of each pair of texts, so many at a time that their shingles fit into memory."""
    sizes = pc.binary_length(texts).to_numpy().astype(np.int64)
    ends = np.cumsum(sizes[pairs_E2].sum(axis=1)) // BATCH_BYTES if len(pairs_E2) else np.zeros(0)
    for batch_E2 in np.split(pairs_E2, np.flatnonzero(np.diff(ends)) + 1):
        rows, places = np.unique(batch_E2, return_inverse=True)
        sets = unique_sorted(shingle_hashes(clean_all(texts.take(pa.array(rows))), shingling))
        for a, b in places.reshape(-1, 2):
            yield exact(sets.of(a), sets.of(b))
