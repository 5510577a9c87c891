"""Contaminated documents → what leaves training for their sake.

in:  contamination/all, ledger/<group>…     out: contaminated/all: id, source, because (a contaminated document)

A document leaves if it is contaminated, or if a document of its cluster is: it stands for all of them, and whoever
wrote another copy may have changed just the words that were looked for. So it does not matter which one dedup has kept.
The others of the cluster are in the ledger, and leave as duplicates. Where nothing is deduplicated there is no cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa

from dataproc.documents import ShardWriter, frame_of, rows_of
from dataproc.stage import Draft, Made
from dataproc.workers import Done, Workers

STAGE = "contaminated/1"
CONTAMINATED = pa.schema([("id", pa.string()), ("source", pa.string()), ("because", pa.string())])
_IDS = pl.Schema({"id": pl.String, "source": pl.String})
_COLUMNS = CONTAMINATED.names


def leaving(
    spans: Sequence[Path], ledgers: Sequence[Path], names: Sequence[str], *, workers: Workers, draft: Draft
) -> Made:
    """The stage. names: of all sources. Memory goes with the contaminated documents."""
    own = frame_of(spans, _IDS).unique().with_columns(pl.col("id").alias("because"))
    file, parts = draft.scratch / "own.parquet", draft.scratch / "survivors"
    own.select("id").write_parquet(file)
    parts.mkdir(exist_ok=True)
    workers.map(
        partial(_survivors, own=file, parts=parts),
        list(enumerate(ledgers)),
        result=Done,
        notes=draft.notes / "survivors",
        label="clusters of contaminated documents",
    )
    found = [pl.read_parquet(part).select(_COLUMNS) for part in sorted(parts.iterdir())]
    others = pl.concat([own.clear(), *found]).sort(_COLUMNS).unique("id", keep="first", maintain_order=True)
    everything = pl.concat([own, others.join(own, on="id", how="anti")]).sort("source", "id")
    writer = ShardWriter(draft.path, "contaminated", CONTAMINATED)
    writer.write(everything.to_arrow())
    by_source = {name: everything.filter(pl.col("source") == name) for name in names}
    summary = {
        "documents": everything.height,
        "sources": {
            name: {"own": (rows["id"] == rows["because"]).sum(), "of_cluster": (rows["id"] != rows["because"]).sum()}
            for name, rows in by_source.items()
        },
    }
    return Made(writer.close(), summary)


def _survivors(numbered: tuple[int, Path], *, own: Path, parts: Path) -> Done:
    """One task: who survived, by a shard of the ledger, of the clusters that contaminated documents were in."""
    number, ledger = numbered
    removed = pl.DataFrame(pl.from_arrow(rows_of(ledger, ["id", "survivor", "survivor_source"])))
    touched = removed.join(pl.read_parquet(own), on="id", how="semi")
    rows = touched.select(
        pl.col("survivor").alias("id"), pl.col("survivor_source").alias("source"), pl.col("id").alias("because")
    )
    aside = parts.parent / f"survivors-{number:05d}.tmp"
    rows.write_parquet(aside)
    aside.replace(parts / f"{number:05d}.parquet")
    return Done()
