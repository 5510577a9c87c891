"""Which documents are held out, and what is left for training.

in:  documents/<source>, clusters/global      out: heldout/<recipe>: `heldout-*` (documents), `excluded-*` (id, source,
                                                   heldout: the held-out document that it is a near-duplicate of)
in:  documents/<source>, ledger, heldout      out: deduped/<source> (documents)

Whole verified global clusters are held out (a document without near-duplicates is a cluster of one), chosen by a hash
of their smallest id: so the set is the same for every scope, and no training document is a near-duplicate of a held-out
one.
Of each cluster one document is held, the first in keep order; the others are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataproc.dedup.keep import ranked, read_clusters
from dataproc.documents import DOCUMENTS, ShardWriter, batches, frame_of, rows_of
from dataproc.recipe import Holdout
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.identity import hash64
from manifest.record import Model, Shard

HOLDOUT_STAGE = "holdout/1"
DEDUPED_STAGE = "dedupe/1"
EXCLUDED = pa.schema([("id", pa.string()), ("source", pa.string()), ("heldout", pa.string())])


class Chosen(Model):
    """Documents of a shard whose own id is chosen: (hash of the id, id), ascending."""

    ids: tuple[tuple[int, str], ...]
    documents: int


class Written(Model):
    shards: tuple[Shard, ...]
    documents: int
    text_bytes: int


def holdout(
    clusters: Sequence[Path],
    sources: Sequence[tuple[str, Sequence[Path]]],
    *,
    config: Holdout,
    keep: Sequence[str],
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage. sources: (name, shards of documents), in recipe order."""
    limit = int(config.fraction * 2**64)
    members = ranked(read_clusters(clusters), keep, [name for name, _ in sources])
    shards = [(name, shard) for name, shard_list in sources for shard in shard_list]
    chosen = workers.map(
        partial(_chosen, limit=limit),
        [s for _, s in shards],
        result=Chosen,
        notes=draft.notes / "chosen",
        label="hold-out",
    )
    names = [name for name, _ in shards]
    total = {name: 0 for name, _ in sources}
    for name, found in zip(names, chosen, strict=True):
        total[name] += found.documents
    held, excluded = _within_share(_singles(names, chosen, members), members, limit, total, config.max_share)
    taken = draft.scratch / "held.parquet"
    pq.write_table(pa.table({"id": pa.array(sorted(held), pa.large_string())}), taken)
    written = workers.map(
        partial(_write, ids=taken, keep=True, draft=draft.path, stem="heldout"),
        list(enumerate(s for _, s in shards)),
        result=Written,
        notes=draft.notes / "written",
        label="held-out documents",
    )
    writer = ShardWriter(draft.path, "excluded", EXCLUDED)
    writer.write(pa.Table.from_pylist(excluded, schema=EXCLUDED))
    by_source = {
        name: {
            "heldout": sum(w.documents for n, w in zip(names, written, strict=True) if n == name),
            "excluded": sum(row["source"] == name for row in excluded),
        }
        for name in total
    }
    summary = {"heldout": len(held), "excluded": len(excluded), "sources": by_source}
    return Made((*(s for w in written for s in w.shards), *writer.close()), summary)


def _chosen(shard: Path, *, limit: int) -> Chosen:
    keys = [(_key(i), i) for batch in batches(shard, ["id"]) for i in batch["id"].to_pylist()]
    return Chosen(ids=tuple(sorted(pair for pair in keys if pair[0] < limit)), documents=len(keys))


def _singles(names: Sequence[str], chosen: Sequence[Chosen], members: pl.DataFrame) -> list[tuple[int, str, str]]:
    """The chosen documents without near-duplicates: (hash, id, source). names: the source of each shard."""
    found = [
        (key, identifier, name) for name, shard in zip(names, chosen, strict=True) for key, identifier in shard.ids
    ]
    clustered = set(members.filter(pl.col("id").is_in([identifier for _, identifier, _ in found]))["id"])
    return [single for single in found if single[1] not in clustered]


def _key(identifier: str) -> int:
    """The hash that decides the hold-out; apart from the one that orders documents in a stream."""
    return hash64(f"holdout/{identifier}")


def _within_share(
    singles: list[tuple[int, str, str]],
    members: pl.DataFrame,
    limit: int,
    total: dict[str, int],
    max_share: float,
) -> tuple[set[str], list[dict[str, str]]]:
    """Takes clusters in order of hash while no source loses more than its share → held ids, excluded rows."""
    clusters: list[tuple[int, list[tuple[str, str]]]] = [(key, [(i, source)]) for key, i, source in singles]
    keys = {smallest: _key(smallest) for smallest in members["cluster"].unique()}
    chosen = members.filter(pl.col("cluster").is_in([smallest for smallest, key in keys.items() if key < limit]))
    for (smallest,), rows in chosen.group_by("cluster", maintain_order=True):
        clusters.append((keys[str(smallest)], list(rows.select("id", "source").iter_rows())))
    lost = dict.fromkeys(total, 0)
    held: set[str] = set()
    excluded: list[dict[str, str]] = []
    for _, cluster in sorted(clusters):
        after = dict(lost)
        for _, source in cluster:
            after[source] += 1
        if any(after[source] > max_share * total[source] for _, source in cluster):
            continue
        lost = after
        held.add(cluster[0][0])
        excluded += [{"id": i, "source": source, "heldout": cluster[0][0]} for i, source in cluster[1:]]
    return held, excluded


def dedupe(
    name: str,
    shards: Sequence[Path],
    lists: Sequence[Path],
    *,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage: the documents of source `name` without those that `lists` name (shards with id and source)."""
    drop = frame_of(lists, pl.Schema({"id": pl.String, "source": pl.String})).filter(pl.col("source") == name)["id"]
    dropped = draft.scratch / "dropped.parquet"
    pq.write_table(drop.unique().sort().to_frame().to_arrow(), dropped)
    written = workers.map(
        partial(_write, ids=dropped, keep=False, draft=draft.path, stem="documents"),
        list(enumerate(shards)),
        result=Written,
        notes=draft.notes / "written",
        label="deduped documents",
    )
    summary = {
        "documents": sum(w.documents for w in written),
        "text_bytes": sum(w.text_bytes for w in written),
    }
    return Made(tuple(s for w in written for s in w.shards), summary)


def _write(numbered: tuple[int, Path], *, ids: Path, keep: bool, draft: Path, stem: str) -> Written:
    """The rows of a shard whose id is (keep) or is not (not keep) among `ids`."""
    number, shard = numbered
    listed = pc.is_in(rows_of(shard, ["id"])["id"].cast(pa.large_string()), value_set=rows_of(ids)["id"])
    wanted = (listed if keep else pc.invert(listed)).combine_chunks()
    writer = ShardWriter(draft, f"{stem}-{number:05d}", DOCUMENTS)
    row = documents = text_bytes = 0
    for batch in batches(shard):
        kept = batch.filter(wanted.slice(row, batch.num_rows))
        writer.write(kept)
        row += batch.num_rows
        documents += kept.num_rows
        text_bytes += int(pc.sum(pc.binary_length(kept["text"])).as_py() or 0)
    return Written(shards=writer.close(), documents=documents, text_bytes=text_bytes)
