"""Which documents are held out.

in:  documents/<source>, and clusters/global or the ledger      out: heldout/all:
     heldout-*    documents
     excluded-*   id, source, heldout: documents that leave training too, and the held-out one that they are like
     places-*     source, shard, row: of all of these

by cluster    Whole verified global clusters (a document without near-duplicates is one of its own), chosen by a hash of
              their smallest id: so the set is the same for every scope, and no training document is a near-duplicate of
              a held-out one. Of each cluster one document is held, the first in keep order; the others are excluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataproc.dedup.keep_keys import Key
from dataproc.dedup.places import Sources, numbered
from dataproc.dedup.survivors import survivors
from dataproc.documents import ShardWriter, batches, documents_schema, picked, rows_of
from dataproc.recipe.dedup import Holdout
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.identity import hash64
from manifest.record import Model, Shard

STAGE = "holdout/2"
EXCLUDED = pa.schema([("id", pa.string()), ("source", pa.string()), ("heldout", pa.string())])
PLACES = pa.schema([("source", pa.string()), ("shard", pa.int32()), ("row", pa.int64())])


@dataclass(frozen=True)
class Placed:
    """A document and where it lies: (source, shard, row)."""

    id: str
    place: tuple[str, int, int]

    @property
    def source(self) -> str:
        return self.place[0]


@dataclass(frozen=True)
class Held:
    """A held-out document, and those that leave training with it."""

    document: Placed
    others: tuple[Placed, ...]


class Counted(Model):
    """Documents of a shard, and those whose own id is chosen: (hash of the id, id, row)."""

    documents: int
    chosen: tuple[tuple[int, str, int], ...]


def holdout(
    clusters: Sequence[Path],
    sources: Sources,
    *,
    config: Holdout,
    keep: Sequence[Key],
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage, by cluster."""
    limit = int(config.fraction * 2**64)
    counted = workers.map(
        partial(_count, limit=limit), numbered(sources), result=Counted, notes=draft.notes / "counted", label="hold-out"
    )
    decided = survivors(clusters, sources, keep, choose=partial(_chosen, limit=limit), workers=workers, draft=draft)
    total: Counter[str] = Counter()
    for (source, _), shard in zip(located(sources), counted, strict=True):
        total[source] += shard.documents
    chosen = [*_alone(clusters, sources, counted, workers=workers, draft=draft), *_together(decided)]
    return publish(_within_share(chosen, total, config.max_share), sources, workers=workers, draft=draft)


def _count(shard: Path, *, limit: int) -> Counted:
    ids = [identifier for batch in batches(shard, ["id"]) for identifier in batch["id"].to_pylist()]
    keys = [(_key(identifier), identifier, row) for row, identifier in enumerate(ids)]
    return Counted(documents=len(ids), chosen=tuple(key for key in keys if key[0] < limit))


def _key(identifier: str) -> int:
    """The hash that decides the hold-out; apart from the one that orders documents in a stream."""
    return hash64(f"holdout/{identifier}")


def _chosen(clusters: pl.DataFrame, *, limit: int) -> pl.DataFrame:
    """The clusters whose smallest id is chosen."""
    names = [name for name in clusters["cluster"].unique() if _key(name) < limit]
    return clusters.filter(pl.col("cluster").is_in(names))


def _together(decided: Sequence[Path]) -> Iterator[tuple[int, Held]]:
    """The chosen clusters with their hashes."""
    wanted = ["cluster", "rule", "id", "source", "shard", "row"]
    tables = [pl.read_parquet(file).select(wanted) for file in decided if pq.read_metadata(file).num_rows]
    if not tables:
        return
    in_order = pl.concat(tables).sort("cluster", pl.col("rule") != "", "id")
    for (cluster,), rows in in_order.group_by("cluster", maintain_order=True):
        found = rows.drop("cluster", "rule").iter_rows()
        documents = [Placed(identifier, (source, shard, row)) for identifier, source, shard, row in found]
        yield _key(str(cluster)), Held(documents[0], tuple(documents[1:]))


def _alone(
    clusters: Sequence[Path], sources: Sources, counted: Sequence[Counted], *, workers: Workers, draft: Draft
) -> list[tuple[int, Held]]:
    """The chosen documents without near-duplicates, with their hashes."""
    found = [
        (key, identifier, source, shard, row)
        for (source, shard), count in zip(located(sources), counted, strict=True)
        for key, identifier, row in count.chosen
    ]
    columns = {"key": pl.UInt64, "id": pl.String, "source": pl.String, "shard": pl.Int32, "row": pl.Int64}
    table = pl.DataFrame(found, columns, orient="row")
    file = draft.scratch / "chosen.parquet"
    table.write_parquet(file)
    members = workers.map(
        partial(_clustered, chosen=file), clusters, result=Clustered, notes=draft.notes / "clustered", label="hold-out"
    )
    clustered = {identifier for shard in members for identifier in shard.ids}
    rows = table.filter(~pl.col("id").is_in(list(clustered)))
    return [(key, Held(Placed(i, (source, shard, row)), ())) for key, i, source, shard, row in rows.iter_rows()]


class Clustered(Model):
    """The chosen ids that are in a cluster of a shard."""

    ids: tuple[str, ...]


def _clustered(shard: Path, *, chosen: Path) -> Clustered:
    ids = pl.DataFrame(pl.from_arrow(rows_of(shard, ["id"])))
    return Clustered(ids=tuple(ids.join(pl.read_parquet(chosen, columns=["id"]), on="id", how="semi")["id"]))


def _within_share(chosen: list[tuple[int, Held]], total: Mapping[str, int], max_share: float) -> list[Held]:
    """Takes clusters in order of hash while no source loses more than its share."""
    lost: Counter[str] = Counter()
    taken: list[Held] = []
    for _, held in sorted(chosen, key=lambda pair: (pair[0], pair[1].document.id)):
        leaving = Counter(member.source for member in (held.document, *held.others))
        if all(lost[source] + count <= max_share * total[source] for source, count in leaving.items()):
            lost += leaving
            taken.append(held)
    return taken


# ---- writing what is held


def located(sources: Sources) -> list[tuple[str, int]]:
    """(source, shard) of every shard of documents, end to end."""
    return [(name, number) for name, shards in sources for number in range(len(shards))]


def publish(held: Sequence[Held], sources: Sources, *, workers: Workers, draft: Draft) -> Made:
    """Writes the artifact's shards."""
    rows: dict[tuple[str, int], list[int]] = {place: [] for place in located(sources)}
    for one in held:
        source, shard, row = one.document.place
        rows[source, shard].append(row)
    written = workers.map(
        partial(_write, draft=draft.path),
        [(n, path, sorted(of)) for n, (path, of) in enumerate(zip(numbered(sources), rows.values(), strict=True))],
        result=Written,
        notes=draft.notes / "written",
        label="held-out documents",
    )
    excluded = [(other, one.document.id) for one in held for other in one.others]
    lists = ShardWriter(draft.path, "excluded", EXCLUDED)
    listed = [{"id": other.id, "source": other.source, "heldout": document} for other, document in excluded]
    lists.write(pa.Table.from_pylist(listed, schema=EXCLUDED))
    places = ShardWriter(draft.path, "places", PLACES)
    leaving = sorted([one.document.place for one in held] + [other.place for other, _ in excluded])
    places.write(pl.DataFrame(leaving, PLACES.names, orient="row").to_arrow() if leaving else PLACES.empty_table())
    by_source = {
        name: {
            "heldout": sum(one.document.source == name for one in held),
            "excluded": sum(other.source == name for other, _ in excluded),
        }
        for name, _ in sources
    }
    summary = {"heldout": len(held), "excluded": len(excluded), "sources": by_source}
    return Made((*(s for w in written for s in w.shards), *lists.close(), *places.close()), summary)


class Written(Model):
    shards: tuple[Shard, ...]


def _write(shard: tuple[int, Path, list[int]], *, draft: Path) -> Written:
    """One task: the held-out rows of a shard."""
    number, path, rows = shard
    writer = ShardWriter(draft, f"heldout-{number:05d}", documents_schema(path))
    for batch in picked(path, None, np.array(rows, np.int64)):
        writer.write(batch)
    return Written(shards=writer.close())
