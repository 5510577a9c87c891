"""Clusters → which document of each survives, and the ledger of every removal.

in:  clusters/<group>, documents/<source>…
out: ledger/<group>: one row per removed document
     id, source, survivor, survivor_source, cluster, jaccard f64 (exact, to the survivor), rule

The survivor is the first of its cluster in a stated total order: `source_order` (as in the recipe), `longest`
(characters), `id`. `rule` is the first key in which the removed document came behind. By transitivity the Jaccard to
the survivor may lie under the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.jaccard import exact
from dataproc.dedup.shingles import ShingleSets, Shingling, shingle_hashes, unique_sorted
from dataproc.documents import ShardWriter, batches, frame_of, rows_of
from dataproc.shuffle import Scattered, write_partitions
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.record import Model, Shard

STAGE = "keep/1"
PARTITION_DOCUMENTS = 20_000
LEDGER = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("survivor", pa.string()),
        ("survivor_source", pa.string()),
        ("cluster", pa.string()),
        ("jaccard", pa.float64()),
        ("rule", pa.string()),
    ]
)


class Removed(Model):
    shards: tuple[Shard, ...]
    removed: int


def ranked(clusters: pl.DataFrame, keep: Sequence[str], source_order: Sequence[str]) -> pl.DataFrame:
    """The members of all clusters, each cluster's survivor first, with `survivor`, `survivor_source` and `rule` (empty
    for the survivor). Columns in: id, cluster, source, characters.
    """
    keys = {
        "source_order": pl.col("source").replace_strict(
            {s: i for i, s in enumerate(source_order)}, return_dtype=pl.Int64
        ),
        "longest": -pl.col("characters"),
        "id": pl.col("id"),
    }
    named = [keys[key].alias(f"key_{key}") for key in keep]
    table = clusters.with_columns(named).sort("cluster", *(f"key_{key}" for key in keep))
    first = {key: pl.col(f"key_{key}").first().over("cluster") for key in keep}
    rule = pl.lit("")
    for key in reversed(keep):
        rule = pl.when(pl.col(f"key_{key}") != first[key]).then(pl.lit(key)).otherwise(rule)
    return table.with_columns(
        pl.col("id").first().over("cluster").alias("survivor"),
        pl.col("source").first().over("cluster").alias("survivor_source"),
        rule.alias("rule"),
    ).select("id", "source", "survivor", "survivor_source", "cluster", "rule")


def ledger(
    clusters: Sequence[Path],
    sources: Sequence[tuple[str, Sequence[Path]]],
    *,
    keep: Sequence[str],
    shingling: Shingling,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage. sources: (name, shards of documents), in recipe order."""
    table = ranked(read_clusters(clusters), keep, [name for name, _ in sources])
    partitions = max(1, -(-table.height // PARTITION_DOCUMENTS))
    number = pl.col("cluster").rank("dense").cast(pl.Int64) - 1
    file = draft.scratch / "members.parquet"
    pq.write_table(table.with_columns((number % partitions).alias("partition")).to_arrow(), file)
    done = workers.exchange(
        partial(_scatter, members=file, partitions=partitions),
        [(name, shard) for name, shards in sources for shard in shards],
        partial(_gather, members=file, shingling=shingling, draft=draft.path),
        partitions=partitions,
        result=Removed,
        scratch=draft.scratch / "texts",
        label="ledger",
    )
    by_source = {name: _removals(name, table) for name, _ in sources}
    summary = {"removed": sum(d.removed for d in done), "sources": by_source}
    return Made(tuple(shard for d in done for shard in d.shards), summary)


def _removals(source: str, table: pl.DataFrame) -> dict[str, int]:
    """How many documents of a source were removed for one of its own, and for one of another."""
    survivors = table.filter((pl.col("rule") != "") & (pl.col("source") == source))["survivor_source"]
    return {"within": int((survivors == source).sum()), "across": int((survivors != source).sum())}


def read_clusters(shards: Sequence[Path]) -> pl.DataFrame:
    """The rows of clusters/<group>."""
    schema = {"id": pl.String, "cluster": pl.String, "source": pl.String, "characters": pl.Int64}
    return frame_of(shards, pl.Schema(schema))


def _scatter(named: tuple[str, Path], file: Path, *, members: Path, partitions: int) -> None:
    """The documents of a shard that are in a cluster, by cluster."""
    source, shard = named
    ours = pl.scan_parquet(members).filter(pl.col("source") == source).select("id", "partition").collect()
    ids = pl.DataFrame(pl.from_arrow(rows_of(shard, ["id"])))
    partition = ids.join(ours, on="id", how="left", maintain_order="left")["partition"].fill_null(-1).to_numpy()
    clustered = pa.array(partition >= 0)
    kept: list[pa.RecordBatch] = []
    row = 0
    for batch in batches(shard, ["id", "text"]):
        kept.append(batch.filter(clustered.slice(row, batch.num_rows)))
        row += batch.num_rows
    write_partitions(file, pa.Table.from_batches(kept), partition[partition >= 0], partitions)


def _gather(partition: int, rows: Scattered, *, members: Path, shingling: Shingling, draft: Path) -> Removed:
    """The ledger rows of a partition's clusters, in order of (cluster, rank)."""
    table = pl.scan_parquet(members).filter(pl.col("partition") == partition).collect().with_row_index("rank")
    found = list(rows)
    texts = pa.Table.from_batches(found) if found else pa.table({"id": [], "text": []})
    ids = pl.DataFrame({"id": pl.Series(texts["id"].to_pylist(), dtype=pl.String)}).with_row_index("row")
    ours = table.join(ids, on="id").sort("rank")
    sets = unique_sorted(shingle_hashes(clean_all(texts["text"].cast(pa.large_string())), shingling))
    survivor_row = dict(ours.filter(pl.col("rule") == "").select("id", "row").iter_rows())
    removed = ours.filter(pl.col("rule") != "")
    jaccard = [
        _exact(sets, row, survivor_row[survivor]) for row, survivor in removed.select("row", "survivor").iter_rows()
    ]
    out = removed.with_columns(pl.Series("jaccard", jaccard, dtype=pl.Float64)).select(LEDGER.names)
    writer = ShardWriter(draft, f"ledger-{partition:05d}", LEDGER)
    writer.write(out.to_arrow())
    return Removed(shards=writer.close(), removed=out.height)


def _exact(sets: ShingleSets, a: int, b: int) -> float:
    a_set, b_set = (sets.hashes[sets.offsets[row] : sets.offsets[row + 1]] for row in (a, b))
    return 1.0 if len(a_set) == len(b_set) == 0 else exact(a_set, b_set)
