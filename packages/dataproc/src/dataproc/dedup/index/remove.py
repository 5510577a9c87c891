"""Tombstones → documents of an index are as if they had never been there.

    report: id, source, status, cluster, survivor, tombstone, jaccard f64

in order of status and id:
    removed     a document, the cluster it was in, the tombstone (its id, or `text <number>` of the command) and J to it
    promoted    a document that survives from now on, and the survivor that it takes the place of
    split       who survives in each part of a cluster that fell apart, the cluster that it was, and who survived then

Only the components of removed documents are looked at: their remaining texts are linked anew. A text tombstone also
holds for documents that are added later. What is on the disk stays there: whoever may not even keep the text of a
document builds the index again without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc import progress
from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.buckets import buckets
from dataproc.dedup.index.batch import write_edges
from dataproc.dedup.index.graph import Edges, Reached, components, joined, reach
from dataproc.dedup.index.known import KnownTexts, documents_by_id, documents_of, members_of, texts_by_hash
from dataproc.dedup.index.state import DEAD_DOCUMENTS, DEAD_TEXTS, TOMBSTONES, Index, local_store
from dataproc.dedup.index.tables import NUMBERS, write_table
from dataproc.dedup.index.verdicts import living_members, survivors
from dataproc.dedup.links import BUCKET_CAP
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.near import near
from dataproc.dedup.pairs import Evidence, link
from dataproc.dedup.stones import TOMBSTONES as SCHEMA
from dataproc.dedup.stones import Texts, Tombstone, stones_of
from dataproc.documents import ShardWriter
from dataproc.stage import Build, Draft, Made, Request
from dataproc.workers import Serial
from manifest.artifact import Opened, open_artifact
from manifest.errors import DataError
from manifest.identity import digest_of, hash64

STAGE = "index-removal/1"
REPORT = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("status", pa.string()),
        ("cluster", pa.string()),
        ("survivor", pa.string()),
        ("tombstone", pa.string()),
        ("jaccard", pa.float64()),
    ]
)

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Removal:
    """What tombstones do to an index: documents and texts that are dead from now on, and what is found of the rest."""

    documents: I64
    texts: I64
    edges: Edges
    report: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        status = self.report["status"]
        return {
            "removed": len(self.documents),
            "promoted": int((status == "promoted").sum()),
            "clusters_split": self.report.filter(pl.col("status") == "split")["cluster"].n_unique(),
        }


def remove(index: Index, tombstones: list[Tombstone]) -> Opened:
    """Publishes tombstones as the next entry; under the index's lock (state.exclusive).

    Tombstones that are all there already are the entry that has the last of them. Raises DataError for an id that the
    index does not have.
    """
    new = _not_among(index.tombstones(), tombstones)
    if not new:
        last = next(path for path in reversed(index.removals) if _not_among(stones_of(path), tombstones) != tombstones)
        progress.say(f"these tombstones are there already, the last of them in {last}")
        return open_artifact(last)

    def make(draft: Draft) -> Made:
        removal = plan(index, new)
        shards = (
            *_write(draft.path, "tombstones", SCHEMA, pa.Table.from_pylist([s.model_dump() for s in new], SCHEMA)),
            write_table(draft.path / DEAD_DOCUMENTS, NUMBERS, (removal.documents,)),
            write_table(draft.path / DEAD_TEXTS, NUMBERS, (removal.texts,)),
            write_edges(removal.edges, draft.path),
            *_write(draft.path, "report", REPORT, removal.report.to_arrow()),
        )
        return Made(shards, {"tombstones": len(new), **removal.counts})

    request = Request(
        TOMBSTONES,
        f"{len(index.entries):06d}",
        STAGE,
        {"tombstones": digest_of([stone.model_dump() for stone in new])},
        {"previous": open_artifact(index.entries[-1])},
    )
    made = Build(local_store(index.root), Serial()).make(request, make)
    assert isinstance(made, Opened)
    return made


def plan(index: Index, tombstones: Sequence[Tombstone]) -> Removal:
    """What these tombstones would do. Raises DataError for an id that the index does not have."""
    dead_documents, dead_texts = index.dead_documents(), index.dead_texts()
    removed = _struck(index, tombstones, dead_documents)
    texts = np.unique(documents_of(index, removed["document"].to_numpy())["text"].to_numpy())
    place, documents = members_of(index, texts)
    alive = place[~np.isin(documents, np.union1d(dead_documents, removed["document"].to_numpy()))]
    dying = np.delete(texts, np.unique(alive))
    before = reach(index, texts, dead_texts)
    edges = _link_again(index, before, dying)
    report = _report(index, removed, before, dying, edges)
    return Removal(np.sort(removed["document"].to_numpy()), dying, edges, report)


def _struck(index: Index, tombstones: Sequence[Tombstone], dead_documents: I64) -> pl.DataFrame:
    """document, tombstone, jaccard: the living documents that fall under a tombstone, each once."""
    found = [_of_ids(index, [stone.document for stone in tombstones if stone.document])]
    found.append(_of_texts(index, tuple(stone.text for stone in tombstones if stone.text)))
    rows = pl.concat(found).filter(~pl.col("document").is_in(dead_documents.tolist()))
    return rows.unique("document", keep="first", maintain_order=True)


def _of_ids(index: Index, ids: list[str]) -> pl.DataFrame:
    keys = np.array([hash64(identifier) for identifier in ids], np.uint64)
    documents = documents_by_id(index, pa.array(ids, pa.string()), keys)
    missing = [identifier for identifier, document in zip(ids, documents, strict=True) if document < 0]
    if missing:
        raise DataError(
            f"{len(missing)} ids are not in {index.root}, such as {', '.join(map(repr, missing[:3]))}; an id begins "
            "with its source, as in books/1234 (and what falls under a text tombstone is never added). Correct them; "
            "nothing was removed"
        )
    return pl.DataFrame(
        {"document": documents, "tombstone": pl.Series(ids, dtype=pl.String), "jaccard": np.ones(len(ids))}
    )


def _of_texts(index: Index, texts: tuple[str, ...]) -> pl.DataFrame:
    """The predicate J(text, document) ≥ threshold, the nearest text of a document first."""
    stones = Texts(texts, index.settings.matching)
    known = KnownTexts.of(index)
    found = near(known, index.settings.matching, stones.all_minima, stones.shingle_sets)
    equal, same = texts_by_hash(index, stones.hashes_N2)
    stone = np.concatenate([equal, found.query])
    text = np.concatenate([same, found.text])
    place, documents = members_of(index, text)
    jaccard = np.concatenate([np.ones(len(equal)), found.jaccard])[place]
    names = [f"text {number + 1}" for number in stone[place].tolist()]
    table = pl.DataFrame({"document": documents, "tombstone": pl.Series(names, dtype=pl.String), "jaccard": jaccard})
    return table.sort("jaccard", descending=True, maintain_order=True)


def _link_again(index: Index, before: Reached, dying: I64) -> Edges:
    """The edges among the texts that remain of the components that lose one, one component at a time."""
    hit = np.unique(before.component_of(dying))
    rest = ~np.isin(before.texts, dying)
    known = KnownTexts.of(index)
    return joined([_linked(known, before.texts[rest & (before.component == component)]) for component in hit])


def _linked(known: KnownTexts, texts: I64) -> Edges:
    """The edges among some texts, as a build finds them, with exact indices."""
    matching = known.index.settings.matching
    minima_ND = known.minima(texts)
    signed = np.flatnonzero(is_signed(minima_ND))
    keys_NB = band_keys(minima_ND[signed], matching.bands)
    found = buckets(np.ascontiguousarray(keys_NB).reshape(-1), np.repeat(signed, keys_NB.shape[1]))
    evidence = Evidence.of(minima_ND, known.shingle_sets(texts))
    links = link(found, evidence, np.arange(len(texts)), threshold=matching.threshold, cap=BUCKET_CAP)
    return Edges(texts[links.edges[:, 0]], texts[links.edges[:, 1]], evidence.jaccard(links.edges))


def _report(index: Index, removed: pl.DataFrame, before: Reached, dying: I64, edges: Edges) -> pl.DataFrame:
    dead = index.dead_documents()
    was = survivors(living_members(index, before.texts, dead), before.texts, before.component, index.settings)
    texts, component = _after(before, dying, edges)
    left = living_members(index, texts, np.union1d(dead, removed["document"].to_numpy()))
    now = survivors(left, texts, component, index.settings)
    clusters = was.select("document", was="cluster", had="survivor")
    gone = removed.join(was, on="document").with_columns(pl.lit("removed").alias("status"))
    now = now.filter(pl.col("rule") == "").join(clusters, on="document")
    promoted = now.filter(pl.col("id") != pl.col("had"))
    promoted = promoted.select("id", "source", "cluster", status=pl.lit("promoted"), survivor="had")
    parts = now.filter(pl.len().over("was") > 1)
    split = parts.select("id", "source", cluster="was", status=pl.lit("split"), survivor="had")
    return _as_report([gone, promoted, split])


def _after(before: Reached, dying: I64, edges: Edges) -> tuple[I64, I64]:
    """The texts that remain, and the component of each."""
    rest = ~np.isin(before.texts, dying)
    whole = ~np.isin(before.component, before.component_of(dying))
    untouched = Edges(before.texts[whole], before.component[whole], np.ones(int(whole.sum())))
    texts = before.texts[rest]
    return texts, components(texts, joined([untouched, edges]))


def _as_report(tables: list[pl.DataFrame]) -> pl.DataFrame:
    columns: dict[str, Any] = {"tombstone": pl.String, "jaccard": pl.Float64}
    whole = pl.concat([pl.DataFrame(schema=columns), *tables], how="diagonal_relaxed")
    filled = whole.with_columns(pl.col("tombstone").fill_null(""), pl.col("jaccard").fill_null(float("nan")))
    return filled.select(REPORT.names).sort("status", "id")


def _write(out: Path, stem: str, schema: pa.Schema, table: pa.Table) -> tuple[Any, ...]:
    writer = ShardWriter(out, stem, schema)
    writer.write(table)
    return writer.close()


def _not_among(known: Sequence[Tombstone], tombstones: Sequence[Tombstone]) -> list[Tombstone]:
    """The tombstones that are none of those that are known, whatever the reasons."""
    there = {(stone.document, stone.text) for stone in known}
    return [stone for stone in tombstones if (stone.document, stone.text) not in there]
