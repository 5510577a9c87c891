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
from dataproc.dedup.keep_keys import Key
from dataproc.dedup.places import Sources, fetch, place_column
from dataproc.dedup.ranges import exact_by_parts, is_long
from dataproc.dedup.shingles import Shingling, by_size, shingle_sets
from dataproc.dedup.survivors import survivors
from dataproc.documents import DOCUMENTS, ShardWriter
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
        label="texts of near-duplicates",
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
    """The removed documents of a shard of clusters, in order of row, with their `place` and their survivor's."""
    members = pl.read_parquet(file).filter(pl.col("rule") != "")
    of_survivor = members.select(*_survivor("source", "shard")).select(place_column(sources).alias("survivor_place"))
    return members.with_columns(place_column(sources), *of_survivor).sort("row")


def _survivor(*columns: str) -> list[pl.Expr]:
    """Columns of the survivor under the names that a document's own have."""
    return [pl.col(f"survivor_{name}").alias(name) for name in columns]


def _wanted(number: int, *, files: Sequence[Path], sources: Sources) -> pl.DataFrame:
    """The documents whose texts are needed: removed ones, and their survivors, where these have another text.

    Both are asked for at once, so that each shard of documents is read once.
    """
    differ = _removed(files[number], sources).filter(~pl.col("same"))
    own, survivors = differ.select("place", "row"), differ.select(*_survivor("place", "row"))
    return pl.concat([own, survivors]).unique(maintain_order=True)


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
    found = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(list(partition_batches(texts, number)), TEXTS)))
    jaccard = np.ones(removed.height)
    differ = np.flatnonzero(~removed["same"].to_numpy())
    jaccard[differ] = list(_all_exact(removed[differ], found, shingling))
    out = removed.with_columns(pl.Series("jaccard", jaccard))
    writer = ShardWriter(draft, f"ledger-{number:05d}", LEDGER)
    writer.write(out.select(LEDGER.names).to_arrow())
    between = out.group_by("source", "survivor_source").len().sort("source", "survivor_source")
    return Removed(shards=writer.close(), between=tuple(between.iter_rows()))


def _all_exact(removed: pl.DataFrame, found: pl.DataFrame, shingling: Shingling) -> Iterator[float]:
    """The exact index of each removed document and its survivor, so many at a time that their shingles fit."""
    numbered = found.select("place", "row").with_row_index("text")
    own, survivors = (
        documents.join(numbered, on=["place", "row"], how="left", maintain_order="left")["text"].to_numpy()
        for documents in (removed.select("place", "row"), removed.select(*_survivor("place", "row")))
    )
    sizes = found["text"].str.len_bytes().to_numpy().astype(np.int64)
    for first, end in by_size(sizes[own] + sizes[survivors]):
        yield from _exact_of(found["text"], np.stack([own[first:end], survivors[first:end]], axis=1), shingling)


def _exact_of(texts: pl.Series, pairs_E2: NDArray[np.uint32], shingling: Shingling) -> Iterator[float]:
    """The exact index of each pair of texts."""
    rows, places_E2 = np.unique(pairs_E2, return_inverse=True)
    needed = texts[rows].to_arrow(compat_level=pl.CompatLevel.oldest())
    if len(pairs_E2) == 1 and any(is_long(needed.slice(place, 1)) for place in range(len(rows))):
        own, survivor = (needed.slice(place, 1) for place in places_E2[0].tolist())
        yield exact_by_parts(own, survivor, shingling)
        return
    sets = shingle_sets(needed, shingling)
    yield from (exact(sets.of(a), sets.of(b)) for a, b in places_E2.tolist())
