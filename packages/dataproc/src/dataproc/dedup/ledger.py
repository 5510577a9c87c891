"""Clusters → the ledger: every removed document, its survivor, how alike they are, and why it was removed.

in:  clusters/<group>, documents/<source>…
out: ledger/<group>: one row per removed document, cut as the documents are
     id, source, survivor, survivor_source, cluster, jaccard f64 (exact, to the survivor), rule, shard i32, row i64 (of
     the source's documents)

By transitivity the Jaccard to the survivor may lie under the threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.evidence import gather_evidence, jaccard_of
from dataproc.dedup.group import CANDIDATES, Group, Matching, make_group, save, shard_pairs
from dataproc.dedup.keep_keys import Key
from dataproc.dedup.places import Sources, place_column
from dataproc.dedup.survivors import survivors
from dataproc.documents import ShardWriter
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.record import Model, Shard

STAGE = "keep/2"
APART = "apart"
"""The list of removed documents and their survivors, where these have another text."""
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
    sources: Sequence[tuple[str, Sequence[Path], Sequence[Path]]],
    *,
    keep: Sequence[Key],
    matching: Matching,
    evidence: Group | None,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage. sources: (name, shards of documents, shards of signatures), as clusters were made of them.

    evidence: what the clusters have left of the candidates' shingle sets; None if sets are to be made again.
    """
    documents = [(name, shards) for name, shards, _ in sources]
    files = survivors(clusters, documents, keep, workers=workers, draft=draft)
    listing = CANDIDATES
    if evidence is None:
        evidence, listing = make_group(shard_pairs(sources), matching, workers=workers, draft=draft), APART
        save(evidence.scratch / f"{APART}.npy", _apart(files, documents, evidence))
        gather_evidence(evidence, APART, workers=workers, draft=draft)
    done = workers.map(
        partial(_write, files=files, sources=documents, evidence=evidence, listing=listing, draft=draft.path),
        range(len(files)),
        result=Removed,
        notes=draft.notes / "ledger",
        label="ledger",
    )
    between: Counter[tuple[str, str]] = Counter()
    for removed in done:
        for source, survivor_source, count in removed.between:
            between[source, survivor_source] += count
    by_source = {name: _removals(name, between) for name, _ in documents}
    summary = {"removed": sum(between.values()), "sources": by_source}
    return Made(tuple(shard for removed in done for shard in removed.shards), summary)


def _removals(source: str, between: Counter[tuple[str, str]]) -> dict[str, int]:
    """How many documents of a source were removed for one of its own, and for one of another."""
    total = sum(count for (of, _), count in between.items() if of == source)
    return {"within": between[source, source], "across": total - between[source, source]}


PLACES = ("rule", "same", "source", "shard", "row", "survivor_source", "survivor_shard", "survivor_row")


def _removed(file: Path, sources: Sources, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The removed documents of a shard of clusters, in order of row, with their `place` and their survivor's."""
    members = pl.read_parquet(file, columns=None if columns is None else list(columns)).filter(pl.col("rule") != "")
    of_survivor = members.select(*_survivor("source", "shard")).select(place_column(sources).alias("survivor_place"))
    return members.with_columns(place_column(sources), *of_survivor).sort("row")


def _survivor(*columns: str) -> list[pl.Expr]:
    """Columns of the survivor under the names that a document's own have."""
    return [pl.col(f"survivor_{name}").alias(name) for name in columns]


def _numbers(documents: pl.DataFrame, evidence: Group) -> NDArray[np.int64]:
    """The numbers that documents have, by their place and row, in the group."""
    firsts = np.array([pair.first for pair in evidence.pairs], np.int64)
    return np.asarray(firsts[documents["place"].to_numpy()] + documents["row"].to_numpy())


def _ends(differ: pl.DataFrame, evidence: Group) -> NDArray[np.int64]:
    """(E, 2): the numbers of removed documents and of their survivors."""
    own, survivors = differ.select("place", "row"), differ.select(*_survivor("place", "row"))
    return np.stack([_numbers(own, evidence), _numbers(survivors, evidence)], axis=1)


def _apart(files: Sequence[Path], sources: Sources, evidence: Group) -> NDArray[np.int64]:
    """What `APART` lists."""
    wanted = np.zeros(evidence.documents, np.bool_)
    for file in files:
        wanted[_ends(_removed(file, sources, PLACES).filter(~pl.col("same")), evidence)] = True
    return np.flatnonzero(wanted)


def _write(
    number: int, *, files: Sequence[Path], sources: Sources, evidence: Group, listing: str, draft: Path
) -> Removed:
    """One task: the ledger of a shard of clusters."""
    removed = _removed(files[number], sources)
    if not removed.height:
        return Removed(shards=(), between=())
    jaccard = np.ones(removed.height)
    differ = np.flatnonzero(~removed["same"].to_numpy())
    jaccard[differ] = jaccard_of(evidence, listing, _ends(removed[differ], evidence))
    out = removed.with_columns(pl.Series("jaccard", jaccard))
    writer = ShardWriter(draft, f"ledger-{number:05d}", LEDGER)
    writer.write(out.select(LEDGER.names).to_arrow())
    between = out.group_by("source", "survivor_source").len().sort("source", "survivor_source")
    return Removed(shards=writer.close(), between=tuple(between.iter_rows()))
