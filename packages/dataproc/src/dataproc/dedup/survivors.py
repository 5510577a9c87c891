"""Clusters → their members, each beside its survivor: one file per shard of clusters.

out: `decided-NNNNN.parquet`: the columns of clusters/<group>; survivor, survivor_source, survivor_shard, survivor_row,
     same (the cleaned texts are equal), rule (empty for the survivor)

    shards ──(cluster, its first member here)──► by cluster: the first of all ──► back to the shards

What passes is one row per cluster and shard, however large the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataproc import progress
from dataproc.dedup.keep import in_order, key_columns, numbers_in, rule, with_keys
from dataproc.dedup.keep_keys import Key, fields_of
from dataproc.dedup.places import Sources
from dataproc.documents import picked, rows_of
from dataproc.shuffle import partition_batches, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.fields import nearest
from manifest.record import Model

CLUSTERS_PER_PARTITION = 500_000
ASKED_BY = pa.schema([("asked by", pa.int64())])
SURVIVOR = ("id", "source", "shard", "row", "text_hash")


class Decided(Model):
    """Of a shard: its members; how many of them have a number in each field of the keep order; what the metadata of
    one names.
    """

    members: int
    numbers: tuple[int, ...] = ()
    known: tuple[str, ...] = ()


Choose = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Deciding:
    """What every task needs to know. choose: keeps only some whole clusters of a table; a picklable function."""

    clusters: tuple[Path, ...]
    sources: Sources
    keep: tuple[Key, ...]
    choose: Choose | None


def survivors(
    clusters: Sequence[Path],
    sources: Sources,
    keep: Sequence[Key],
    *,
    choose: Choose | None = None,
    workers: Workers,
    draft: Draft,
) -> list[Path]:
    """The files, one per shard of clusters."""
    deciding = Deciding(tuple(clusters), sources, tuple(keep), choose)
    shards = range(len(clusters))
    rows = sum(pq.ParquetFile(shard).metadata.num_rows for shard in clusters)
    partitions = max(1, -(-rows // (2 * CLUSTERS_PER_PARTITION)))
    firsts = workers.scatter(
        partial(_firsts, deciding=deciding, partitions=partitions),
        shards,
        scratch=draft.scratch / "firsts",
        label="survivors",
    )
    chosen = workers.scatter(
        partial(_decide, deciding=deciding, firsts=firsts),
        range(partitions),
        scratch=draft.scratch / "chosen",
        label="survivors",
    )
    files = [draft.scratch / f"decided-{number:05d}.parquet" for number in shards]
    write = partial(_write, deciding=deciding, chosen=chosen, files=files)
    decided = workers.map(write, shards, result=Decided, notes=draft.notes / "survivors", label="survivors")
    if choose is None:
        _tell_of_fields(deciding, decided)
    return files


def _tell_of_fields(deciding: Deciding, decided: Sequence[Decided]) -> None:
    """Says so if a field of the keep order ranks nobody, as one that is misspelt."""
    names = ", ".join(name for name, _ in deciding.sources)
    known = sorted({name for one in decided for name in one.known})
    for place, field in enumerate(fields_of(deciding.keep)):
        if any(one.members for one in decided) and not any(one.numbers[place] for one in decided):
            why = "; it is there, but no number" if field in known else nearest(field, known)
            progress.say(
                f"dedup.keep: {field!r} decides nothing in {names}: it is a number in the metadata of no document that "
                f"has a near-duplicate{why}"
            )


def _members(number: int, deciding: Deciding) -> pl.DataFrame:
    """The members of a shard with their keys."""
    shard = deciding.clusters[number]
    table = pl.DataFrame(pl.from_arrow(rows_of(shard)))
    if deciding.choose is not None:
        table = deciding.choose(table)
    fields = fields_of(deciding.keep)
    if fields and table.height:
        table = table.with_columns(_values(table, deciding.sources, fields))
    elif fields:
        table = table.with_columns(pl.lit(None, pl.Float64).alias(f"field {field}") for field in fields)
    return with_keys(table, deciding.keep, [name for name, _ in deciding.sources])


def _values(table: pl.DataFrame, sources: Sources, fields: Sequence[str]) -> list[pl.Series]:
    """The fields of the members' metadata. They come from one shard of documents, in order of row."""
    source, shard = table.row(0, named=True)["source"], table.row(0, named=True)["shard"]
    documents = dict(sources)[source][shard]
    found = picked(documents, ["meta"], table["row"].to_numpy())
    meta = [row for batch in found for row in batch["meta"].to_pylist()]
    return [numbers_in(meta, field).alias(f"field {field}") for field in fields]


def _known_fields(table: pl.DataFrame, sources: Sources) -> tuple[str, ...]:
    """What the metadata of the first member names."""
    first = table.row(0, named=True)
    (batch,) = picked(dict(sources)[first["source"]][first["shard"]], ["meta"], np.array([first["row"]]))
    return tuple(json.loads(batch["meta"][0].as_py()))


def _firsts(number: int, file: Path, *, deciding: Deciding, partitions: int) -> None:
    """One task: the first member of every cluster in a shard, by cluster."""
    members = in_order(_members(number, deciding), deciding.keep)
    firsts = members.unique("cluster", keep="first", maintain_order=True)
    columns = ["cluster", *key_columns(deciding.keep), *SURVIVOR]
    firsts = firsts.select(columns).with_columns(pl.lit(number, pl.Int64).alias("asked by"))
    partition = (firsts["cluster"].hash() % partitions).cast(pl.Int64).to_numpy()
    write_partitions(file, firsts.to_arrow(), partition, partitions)


def _decide(partition: int, file: Path, *, deciding: Deciding, firsts: tuple[Path, ...]) -> None:
    """One task: the first of every cluster of a partition, for every shard that has members of it."""
    found = list(partition_batches(firsts, partition))
    if not found:
        nothing = ASKED_BY.empty_table()
        write_partitions(file, nothing, nothing["asked by"].to_numpy(), len(deciding.clusters))
        return
    keys = key_columns(deciding.keep)
    members = in_order(pl.DataFrame(pl.from_arrow(pa.Table.from_batches(found))), deciding.keep)
    renamed = {name: f"first {name}" for name in keys} | {name: f"survivor {name}" for name in SURVIVOR}
    best = members.unique("cluster", keep="first", maintain_order=True).select("cluster", *keys, *SURVIVOR)
    asked = members.select("cluster", "asked by").join(best.rename(renamed), on="cluster", maintain_order="left")
    write_partitions(file, asked.to_arrow(), asked["asked by"].to_numpy(), len(deciding.clusters))


def _write(number: int, *, deciding: Deciding, chosen: tuple[Path, ...], files: Sequence[Path]) -> Decided:
    """One task: the members of a shard beside their survivors."""
    members = _members(number, deciding)
    fields = fields_of(deciding.keep)
    numbers = tuple(members[f"field {field}"].count() for field in fields)
    known = _known_fields(members, deciding.sources) if fields and members.height and not all(numbers) else ()
    found = list(partition_batches(chosen, number))
    if found:
        best = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(found))).drop("asked by")
        table = members.join(best, on="cluster", how="left", maintain_order="left").with_columns(rule(deciding.keep))
        table = table.with_columns((pl.col("text_hash") == pl.col("survivor text_hash")).alias("same"))
        names = {f"survivor {name}": f"survivor_{name}" for name in ("source", "shard", "row")}
        table = table.rename(names | {"survivor id": "survivor"})
        members = table.drop(c for c in table.columns if c.startswith(("key ", "first ", "field ", "survivor ")))
    aside = files[number].with_suffix(".tmp")
    pq.write_table(members.to_arrow(), aside)
    aside.replace(files[number])
    return Decided(members=members.height, numbers=numbers, known=known)
